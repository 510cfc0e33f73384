"""bench status"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bench.cli._main import main
from bench.cli._options import json_option, results_option, tuned_option
from bench.cli._plan import plan_options, specs_of

STATES = ("done", "failed", "declined", "running", "missing")


@main.command()
@plan_options
@tuned_option
@results_option
@json_option
def status(tuned: bool, results: Path, as_json: bool, **plan: Any) -> None:
    """How many runs are done, failed, declined, running or missing: of all records, or of those `bench run` would make.

    With --suite, or -d and -m, the exit code is 1 if a run failed or has no record yet.
    """
    from tabulate import tabulate

    from bench.spec.names import run_names
    from bench.storage.records import Store

    store, planned = Store(results), any(plan.values())
    if planned:
        specs = specs_of(**plan)
        if tuned:
            from bench.tuning import tune

            specs, _ = tune.tuned(results, specs)
        chosen = [(s.to_dict(), store.get(s.to_dict(), s.key)) for s in specs]
    else:
        chosen = [(record["spec"], record) for record in store.records()]
    runs = _runs(chosen, run_names([spec for spec, _ in chosen]))
    if as_json:
        click.echo(json.dumps(runs, indent=1))
    elif runs:
        counts: dict[tuple[str, str], Counter[str]] = {}
        for run in runs:
            counts.setdefault((run["dataset"], run["method"]), Counter())[run["state"]] += 1
        rows = [[*names, *(found[state] for state in STATES)] for names, found in counts.items()]
        total = ["total", "", *(sum(found[state] for found in counts.values()) for state in STATES)]
        click.echo(tabulate([*rows, total], ["data set", "method", *STATES]))
        for run in runs:
            if run["state"] == "failed":
                click.echo(f"{run['run']}: {run['status']}: {run['reason']}")
        changed = sum(bool(record and record["code"].get("dirty")) for _, record in chosen)
        if store.published and changed:
            click.echo(f"{changed} of {len(chosen)} were made by code that differs from its commit")
    else:
        click.echo(f"no records in {results}")
    if planned and any(run["state"] in ("failed", "running", "missing") for run in runs):
        sys.exit(1)


def _runs(chosen: Sequence[tuple[dict[str, Any], dict[str, Any] | None]], names: Sequence[str]) -> list[dict[str, Any]]:
    from bench.spec import digest

    keys = [digest(spec) for spec, _ in chosen]
    return [
        {
            "run": name,
            "key": key,
            "dataset": spec["dataset"],
            "method": spec["method"],
            "state": _state(record, key),
            "status": record and record["status"],
            "reason": record and record["error"],
        }
        for name, key, (spec, record) in zip(names, keys, chosen, strict=True)
    ]


def _state(record: dict[str, Any] | None, key: str) -> str:
    from bench.execution.in_progress import is_running

    if record is not None and record["status"] in ("ok", "declined"):
        return "done" if record["status"] == "ok" else "declined"
    if is_running(key):
        return "running"
    return "missing" if record is None else "failed"
