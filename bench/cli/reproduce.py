"""bench reproduce"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli._main import main
from bench.cli._options import from_option, json_option, results_option
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.papers.plan import Job
    from bench.papers.table import Paper, PublishedRow
    from bench.spec import Spec
    from bench.storage.records import Store


@main.command()
@click.argument("name", metavar="NAME|FILE")
@click.option("--rows", metavar="ROW,ROW", help="Only these rows of the table (default all).")
@click.option("--seeds", type=click.IntRange(1), help="Runs of each row (default the table's).")
@click.option("--dry-run", is_flag=True, help="Only show what would run, what is unknown, and what it costs.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--workers", type=click.IntRange(1), default=os.cpu_count() or 1, show_default="number of cores",
    help="Runs at a time on the CPU, one thread each.",
)  # fmt: skip
@from_option
@results_option
@json_option
def reproduce(
    name: str,
    rows: str | None,
    seeds: int | None,
    dry_run: bool,
    device: str,
    workers: int,
    folder: Path | None,
    results: Path,
    as_json: bool,
) -> None:
    """Make a published table again and set both side by side, with a verdict on each figure (`bench list papers`).

    The runs are stored like all others, so the same command continues after an interruption. The table is also
    written to RESULTS/papers/NAME.md and NAME.json. With --from, a data set's files may lie in the folder itself or in
    one below it that is named after the data set.
    """
    from bench.papers import plan, show, verdict
    from bench.papers.table import load
    from bench.storage.atomic import write_atomically
    from bench.storage.records import Store

    paper, store = load(name), Store(results)
    chosen = paper.chosen(rows.split(",") if rows is not None else ())
    jobs = plan.jobs(paper, chosen, seeds)
    if dry_run:
        _show_plan(paper, chosen, jobs, store, as_json)
        return
    missing = _run(paper, jobs, store, device, workers, folder)
    specs = [spec for job in jobs for of in job.specs.values() for spec in of]
    records = {s.key: record for s in specs if (record := store.get(s.to_dict(), s.key)) is not None}
    if missing and not records:
        raise BenchError(f"{paper.name}: no data; {'; '.join(missing.values())}")
    report = verdict.compare(paper, chosen, jobs, records, missing)
    write_atomically(results / "papers" / f"{paper.name}.md", show.to_markdown(report).encode())
    write_atomically(results / "papers" / f"{paper.name}.json", (show.to_json(report) + "\n").encode())
    click.echo(show.to_json(report) if as_json else show.to_console(report), nl=as_json)


def _run(paper: Paper, jobs: list[Job], store: Store, device: str, workers: int, folder: Path | None) -> dict[str, str]:
    """Makes the runs that have no record. Returns which data sets cannot be had, and what is to be done."""
    from bench.data.catalogue import needs
    from bench.data.prepare import prepare
    from bench.execution.execute import Place, execute
    from bench.execution.progress import progress
    from bench.machine.device import device_of

    todo: dict[str, list[Spec]] = {}
    for job in jobs:
        specs = [s for of in job.specs.values() for s in of if store.get(s.to_dict(), s.key) is None]
        todo.setdefault(job.data, []).extend(specs)
    missing = {}
    with progress(sum(map(len, todo.values()))) as shown:
        for data, specs in todo.items():
            part = paper.parts[data]
            own = folder / part.dataset if folder is not None and (folder / part.dataset).is_dir() else folder
            if not specs:
                continue
            try:
                prepare(part.dataset, part.knobs, own, shown.note)
            except BenchError as error:
                asked = f"{error}; " if folder is not None else ""
                missing[data] = f"{part.dataset}: {asked}it needs {needs(part.dataset)}; give their folder with --from"
                continue
            execute(specs, store, shown, Place(device_of(device), workers), raw=own, checkpoint=10.0)
    return missing


def _show_plan(paper: Paper, rows: list[PublishedRow], jobs: list[Job], store: Store, as_json: bool) -> None:
    from bench import registry
    from bench.data.catalogue import needs
    from bench.papers import plan, show
    from bench.storage.records import Store

    reference = registry.ROOT / "results" / "reference"
    records = [r for known in (store, Store(reference), Store(reference / "reproduced")) for r in known.records()]
    planned = [(job, plan.cost(paper, job, records)) for job in jobs]
    names = dict.fromkeys(paper.parts[job.data].dataset for job in jobs)
    states = [f"{name}: {needs(name) or 'simulated, nothing to get'}" for name in names]
    if as_json:
        click.echo(show.plan_json(paper, planned, states))
    else:
        click.echo(show.plan(paper, rows, planned, states), nl=False)
