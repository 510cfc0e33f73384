"""bench run"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli._main import main
from bench.cli._options import from_option, json_option, print_board, results_option, tuned_option
from bench.cli._plan import plan_options, shard_of, specs_of
from bench.errors import BenchError
from bench.execution.trackers import NAMES, Tracking

if TYPE_CHECKING:
    import torch

    from bench.execution.job import Executor, Limits
    from bench.spec import Spec
    from bench.storage.records import Store


@main.command()
@plan_options
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--workers", type=click.IntRange(1), default=os.cpu_count() or 1, show_default="number of cores",
    help="Runs at a time on the CPU, one thread each.",
)  # fmt: skip
@click.option(
    "--executor", type=click.Choice(["local", "ray"]), default="local", show_default=True,
    help="Run in processes of this machine, or on a Ray cluster.",
)  # fmt: skip
@click.option(
    "--address", metavar="HOST:PORT", help="Of the Ray cluster (default: $RAY_ADDRESS, or one on this machine)."
)
@click.option(
    "--time-limit", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Stop a run that takes longer."
)
@click.option(
    "--memory-limit", type=click.FloatRange(0, min_open=True), metavar="GB", help="Stop a run that takes more memory."
)
@click.option("--shard", metavar="I/N", help="Only every N-th run, from the I-th: one of N jobs that share the work.")
@tuned_option
@click.option(
    "--tracker", "trackers", multiple=True, type=click.Choice(NAMES), help="Follow runs there too; may be repeated."
)
@click.option("--retry", is_flag=True, help="Run again what has a record of a failure.")
@click.option(
    "--checkpoint", metavar="MINUTES", type=click.FloatRange(0), default=10.0, show_default=True,
    help="How often a long run is kept, to go on from there after an interruption; 0 for never.",
)  # fmt: skip
@click.option("--profile", is_flag=True, help="Then show where the time of a training step goes; changes no record.")
@click.option("--trace", is_flag=True, help="With --profile: write a Chrome trace next to the record, too.")
@from_option
@results_option
@json_option
def run(
    device: str,
    workers: int,
    executor: str,
    address: str | None,
    time_limit: float | None,
    memory_limit: float | None,
    shard: str | None,
    tuned: bool,
    trackers: tuple[str, ...],
    retry: bool,
    checkpoint: float,
    profile: bool,
    trace: bool,
    folder: Path | None,
    results: Path,
    as_json: bool,
    **plan: Any,
) -> None:
    """Train and evaluate methods on data sets; store one record a run.

    A run whose record is stored already is not made again, so the same command continues after an interruption.
    """
    if address is not None and executor != "ray":
        raise BenchError("--address is that of a Ray cluster: give --executor ray too")
    if trace and not profile:
        raise BenchError("--trace is that of a profile: give --profile too")
    specs, costs = _chosen(plan, shard, results if tuned else None)

    from bench.execution.execute import Place, execute
    from bench.execution.job import Limits
    from bench.execution.progress import progress
    from bench.machine.device import device_of
    from bench.machine.processes import joined
    from bench.storage.records import Store
    from bench.training.checkpoint import catch_sigterm

    store, former = Store(results), catch_sigterm()
    with joined(device_of(device)) as own:
        try:
            limits = Limits(time_limit, memory_limit)
            cluster = _cluster(address, own, folder, limits) if executor == "ray" else None
            with progress(len(specs)) as shown:
                outcome = execute(
                    specs, store, shown, Place(own, workers, limits, cluster), raw=folder, retry=retry, costs=costs,
                    checkpoint=checkpoint, tracking=Tracking(trackers, results / "trackers"),
                )  # fmt: skip
        finally:
            signal.signal(signal.SIGTERM, former)
        records = [r for s in specs if (r := store.get(s.to_dict(), s.key))]
        counted = ", ".join(f"{n} {status}" for status, n in sorted(outcome.items()))
        click.echo(counted or "no run in this shard", err=True)
        if as_json:
            click.echo(json.dumps(records, indent=1))
        else:
            print_board(records)
        if profile:
            _profile(specs, store, own, folder, trace)
    _fail_on(records)


def _chosen(
    plan: dict[str, Any], shard: str | None, results: Path | None
) -> tuple[list[Spec], dict[str, dict[str, Any]]]:
    """The specs of a shard, tuned if there are results with studies, and what it cost to tune each, by key."""
    part, specs = shard_of(shard), specs_of(**plan)
    costs: dict[str, dict[str, Any]] = {}
    if results is not None:
        from bench.tuning import tune

        specs, costs = tune.tuned(results, specs)
    return specs[part], costs


def _cluster(address: str | None, device: torch.device, raw: Path | None, limits: Limits) -> Executor:
    from bench.execution.cluster import Cluster

    return Cluster(address, device, raw, limits)


def _profile(specs: list[Spec], store: Store, device: torch.device, raw: Path | None, trace: bool) -> None:
    """Prints the profile of each configuration, whatever its seeds, to standard error."""
    from bench.data.load import load
    from bench.data.prepare import prepare
    from bench.execution.record import fault
    from bench.training.profile import profile

    first = {replace(spec, seed=0).key: spec for spec in reversed(specs)}
    for spec in reversed(first.values()):
        data = load(prepare(spec.dataset, spec.dataset_config, raw))
        path = store.path(spec.to_dict(), spec.key).with_suffix(".trace.json.gz") if trace else None
        try:
            click.echo(f"\n{profile(spec, data, device, path)}", err=True)
        except BenchError:
            raise
        except Exception as error:  # as in a run: a fault of one method leaves the others alone
            status, reason = fault(error)
            click.echo(f"\n{spec.method} on {spec.dataset}: {status}: {reason}", err=True)


def _fail_on(records: list[dict[str, Any]]) -> None:
    """Exit code 1, with a line for each, if a run ended without a result that it should have had."""
    from bench.spec.names import run_names

    names = run_names([r["spec"] for r in records])
    bad = [(name, r) for name, r in zip(names, records, strict=True) if r["status"] not in ("ok", "declined")]
    for name, r in bad:
        click.echo(f"bench: {name}: {r['status']}: {r['error']}", err=True)
    if bad:
        sys.exit(1)
