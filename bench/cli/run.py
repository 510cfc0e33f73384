"""bench run"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench import registry
from bench.cli._main import main
from bench.cli._options import (
    domains_option,
    from_option,
    json_option,
    knob_option,
    knobs_of,
    plugin_option,
    print_board,
    results_option,
    settings_of,
)
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.spec import Spec
    from bench.suites import Suite


@main.command()
@click.option("-d", "--dataset", "datasets", multiple=True, help="Data set; may be repeated.")
@click.option("-m", "--method", "methods", multiple=True, help="Method or baseline; may be repeated.")
@click.option(
    "-s", "--set", "given", multiple=True, metavar="KEY=VALUE", help="A setting of the method, such as lr=0.003."
)
@click.option("--suite", help="Run a named suite instead.")
@click.option("--seeds", type=click.IntRange(1), help="Number of seeds (default 1, or the suite's).")
@click.option("--epochs", type=click.IntRange(1), help="Most epochs (default 20, or the suite's).")
@click.option(
    "--patience", type=click.IntRange(1), help="Epochs without improvement before stopping (default 3, or the suite's)."
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--workers", type=click.IntRange(1), default=os.cpu_count() or 1, show_default="number of cores",
    help="Runs at a time on the CPU, one thread each.",
)  # fmt: skip
@domains_option
@click.option("--retry", is_flag=True, help="Run again what has a record of a failure.")
@knob_option
@from_option
@results_option
@plugin_option
@json_option
def run(
    datasets: tuple[str, ...],
    methods: tuple[str, ...],
    given: tuple[str, ...],
    suite: str | None,
    seeds: int | None,
    epochs: int | None,
    patience: int | None,
    device: str,
    workers: int,
    domains: str | None,
    retry: bool,
    knobs: tuple[str, ...],
    folder: Path | None,
    results: Path,
    plugins: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Train and evaluate methods on data sets; store one record a run.

    A run whose record is stored already is not made again, so the same command continues after an interruption.
    """
    from bench.suites import Entry, Setup, Suite, load

    for plugin in plugins:
        registry.add_plugin(plugin)
    if suite and (datasets or methods):
        raise BenchError("give either --suite or -d and -m")
    if not suite and not (datasets and methods):
        raise BenchError("say what to run: -d DATASET -m METHOD, or --suite NAME (see `bench list`)")
    named = [Entry(name) for name in methods]
    plan = load(suite) if suite else Suite("", 1, {name: Setup(named) for name in datasets})
    for name in plan.datasets:  # names are checked before the slow imports
        registry.find("dataset", name)
    for name in plan.methods:
        registry.find("method", name)
    limits = {k: v for k, v in (("epochs", epochs), ("patience", patience)) if v is not None}
    specs = _specs(plan, settings_of(given), knobs_of(knobs, domains), limits, seeds)

    from bench.execute import execute
    from bench.machine import device_of
    from bench.progress import progress
    from bench.store import Store

    store = Store(results)
    with progress(len(specs)) as shown:
        outcome = execute(specs, store, shown, device=device_of(device), workers=workers, raw=folder, retry=retry)
    records = [r for s in specs if (r := store.get(s.to_dict(), s.key))]
    click.echo(", ".join(f"{n} {status}" for status, n in sorted(outcome.items())), err=True)
    if as_json:
        click.echo(json.dumps(records, indent=1))
    else:
        print_board(records)
    _fail_on(records)


def _specs(
    plan: Suite, given: dict[str, Any], knobs: dict[str, Any], limits: dict[str, int], seeds: int | None
) -> list[Spec]:
    from bench.run import specify

    for key in given:
        if any(key in entry.settings for setup in plan.datasets.values() for entry in setup.entries):
            raise BenchError(f"-s {key}: the entries of this suite differ in '{key}'; run one of them with -d and -m")
    return [
        specify(
            dataset,
            entry.method,
            given={**setup.settings, **entry.settings, **given},
            knobs=knobs,
            seed=seed,
            budget={**setup.budget, **limits},
        )
        for dataset, setup in plan.datasets.items()
        for entry in setup.entries
        for seed in range(seeds or plan.seeds)
    ]


def _fail_on(records: list[dict[str, Any]]) -> None:
    """Exit code 1, with a line for each, if a run ended without a result that it should have had."""
    from bench.leaderboard import run_names

    names = run_names([r["spec"] for r in records])
    bad = [(name, r) for name, r in zip(names, records, strict=True) if r["status"] not in ("ok", "declined")]
    for name, r in bad:
        click.echo(f"bench: {name}: {r['status']}: {r['error']}", err=True)
    if bad:
        sys.exit(1)
