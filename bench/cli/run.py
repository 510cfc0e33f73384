"""bench run"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from bench.cli._main import main
from bench.cli._options import from_option, json_option, print_board, results_option
from bench.cli._plan import plan_options, shard_of, specs_of
from bench.trackers import NAMES, Tracking


@main.command()
@plan_options
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--workers", type=click.IntRange(1), default=os.cpu_count() or 1, show_default="number of cores",
    help="Runs at a time on the CPU, one thread each.",
)  # fmt: skip
@click.option("--shard", metavar="I/N", help="Only every N-th run, from the I-th: one of N jobs that share the work.")
@click.option("--tuned", is_flag=True, help="Use the settings that the latest `bench tune` found best.")
@click.option(
    "--tracker", "trackers", multiple=True, type=click.Choice(NAMES), help="Follow runs there too; may be repeated."
)
@click.option("--retry", is_flag=True, help="Run again what has a record of a failure.")
@from_option
@results_option
@json_option
def run(
    device: str,
    workers: int,
    shard: str | None,
    tuned: bool,
    trackers: tuple[str, ...],
    retry: bool,
    folder: Path | None,
    results: Path,
    as_json: bool,
    **plan: Any,
) -> None:
    """Train and evaluate methods on data sets; store one record a run.

    A run whose record is stored already is not made again, so the same command continues after an interruption.
    """
    part, specs = shard_of(shard), specs_of(**plan)
    costs: dict[str, dict[str, Any]] = {}
    if tuned:
        from bench import tune

        specs, costs = tune.tuned(results, specs)
    specs = specs[part]

    from bench.execute import execute
    from bench.machine import device_of
    from bench.progress import progress
    from bench.store import Store

    store = Store(results)
    with progress(len(specs)) as shown:
        outcome = execute(
            specs, store, shown, device=device_of(device), workers=workers, raw=folder, retry=retry, tuning=costs,
            tracking=Tracking(trackers, results / "trackers"),
        )  # fmt: skip
    records = [r for s in specs if (r := store.get(s.to_dict(), s.key))]
    click.echo(", ".join(f"{n} {status}" for status, n in sorted(outcome.items())) or "no run in this shard", err=True)
    if as_json:
        click.echo(json.dumps(records, indent=1))
    else:
        print_board(records)
    _fail_on(records)


def _fail_on(records: list[dict[str, Any]]) -> None:
    """Exit code 1, with a line for each, if a run ended without a result that it should have had."""
    from bench.leaderboard import run_names

    names = run_names([r["spec"] for r in records])
    bad = [(name, r) for name, r in zip(names, records, strict=True) if r["status"] not in ("ok", "declined")]
    for name, r in bad:
        click.echo(f"bench: {name}: {r['status']}: {r['error']}", err=True)
    if bad:
        sys.exit(1)
