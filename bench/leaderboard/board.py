"""Final records to tables: a function of the set of records only, which says nothing about how they are shown.

A table holds the runs on one version of one data set under one protocol and budget; a row holds the seeds of one
method and configuration. What is undefined stays a dash: nothing is imputed, and nothing that failed is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench.leaderboard.columns import Comparison, task_column
from bench.leaderboard.filters import EVERYTHING, Filter
from bench.leaderboard.grouping import Group, Record, RowRuns, grouped, uncollected
from bench.leaderboard.over_datasets import OVERALL_EXPLAINED, Part, overall
from bench.leaderboard.over_tasks import COLUMNS_EXPLAINED, over_tasks
from bench.leaderboard.tables import Board, Cell, Failure, Header, Table
from bench.leaderboard.terms import BASELINE, YARDSTICKS
from bench.spec import canonical
from bench.spec.names import listed, named
from bench.statistics.paired import SEEDS_NEEDED
from bench.storage.records import Store

MANY = 10_000  # records: fewer are read sooner than a process starts
SLICES = {
    "cold_item": ("cold items", "whose item was never seen in training"),
    "cold_user": ("cold users", "whose user was never seen in training"),
}


def board(records: Iterable[Record], wanted: Filter = EVERYTHING) -> Board:
    """The leaderboard of the final records of the clean protocols, or of what passes a filter.

    Raises BenchError if there are none, if two records of one spec disagree, or if a metric is unknown.
    """
    return _whole(_parts(wanted.chosen(grouped(records))), wanted)


def stored(results: Path, wanted: Filter = EVERYTHING) -> Board:
    """The leaderboard of a results folder; of many records another process makes the tables of half of the data sets.

    Raises BenchError as ``board`` does, and if a file is no record.
    """
    store = Store(results)
    mine, others = _halves(store.sizes())
    with uncollected():
        if others:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                half = pool.submit(_half, store, others, wanted)
                (parts, names), (more, different) = _half(store, mine, wanted), half.result()
            if (parts or more) and not names & different:  # each record in its data set's folder
                return _whole(sorted(parts + more, key=lambda part: canonical(part.table.dataset)), wanted)
        return board(store.results(), wanted)


def _halves(sizes: dict[str, int]) -> tuple[list[str], list[str]]:
    """The data sets in two halves of about as many records; the second is empty where these are few."""
    halves: tuple[list[str], list[str]] = ([], [])
    ahead = 0
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True):
        halves[ahead > 0].append(name)
        ahead += -sizes[name] if ahead > 0 else sizes[name]
    return halves if sum(sizes.values()) >= MANY else (list(sizes), [])


def _half(store: Store, datasets: Collection[str], wanted: Filter) -> tuple[list[Part], set[str]]:
    """The tables of some data sets, and the data sets that their records name."""
    with uncollected():
        groups = grouped(store.results(datasets))
        return _parts(wanted.passing(groups)), {group.key["dataset"] for group in groups}


def _parts(groups: Sequence[Group]) -> list[Part]:
    titles = _titles([group.key for group in groups])
    return [_part(Comparison.of(group), title, groups) for group, title in zip(groups, titles, strict=True)]


def _part(compared: Comparison, title: str, groups: Sequence[Group]) -> Part:
    skills = {e.label: [list(column.series(e).values()) for column in compared.skills] for e in compared.entries}
    return Part(compared.group.key["protocol"], _table(compared, title, groups), skills)


def _whole(parts: Sequence[Part], wanted: Filter) -> Board:
    tables, across = tuple(part.table for part in parts), tuple(overall(parts))
    return Board(tables, across, _legend(tables, across, str(wanted)))


def _titles(keys: Sequence[dict[str, Any]]) -> list[str]:
    """The data set of each table, with the knobs that tell it from others of the data set."""
    titles: dict[int, str] = {}
    for dataset in {key["dataset"] for key in keys}:
        own = [i for i, key in enumerate(keys) if key["dataset"] == dataset]
        titles |= dict(zip(own, named(dataset, [keys[i]["dataset_config"] for i in own]), strict=True))
    return [titles[i] for i in range(len(keys))]


def _table(compared: Comparison, title: str, groups: Sequence[Group]) -> Table:
    """The table of a group; ``groups``: all of them, to say what tells this one from others of the data set."""
    group = compared.group
    columns = [task_column(task, "test") for task in compared.tasks]
    cells = [compared.cells(column) for column in columns]
    return Table(
        group.key["dataset"],
        title,
        _caption(group, [g for g in groups if all(g.key[k] == group.key[k] for k in ("dataset", "dataset_config"))]),
        (Header("method"), *(c.header for c in columns), compared.total.header, Header("seeds", plain=True)),
        compared.rows(*cells, compared.total_cells, [_seeds(entry) for entry in compared.entries]),
        tuple(_notes(compared)),
        tuple(failure for entry in group.entries for failure in _failures(entry)),
        over_tasks(compared, title, dict(zip(compared.tasks, cells, strict=True))),
        tuple(_slices(compared, title)),
    )


def _seeds(entry: RowRuns) -> Cell:
    if entry.kind in YARDSTICKS:
        return Cell("")
    done, failed = len(entry.runs), len(entry.failed)
    return Cell(f"{done}/{done + failed}" if failed else str(done), done)


def _notes(compared: Comparison) -> Iterator[str]:
    if not compared.entries:
        yield "No run gave a result."
        return
    if compared.baseline is None:
        yield f"No differences: there is no result of {BASELINE}."
    elif sum(entry.method == BASELINE for entry in compared.entries) > 1:
        yield f"Differences are to the best of the {BASELINE} rows, {compared.baseline.label}."
    scored = {column.header.name for column in compared.skills}
    left_out = [task.name for task in compared.tasks if task.name not in scored]
    if left_out:
        yield f"Mean skill leaves out {', '.join(left_out)}: no chance value on these test rows."


def _slices(compared: Comparison, whole: str) -> Iterator[Table]:
    """A table for each slice in which a task has a value."""
    for name, size in sorted(compared.group.slices.items()):
        columns = [task_column(task, name) for task in compared.tasks]
        valued = [column for column in columns if any(column.series(entry) for entry in compared.entries)]
        title, which = SLICES.get(name, (name, f"in the slice {name}"))
        if valued:
            rows = compared.rows(*(compared.cells(column) for column in valued))
            yield Table(
                compared.group.key["dataset"],
                f"{whole}: {title}",
                f"{size:,} test rows {which}.",
                (Header("method"), *(column.header for column in valued)),
                tuple(row for row in rows if row.kind not in YARDSTICKS or any(c.value is not None for c in row.cells)),
                part=name,
            )


def _failures(entry: RowRuns) -> list[Failure]:
    alike: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for run in entry.failed:
        alike.setdefault((run.status, run.error or "no reason given"), []).append((run.seed, run.key))
    return [
        Failure(entry.label, *ending, tuple(seed for seed, _ in some), tuple(key for _, key in some))
        for ending, some in alike.items()
    ]


def _caption(group: Group, siblings: Sequence[Group]) -> str:
    key, rows = group.key, group.rows
    facts = {
        "Protocol": key["protocol"],
        "settings": listed(key["dataset_config"], " "),
        "rows": ", ".join(f"{rows[part]:,} {part}" for part in ("train", "valid", "test") if part in rows),
        "seeds": str(len({run.seed for run in group.runs})),
        "budget": listed(key["budget"], " "),
        "data": key["data"][:8],
        "language model": " and ".join(sorted(group.models - {""})),
        "device": " and ".join(sorted(group.devices - {""})),
    }
    text = "; ".join(f"{name} {fact}" for name, fact in facts.items() if fact) + "."
    if len(siblings) == 1:
        return text
    differing = [k.replace("_", " ") for k in key if any(other.key[k] != key[k] for other in siblings)]
    return f"{text} One of {len(siblings)} tables that differ in {' and '.join(differing)}: not comparable."


def _legend(tables: Sequence[Table], across: Sequence[Table], chosen: str) -> tuple[str, ...]:
    most = max((int(row.cells[-1].value or 0) for table in tables for row in table.rows), default=0)
    columns = {header.name for table in tables if table.over_tasks for header in table.over_tasks.headers}
    return (
        *([f"Only {chosen}: stars, bold and measures are of the rows and tasks shown."] if chosen else []),
        "value ± half-width: mean over seeds and its 95 % Student t interval; "
        "↑ larger is better, ↓ smaller is better, – undefined.",
        f"(+.0123): mean difference to {BASELINE} over the seeds that both have, in units of the metric; a star: "
        "p < .05 in a paired t test, after Holm's correction over the rows of the column.",
        "bold (not in the console): the competitor that is better than every other, each with p < .05 in a paired t "
        "test, after Holm's correction over them.",
        "mean skill: mean over tasks of (value - chance) / (perfect - chance); 0 is chance, 1 is perfect.",
        "oracle: predicts the true probabilities and means of simulated data, the best that any method could do. "
        "chance: the best constant prediction. Rows set apart or in italics are yardsticks, not competitors. "
        "seeds: 2/3 means that 2 of 3 seeds gave a result.",
        *(text for name, text in COLUMNS_EXPLAINED.items() if name in columns),
        *([OVERALL_EXPLAINED] if across else []),
        "A two-sided signed-rank test over n seeds cannot go below p = 2 / 2^n: with fewer than "
        f"{SEEDS_NEEDED} seeds it never gets below .05, with {SEEDS_NEEDED} it can. The rows here have at most {most}.",
    )
