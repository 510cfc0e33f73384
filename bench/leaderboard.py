"""Final records to tables: a function of the set of records only. How they are shown is ``bench.render``'s.

A table holds the runs on one version of one data set under one protocol and budget; a row holds the seeds of one
method and configuration. What is undefined stays a dash: nothing is imputed, and nothing that failed is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from statistics import mean
from typing import Any, Literal

from bench.errors import BenchError, unknown
from bench.metrics import METRICS, skill
from bench.spec import canonical
from bench.stats import Difference, mean_interval, min_seeds_wilcoxon, paired

Record = Mapping[str, Any]
Kind = Literal["oracle", "competitor", "reference", "chance"]

ORDER: tuple[Kind, ...] = ("oracle", "competitor", "reference", "chance")
YARDSTICKS: tuple[Kind, ...] = ("oracle", "chance")  # properties of the data, not runs
BASELINE = "single_task"
DASH = "–"
COSTS = ("fit s", "trained", "trials", "tuning s", "seeds")
TUNING = ("trials", "tuning s")  # where a row is tuned
TUNED = "tuned: with the settings of the best of so many trials by mean skill on validation; tuning s: their seconds."
TABLE_KEYS = ("dataset", "dataset_config", "dataset_version", "protocol", "budget")  # with the data hash: one table
SLICES = {
    "cold_item": ("cold items", "whose item was never seen in training"),
    "cold_user": ("cold users", "whose user was never seen in training"),
}


@dataclass(frozen=True)
class Cell:
    """Text, and the numbers behind it: mean over seeds, half-width of its 95 % interval, the value of each seed, and
    the paired difference to the baseline over common seeds. ``bold``: beats the second best competitor."""

    text: str = DASH
    value: float | None = None
    half_width: float | None = None
    seeds: dict[int, float] = field(default_factory=dict)
    difference: Difference | None = None
    bold: bool = False


@dataclass(frozen=True)
class Row:
    """One method and configuration: a cell for each header. ``keys``: the key of each seed's record."""

    label: str
    kind: Kind
    config: dict[str, Any]
    keys: dict[int, str]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Failure:
    """Runs of one row that ended alike, without a result."""

    label: str
    status: str
    reason: str
    seeds: tuple[int, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Comparable rows, best mean skill first; runs without a result; the same rows on slices of the test set."""

    dataset: str
    title: str
    caption: str
    headers: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    slices: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Board:
    """All tables, and the legend that explains them."""

    tables: tuple[Table, ...]
    legend: tuple[str, ...]


@dataclass(frozen=True)
class _Column:
    header: str
    larger: bool
    get: Callable[[Record], float | None]  # the value of one run

    def series(self, entry: _Entry) -> dict[int, float]:
        """The defined values by seed."""
        return {seed: value for seed, run in sorted(entry.runs.items()) if (value := self.get(run)) is not None}


@dataclass(frozen=True)
class _Entry:
    label: str
    tuned: bool
    kind: Kind
    method: str
    config: dict[str, Any]
    runs: dict[int, Record]  # successful, by seed
    failed: list[Record]


def board(records: Iterable[Record]) -> Board:
    """The leaderboard of the final records of the clean protocols.

    Raises BenchError if there are none, if two records of one spec disagree, or if a metric is unknown.
    """
    groups: dict[str, list[Record]] = {}
    for record in _finals(list(records)):
        groups.setdefault(canonical([*_table_key(record).values()]), []).append(record)
    ordered = [groups[key] for key in sorted(groups)]
    keys = [_table_key(group[0]) for group in ordered]
    tables = tuple(_table(group, keys) for group in ordered)
    return Board(tables, _legend(tables))


def _finals(records: list[Record]) -> list[Record]:
    final = [r for r in records if r["role"] == "final" and r["spec"]["protocol"].startswith("clean-")]
    if not final:
        others = f" ({len(records)} of other roles or protocols)" if records else ""
        raise BenchError(f"no final records of a clean protocol{others}; run `bench run --suite quick` first")
    runs: dict[str, Record] = {}
    for _, record in sorted(((canonical(r), r) for r in final), key=itemgetter(0)):
        run = canonical([record["spec"], _table_key(record)])  # the same spec on other data is another run
        kept = runs.setdefault(run, record)
        if (kept["status"], kept["metrics"]) != (record["status"], record["metrics"]):
            raise BenchError(f"records of run {record['key']} disagree on its result; keep the one you can reproduce")
    return [runs[run] for run in sorted(runs)]


def _table_key(record: Record) -> dict[str, Any]:
    data = (record.get("data") or {}).get("sha256") or "unknown"
    return {**{key: record["spec"].get(key) for key in TABLE_KEYS}, "data": data}


def _named(name: str, own: Record, others: Iterable[Record]) -> str:
    """A name, with those of its settings that tell it from others of the name."""
    label = _settings({key: own[key] for other in others for key in _distinct(own, other)})
    return f"{name} ({label})" if label else name


def _distinct(own: Record, other: Record) -> list[str]:
    """Settings with another value there. What follows from them is left out: those that are unknown there, and those of
    another component (``balancer.weights`` and ``balancer version`` where ``balancer`` differs)."""
    changed = [key for key in own if key in other and canonical(own[key]) != canonical(other[key])]
    component = {key: key.removesuffix(" version").partition(".")[0] for key in changed}
    chosen = [key for key in changed if component[key] == key or component[key] not in changed]
    return chosen or [key for key in own if key not in other]


def run_names(specs: Sequence[Record]) -> list[str]:
    """A name for each run: data set, method and seed, with the settings that tell it from other runs in the list."""
    configs: dict[tuple[str, str], dict[str, Record]] = {}
    for spec in specs:
        configs.setdefault((spec["dataset"], spec["method"]), {})[canonical(spec["config"])] = spec["config"]
    labels = {
        (dataset, method, text): _named(method, config, family.values())
        for (dataset, method), family in configs.items()
        for text, config in family.items()
    }
    return [
        f"{s['dataset']} {labels[s['dataset'], s['method'], canonical(s['config'])]} seed {s['seed']}" for s in specs
    ]


def _settings(values: Mapping[str, Any], sign: str = "=") -> str:
    texts = {key: canonical(values[key]).strip('"') for key in sorted(values)}
    return ", ".join(f"{key}{sign}{'none' if text == 'null' else text}" for key, text in texts.items())


def _table(records: list[Record], keys: list[dict[str, Any]]) -> Table:
    """The table of records with one key; ``keys``: those of all tables, to say what tells this one from them."""
    own = _table_key(records[0])
    family = [other for other in keys if other["dataset"] == own["dataset"]]
    title = _named(own["dataset"], own["dataset_config"], (other["dataset_config"] for other in family))
    every, measured = _entries(records), [r for r in records if r["status"] == "ok"]
    tasks = list({(t["name"], t["metric"]): t for r in records for t in r["tasks"]}.values())
    scored = [t for t in tasks if any(_value(r["references"]["chance"]["test"], t) is not None for r in measured)]
    total = _Column("mean skill", True, lambda run: _mean_skill(run, scored))
    columns = [*(_task_column(t, itemgetter("test")) for t in tasks), total]

    def place(entry: _Entry) -> tuple[int, float, str]:
        return ORDER.index(entry.kind), -mean(total.series(entry).values() or [-math.inf]), entry.label

    entries = sorted([e for e in every if e.runs] + _yardsticks(measured), key=place)
    baseline = next((e for e in entries if e.method == BASELINE), None)
    costs = [name for name in COSTS if name not in TUNING or any(e.tuned for e in entries)]
    return Table(
        own["dataset"],
        title,
        _caption(records, [other for other in family if other["dataset_config"] == own["dataset_config"]]),
        ("method", *(c.header for c in columns), *costs),
        _rows(columns, entries, baseline, partial(_costs, costs)),
        tuple(_notes(entries, baseline, [t["name"] for t in tasks if t not in scored])),
        tuple(f for e in every for f in _failures(e)),
        tuple(_slices(title, measured, tasks, entries, baseline)),
    )


def _notes(entries: list[_Entry], baseline: _Entry | None, left_out: list[str]) -> Iterator[str]:
    if not entries:
        yield "No run gave a result."
        return
    if baseline is None:
        yield f"No differences: there is no result of {BASELINE}."
    elif sum(entry.method == BASELINE for entry in entries) > 1:
        yield f"Differences are to the best of the {BASELINE} rows, {baseline.label}."
    if left_out:
        yield f"Mean skill leaves out {', '.join(left_out)}: no chance value on these test rows."


def _entries(records: list[Record]) -> list[_Entry]:
    rows: dict[str, list[Record]] = {}
    for record in records:
        own = {key: value for key, value in record["spec"].items() if key not in (*TABLE_KEYS, "seed")}
        rows.setdefault(canonical(own), []).append(record)
    entries = []
    for row in (rows[key] for key in sorted(rows)):
        method, config = row[0]["spec"]["method"], _choices(row[0])
        tuned = _tuned(row)
        family = (r for r in rows.values() if r[0]["spec"]["method"] == method and _tuned(r) == tuned)
        label = _named(f"{method}, tuned" if tuned else method, config, (_choices(r[0]) for r in family))
        kind: Kind = "reference" if any(r["reference"] for r in row) else "competitor"
        runs = {r["spec"]["seed"]: r for r in row if r["status"] == "ok"}
        failed = [r for r in row if r["status"] != "ok"]
        entries.append(_Entry(label, tuned, kind, method, config, runs, failed))
    return sorted(entries, key=lambda e: e.label)


def _tuned(row: Sequence[Record]) -> bool:
    return any((r.get("cost") or {}).get("tuning_trials") for r in row)


def _choices(record: Record) -> dict[str, Any]:
    """All that tells rows of one method apart."""
    spec = record["spec"]
    parts = {f"{part} version": version for part, version in spec.get("parts", {}).items()}
    return {**spec["config"], "lm": spec["lm"], "version": spec.get("method_version"), **parts}


def _yardsticks(measured: list[Record]) -> list[_Entry]:
    """Oracle and chance, which every run carries: read from the first."""
    first = [(kind, r) for kind in YARDSTICKS for r in [r for r in measured if r["references"].get(kind)][:1]]
    return [
        _Entry(kind, False, kind, kind, {}, {r["spec"]["seed"]: {**r, "metrics": r["references"][kind]}}, [])
        for kind, r in first
    ]


def _value(part: Record, task: Record) -> float | None:
    value: float | None = (part.get(task["name"]) or {}).get(task["metric"])
    return value


def _task_column(task: Record, part: Callable[[Any], Any]) -> _Column:
    if task["metric"] not in METRICS:
        raise unknown("metric", task["metric"], METRICS)
    larger = METRICS[task["metric"]].larger
    header = f"{task['name']} {task['metric']} {'↑' if larger else '↓'}"
    return _Column(header, larger, lambda run: _value(part(run["metrics"]), task))


def _mean_skill(run: Record, tasks: list[Record]) -> float | None:
    """Mean skill over tasks on test; None if a task has no value: means over other tasks could not be compared."""
    skills = []
    for task in tasks:
        value, chance = _value(run["metrics"]["test"], task), _value(run["references"]["chance"]["test"], task)
        if value is None or chance is None:
            return None
        skills.append(skill(task["metric"], value, chance))
    return mean(skills) if skills else None


def _rows(
    columns: list[_Column], entries: list[_Entry], baseline: _Entry | None, more: Callable[[_Entry], tuple[Cell, ...]]
) -> tuple[Row, ...]:
    compared = [_compare(column, entries, baseline) for column in columns]
    rows = []
    for i, entry in enumerate(entries):
        keys = {record["spec"]["seed"]: record["key"] for record in (*entry.runs.values(), *entry.failed)}
        cells = (Cell(entry.label), *(cells[i] for cells in compared), *more(entry))
        rows.append(Row(entry.label, entry.kind, entry.config, keys, cells))
    return tuple(rows)


def _compare(column: _Column, entries: list[_Entry], baseline: _Entry | None) -> list[Cell]:
    """A column's cells: means, intervals, differences to the baseline, and the competitor that beats the second."""
    series = [column.series(e) for e in entries]
    base = column.series(baseline) if baseline else {}
    rivals = [values for e, values in zip(entries, series, strict=True) if e.kind == "competitor" and values]
    rivals.sort(key=lambda values: mean(values.values()), reverse=column.larger)
    lead = _paired(rivals[0], rivals[1]) if len(rivals) > 1 else None
    cells = []
    for entry, values in zip(entries, series, strict=True):
        if not values:
            cells.append(Cell())
            continue
        centre, half = mean_interval(list(values.values()))
        text = f"{centre:z.4f}" + ("" if half is None else f" ± {short(f'{half:.4f}')}")
        difference = None if entry is baseline or entry.kind in YARDSTICKS else _paired(values, base)
        bold = lead is not None and lead.significant and values is rivals[0]
        cells.append(Cell(text, centre, half, values, difference, bold))
    return cells


def _paired(a: dict[int, float], b: dict[int, float]) -> Difference | None:
    common = [seed for seed in a if seed in b]
    return paired([a[s] for s in common], [b[s] for s in common]) if common else None


def _costs(names: Sequence[str], entry: _Entry) -> tuple[Cell, ...]:
    """Mean seconds to fit, mean trained parameters, trials and seconds of tuning, and how many seeds gave a result."""
    if entry.kind in YARDSTICKS:
        return (Cell(""),) * len(names)
    done, failed = len(entry.runs), len(entry.failed)
    found = {"seeds": Cell(f"{done}/{done + failed}" if failed else str(done), done)}
    kept = {"fit s": ("fit_s", ",.1f"), "trained": ("trained", ",.0f")}
    if entry.tuned:
        kept |= {"trials": ("tuning_trials", ",.0f"), "tuning s": ("tuning_s", ",.0f")}
    for name, (key, form) in kept.items():
        values = {seed: run["cost"][key] for seed, run in sorted(entry.runs.items())}
        found[name] = Cell(f"{mean(values.values()):{form}}", mean(values.values()), seeds=values)
    return tuple(found.get(name, Cell()) for name in names)


def _slices(
    whole: str, measured: list[Record], tasks: list[Record], entries: list[_Entry], baseline: _Entry | None
) -> Iterator[Table]:
    """A table for each slice in which a task has a value."""
    sizes = {name: part["rows"] for r in measured for name, part in (r["metrics"].get("slices") or {}).items()}
    for name in sorted(sizes):
        columns = [_task_column(task, partial(_slice_part, name)) for task in tasks]
        columns = [column for column in columns if any(column.series(e) for e in entries)]
        title, which = SLICES.get(name, (name, f"in the slice {name}"))
        known = [e for e in entries if e.kind not in YARDSTICKS or any(column.series(e) for column in columns)]
        if columns:
            headers = ("method", *(column.header for column in columns))
            rows = _rows(columns, known, baseline, lambda entry: ())
            yield Table(
                measured[0]["spec"]["dataset"],
                f"{whole}: {title}",
                f"{sizes[name]:,} test rows {which}.",
                headers,
                rows,
            )


def _slice_part(name: str, metrics: Record) -> Any:
    return (metrics.get("slices") or {}).get(name, {}).get("metrics", {})


def _failures(entry: _Entry) -> list[Failure]:
    alike: dict[tuple[str, str], list[Record]] = {}
    for record in sorted(entry.failed, key=lambda r: int(r["spec"]["seed"])):
        alike.setdefault((record["status"], record.get("error") or "no reason given"), []).append(record)
    return [
        Failure(entry.label, *ending, tuple(r["spec"]["seed"] for r in some), tuple(r["key"] for r in some))
        for ending, some in alike.items()
    ]


def _caption(records: list[Record], siblings: list[Record]) -> str:
    key = _table_key(records[0])
    sizes: Record = next((r["data"]["rows"] for r in records if r.get("data")), {})
    models = sorted({r["spec"]["lm"] or "" for r in records} - {""})
    devices = sorted({(r.get("env") or {}).get("device") or "" for r in records} - {""})
    facts = {
        "Protocol": key["protocol"],
        "settings": _settings(key["dataset_config"], " "),
        "rows": ", ".join(f"{sizes[part]:,} {part}" for part in ("train", "valid", "test") if part in sizes),
        "seeds": str(len({r["spec"]["seed"] for r in records})),
        "budget": _settings(key["budget"], " "),
        "data": key["data"][:8],
        "language model": " and ".join(models),
        "device": " and ".join(devices),
    }
    text = "; ".join(f"{name} {fact}" for name, fact in facts.items() if fact) + "."
    if len(siblings) == 1:
        return text
    differing = [k.replace("_", " ") for k in key if any(other[k] != key[k] for other in siblings)]
    return f"{text} One of {len(siblings)} tables that differ in {' and '.join(differing)}: not comparable."


def _legend(tables: tuple[Table, ...]) -> tuple[str, ...]:
    least = min_seeds_wilcoxon(0.05)
    most = max((int(row.cells[-1].value or 0) for table in tables for row in table.rows), default=0)
    return (
        "value ± half-width: mean over seeds and its 95 % Student t interval; "
        "↑ larger is better, ↓ smaller is better, – undefined.",
        f"(+.0123): mean difference to {BASELINE} over the seeds that both have, in units of the metric; "
        "with a star if its 95 % paired interval excludes 0 (no correction for the number of comparisons).",
        "bold (Markdown only): the best competitor, if its 95 % paired interval against the second best excludes 0.",
        "mean skill: mean over tasks of (value - chance) / (perfect - chance); 0 is chance, 1 is perfect.",
        "oracle: predicts the true probabilities and means of simulated data, the best that any method could do. "
        "chance: the best constant prediction. Rows set apart or in italics are yardsticks, not competitors.",
        "fit s: mean seconds to fit; trained: parameters trained; seeds: 2/3 means that 2 of 3 seeds gave a result.",
        *([TUNED] if any(TUNING[0] in table.headers for table in tables) else []),
        "A two-sided signed-rank test over n seeds cannot go below p = 2 / 2^n: with fewer than "
        f"{least} seeds it never gets below .05, with {least} it can. The rows here have at most {most}.",
    )


def short(number: str) -> str:
    """A formatted number without the zero before its point."""
    return re.sub(r"^([+-]?)0\.", r"\1.", number)
