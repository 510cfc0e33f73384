"""bench show"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from bench.cli._main import main
from bench.cli._options import json_option, results_option
from bench.spec import rounded

BLOCKS = "▁▂▃▄▅▆▇█"
NOTHING = "–"


@main.command()
@click.argument("key")
@results_option
@json_option
def show(key: str, results: Path, as_json: bool) -> None:
    """All that is known of one run. KEY: its key, or the first characters of it.

    Status, settings, metrics beside chance and oracle, learning curve, decisions, environment, code, cost, and the
    command that makes the run again.
    """
    from bench.spec.command import reproduce_command
    from bench.storage.records import Store

    record = Store(results).find(key)
    command = reproduce_command(record["spec"])
    if as_json:
        click.echo(json.dumps({**record, "command": command}, indent=1))
        return
    click.echo("\n\n".join(filter(None, ("\n".join(part) for part in _parts(record, command)))))


def _parts(record: dict[str, Any], command: str) -> Iterator[list[str]]:
    spec = record["spec"]
    yield [
        f"{spec['dataset']} {spec['method']} seed {spec['seed']}: {record['status']}",
        *_pairs({"error": record["error"]} if record["error"] else {}),
    ]
    yield _titled("settings", _settings(record))
    if record["metrics"]:
        yield _metrics(record)
    if record["curve"]:
        yield _curve(record)
    yield _titled("gates", {name: _gate(found) for name, found in (record.get("gates") or {}).items()})
    yield _decisions(record.get("decisions") or [])
    yield _titled("cost", record.get("cost") or {})
    yield _titled("made", _made(record))
    yield ["again", f"  {command}"]


def _settings(record: Mapping[str, Any]) -> dict[str, Any]:
    spec = record["spec"]
    trials = (record.get("cost") or {}).get("tuning_trials")
    versions = {**spec["parts"], "method": spec["method_version"], "data set": spec["dataset_version"]}
    return {
        **spec["config"],
        **{f"data: {key}": value for key, value in spec["dataset_config"].items()},
        "language model": spec["lm"] or "none",
        "budget": _listed(spec["budget"]),
        "protocol": spec["protocol"],
        "versions": _listed(versions),
        "chosen by": f"a study of {trials} trials" if trials else "the command",
    }


def _metrics(record: Mapping[str, Any]) -> list[str]:
    """A table for the test part, its validation values and yardsticks beside them, and one for each slice."""
    from tabulate import tabulate

    lines: list[str] = []
    slices = {name: part["rows"] for name, part in (record["metrics"].get("slices") or {}).items()}
    for part, rows in {"test": record["data"]["rows"].get("test"), **slices}.items():
        sides = {"this run": record["metrics"], **(record["references"] or {})}
        columns = {side: _part(found, part) for side, found in sides.items()}
        if part == "test":
            columns = {"valid": record["metrics"]["valid"], **columns}
        body = [
            [task, metric, *(_number(found.get(task, {}).get(metric)) for found in columns.values())]
            for task, found in columns["this run"].items()
            for metric in found
        ]
        about = f"{part.replace('_', ' ')}, {rows:,} rows" if rows is not None else part
        grid = tabulate(body, ["task", "metric", *columns], "simple", disable_numparse=True)
        lines += ([""] if lines else []) + [about, *(f"  {line}" for line in str(grid).splitlines())]
    return lines


def _part(metrics: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = metrics.get("test") or {}
    return found if part == "test" else (metrics.get("slices") or {}).get(part, {}).get("metrics") or {}


def _curve(record: Mapping[str, Any]) -> list[str]:
    """Losses, validation metrics and weights by epoch: first, last, and the course between them as blocks."""
    epochs = [int(entry["epoch"]) for entry in record["curve"]]
    lines = [f"learning curve, epochs {epochs[0]} to {epochs[-1]}"]
    names = {  # in order of appearance; a task's loss can be missing in an epoch
        (kind, task): None
        for entry in record["curve"]
        for kind, found in entry.items()
        if isinstance(found, dict)
        for task in found
    }
    wide = max((len(f"{kind} {task}") for kind, task in names), default=0)
    for kind, task in names:
        course = [entry.get(kind, {}).get(task) for entry in record["curve"]]
        if not all(value is None or isinstance(value, (int, float)) for value in course):
            continue
        best = record["best_epoch"].get(task) if kind == "valid" else None
        best_text = f"  best in epoch {best}" if best is not None else ""
        ends = f"{_number(course[0])} .. {_number(course[-1])}"
        lines.append(f"  {f'{kind} {task}':<{wide}}  {sparkline(course)}  {ends}{best_text}")
    return lines


def sparkline(values: list[float | None]) -> str:
    """One block for each value, its height between the least and the greatest; a gap where there is none."""
    known = [value for value in values if value is not None]
    low, span = min(known, default=0.0), max(known, default=0.0) - min(known, default=0.0)
    heights = [None if v is None else (v - low) / span if span else 0.5 for v in values]
    return "".join(" " if h is None else BLOCKS[min(int(h * len(BLOCKS)), len(BLOCKS) - 1)] for h in heights)


def _gate(found: Mapping[str, Any]) -> str:
    return f"{' '.join(f'{share:.2f}' for share in found['usage'])} (dead: {found['dead']:.0%})"


def _decisions(decisions: list[dict[str, Any]]) -> list[str]:
    return ["decisions", *(f"  {_listed(found)}" for found in decisions)] if decisions else []


def _made(record: Mapping[str, Any]) -> dict[str, Any]:
    code, env, time = (record.get(key) or {} for key in ("code", "env", "time"))
    return {
        "key": record["key"],
        "data": (record.get("data") or {}).get("sha256", "unknown"),
        **{f"code {key}": value for key, value in code.items()},
        **env,
        **time,
    }


def _titled(title: str, pairs: Mapping[str, Any]) -> list[str]:
    return [title, *_pairs(pairs)] if pairs else []


def _pairs(pairs: Mapping[str, Any]) -> list[str]:
    wide = max(map(len, pairs), default=0)
    return [f"  {key:<{wide}}  {_plain(value)}" for key, value in pairs.items()]


def _listed(pairs: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_plain(value)}" for key, value in pairs.items())


def _plain(value: Any) -> str:
    if isinstance(value, (dict, list)):
        value = rounded(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:z.4f}"
