"""What the figures of a leaderboard show, as plain numbers; nothing about how they are drawn.

Only what the records support is shown; a figure that cannot be made is named with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from statistics import mean
from typing import Any

from bench.leaderboard.figures.shapes import Curve, Figure, Grid, Panel, Point, Ranking
from bench.leaderboard.grouping import TABLE_KEYS, Record
from bench.leaderboard.tables import Board, Cell, Row, Table
from bench.leaderboard.terms import BASELINE, DELTA, MEAN, YARDSTICKS
from bench.metrics.multitask import gain
from bench.spec import canonical
from bench.statistics.ranks import friedman
from bench.storage.studies import read_study

AXES = {"trained": "trained parameters", "fit s": "seconds to fit"}  # by column


class _Missing(Exception):
    """Why a figure cannot be made."""


def figures(board: Board, records: Iterable[Record], studies: Iterable[Record]) -> tuple[list[Figure], list[str]]:
    """All figures that the data support, and a line for each that they don't."""
    runs, outcomes = {record["key"]: record for record in records}, list(studies)
    every = (*board.tables, *board.overall)
    names = slugs([table.title for table in every])
    wanted: list[tuple[int, Callable[[], dict[str, Any]]]] = []
    for i, table in enumerate(board.tables):
        wanted += [(i, partial(_quality, table)), (i, partial(_gains, table)), (i, partial(_training, table, runs))]
        wanted.append((i, partial(_tuning, table, runs, outcomes)))
    for i, table in enumerate(board.overall, len(board.tables)):
        wanted.append((i, partial(_ranks, table, board.tables)))
    made, missing = [], []
    for i, make in wanted:
        try:
            found = make()
        except _Missing as reason:
            missing.append(f"{every[i].title}: {reason}")
        else:
            made.append(Figure(f"{found['kind']}-{names[i]}", table=i, **found))
    if not board.overall:
        missing.append("no critical differences: no two data sets with methods in common under one protocol and budget")
    return made, missing


def studies_of(results: Path) -> list[dict[str, Any]]:
    """The outcomes of all studies in a results folder, in path order."""
    return [read_study(path) for path in sorted(results.glob("studies/*/*/*.json"))]


def slugs(titles: Sequence[str]) -> list[str]:
    """A file name for each title, numbered where several have one title."""
    names = [re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "table" for title in titles]
    return [f"{name}-{names[: i + 1].count(name)}" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _rows(table: Table) -> list[Row]:
    """The rows that were run: no oracle, no chance."""
    return [row for row in table.rows if row.kind not in YARDSTICKS]


def _rivals(table: Table) -> list[Row]:
    return [row for row in table.rows if row.kind == "competitor"]


def _quality(table: Table) -> dict[str, Any]:
    skills, panels = table.column(MEAN), []
    for column, axis in AXES.items():
        costs = table.column(column)
        known = [
            (row, cost, skill, skills[row.label].half_width)
            for row in _rows(table)
            if row.label in costs
            and (cost := costs[row.label].value or 0.0) > 0
            and (skill := skills[row.label].value) is not None
        ]
        rivals = [(cost, skill) for row, cost, skill, _ in known if row.kind == "competitor"]
        points = tuple(
            Point(row.label, row.kind, cost, skill, half, row.kind == "competitor" and _on_front((cost, skill), rivals))
            for row, cost, skill, half in known
        )
        if len(rivals) > 1:
            panels.append(Panel("", axis, MEAN, points))
    if not panels:
        raise _Missing("no figure of quality against cost: fewer than two methods with a mean skill and a cost")
    return {
        "kind": "quality",
        "title": f"{table.title}: quality against cost",
        "caption": "Mean skill on test and its 95 % interval over seeds. The line joins the competitors on the Pareto "
        "front: none is cheaper and as good. Left out: rows without such a cost, and references that are far worse.",
        "panels": tuple(panels),
    }


def _on_front(own: tuple[float, float], rivals: Iterable[tuple[float, float]]) -> bool:
    return not any(cost <= own[0] and skill >= own[1] and (cost, skill) != own for cost, skill in rivals)


def _gains(table: Table) -> dict[str, Any]:
    headers, rows = table.tasks, _rivals(table)
    baseline = next((row for row in rows if row.method == BASELINE), None)
    if baseline is None or len(rows) < 2 or not headers:
        raise _Missing(f"no map of gains: it needs a result of {BASELINE} and of another method")
    columns, total = [table.column(h.name, h.metric) for h in headers], table.column(DELTA)
    labels = [row.label for row in rows if row is not baseline]
    values, stars = [], []
    for label in labels:
        known = [
            _gain(column[label], column[baseline.label], bool(header.larger))
            for header, column in zip(headers, columns, strict=True)
        ]
        values.append((*known, total[label].value if label in total else None))
        stars.append((*(column[label].star for column in columns), False))
    return {
        "kind": "gains",
        "title": f"{table.title}: gain over {baseline.label}",
        "caption": f"Change of the metric against {baseline.label} in percent, a fall of an error counting as a gain; "
        "mean over the seeds that both have. Blue is better, red is negative transfer, * is significant as in the "
        "table. Δm: mean over tasks.",
        "grid": Grid(tuple(labels), (*(header.name for header in headers), "Δm"), tuple(values), tuple(stars)),
    }


def _gain(own: Cell, base: Cell, larger: bool) -> float | None:
    found = [gain(value, base.seeds[seed], larger) for seed, value in own.seeds.items() if seed in base.seeds]
    known = [one for one in found if one is not None]
    return mean(known) if known and len(known) == len(found) else None


def _training(table: Table, runs: Mapping[str, Record]) -> dict[str, Any]:
    panels = []
    for header in table.tasks:
        lines = []
        for row in _rows(table):
            curves = [
                [entry["valid"].get(header.name) for entry in runs[key]["curve"]]
                for key in row.keys.values()
                if key in runs and runs[key]["status"] == "ok"
            ]
            length = min(map(len, curves), default=0)  # where all seeds still train: later means are of the survivors
            epochs = [values for values in zip(*(c[:length] for c in curves), strict=True) if None not in values]
            if len(epochs) == length > 1:
                lines.append(
                    Curve(
                        row.label,
                        tuple(float(i + 1) for i in range(length)),
                        tuple(map(mean, epochs)),
                        tuple(map(min, epochs)),
                        tuple(map(max, epochs)),
                    )
                )
        if lines:
            panels.append(Panel(header.name, "epoch", f"{header.metric}, validation", lines=tuple(lines)))
    if not panels:
        raise _Missing("no training curves: no run has two epochs")
    return {
        "kind": "training",
        "title": f"{table.title}: training curves",
        "caption": "Metric on validation after each epoch: mean and range over seeds, as far as all seeds trained.",
        "panels": tuple(panels),
        "shown": _shown(table),
    }


def _shown(table: Table) -> tuple[str, ...]:
    """The baseline, and the best five competitors beside it."""
    rows = _rivals(table)
    base = [row.label for row in rows if row.method == BASELINE][:1]
    return tuple(dict.fromkeys([*base, *(row.label for row in rows)]))[:6]


def _tuning(table: Table, runs: Mapping[str, Record], studies: Sequence[Record]) -> dict[str, Any]:
    own = [runs[key] for row in _rows(table) for key in row.keys.values() if key in runs]
    places = {_place(run["spec"], run["data"]["sha256"]) for run in own}
    lines = [
        Curve(_study_name(outcome, studies), *_best_so_far(outcome["trials"]))
        for outcome in studies
        if _place(outcome["study"]["spec"], outcome["study"]["data"]) in places
    ]
    lines = [line for line in lines if line.x]
    if not lines:
        raise _Missing("no tuning curves: no study with a finished trial")
    return {
        "kind": "tuning",
        "title": f"{table.title}: tuning curves",
        "caption": "Best mean skill on validation so far against the seconds that all trials have taken, pruned and "
        "failed ones too.",
        "panels": (Panel("", "seconds of tuning", "best mean skill, validation", lines=tuple(lines)),),
        "shown": tuple(line.label for line in lines),
    }


def _place(spec: Record, data: str) -> str:
    return canonical([*(spec.get(key) for key in TABLE_KEYS), data])


def _study_name(outcome: Record, studies: Iterable[Record]) -> str:
    method, place = outcome["study"]["spec"]["method"], _place(outcome["study"]["spec"], outcome["study"]["data"])
    alike = [
        other
        for other in studies
        if other["study"]["spec"]["method"] == method
        and _place(other["study"]["spec"], other["study"]["data"]) == place
    ]
    return f"{method} ({outcome['key'][:6]})" if len(alike) > 1 else method


def _best_so_far(trials: Sequence[Record]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Seconds and the best value at the end of each trial, from the first that has a value."""
    seconds = accumulate(trial["seconds"] for trial in trials)
    best: float | None = None
    steps = []
    for after, trial in zip(seconds, trials, strict=True):
        if trial["value"] is not None:
            best = max(trial["value"], trial["value"] if best is None else best)
        if best is not None:
            steps.append((round(after, 3), best))
    return tuple(x for x, _ in steps), tuple(y for _, y in steps)


def _ranks(overall: Table, tables: Sequence[Table]) -> dict[str, Any]:
    titles = {header.name for header in overall.headers}
    blocks = [(table, header) for table in tables if table.title in titles for header in table.tasks]
    columns = [table.column(header.name, header.metric) for table, header in blocks]
    common = [r.label for r in _rivals(overall) if all(r.label in c and c[r.label].value is not None for c in columns)]
    if len(blocks) < 2 or len(common) < 3:
        raise _Missing("no critical differences: fewer than three methods have a value in all tasks, or only one task")
    signed = [
        [(column[label].value or 0.0) * (1 if header.larger else -1) for label in common]
        for column, (_, header) in zip(columns, blocks, strict=True)
    ]
    found = friedman(signed)
    order = sorted(range(len(common)), key=lambda i: (found.ranks[i], common[i]))
    ranks = [found.ranks[i] for i in order]
    p = "" if found.p is None else f"; Friedman p = {found.p:.2g}"
    return {
        "kind": "ranks",
        "title": f"{overall.title}: mean ranks",
        "caption": f"Mean rank of the competitors with a value in all {len(blocks)} tasks (1 is best{p}). Ranks that "
        f"differ by less than the critical difference {found.critical_difference:.2f} (Nemenyi, .05) cannot be told "
        "apart. Tasks of one data set are not independent: it is a picture, not a test.",
        "ranking": Ranking(
            tuple(common[i] for i in order),
            tuple(ranks),
            found.critical_difference,
            tuple(_groups(ranks, found.critical_difference)),
        ),
    }


def _groups(ranks: Sequence[float], critical: float) -> Iterator[tuple[int, int]]:
    """The longest stretches of sorted ranks that are within the critical difference."""
    reached = -1
    for first, rank in enumerate(ranks):
        last = max(i for i, other in enumerate(ranks) if other - rank < critical)
        if last > first and last > reached:
            yield first, last
        reached = max(reached, last)
