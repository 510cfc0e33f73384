"""What the figures of a leaderboard show, as plain numbers. ``bench.draw`` draws them for papers, the page for readers.

Only what the records support is shown; a figure that cannot be made is named with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import mean
from typing import Any

from bench.gains import gains
from bench.leaderboard import BASELINE, TABLE_KEYS, Board, Cell, Record, Row, Table
from bench.spec import canonical
from bench.stats import friedman
from bench.store import read_study

SKILL = "mean skill"
COSTS = {"trained": "trained parameters", "fit s": "seconds to fit"}
ARROWS = (" ↑", " ↓")


@dataclass(frozen=True)
class Point:
    """A row's mean skill on test and its cost. ``front``: no competitor is cheaper and at least as good."""

    label: str
    kind: str
    cost: float
    skill: float
    half_width: float | None
    front: bool


@dataclass(frozen=True)
class Line:
    """A curve; ``low`` and ``high``: its band, the range over seeds."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Panel:
    """One pair of axes, with points or lines."""

    title: str
    x_label: str
    y_label: str
    points: tuple[Point, ...] = ()
    lines: tuple[Line, ...] = ()


@dataclass(frozen=True)
class Grid:
    """Gain over the baseline in percent, positive is better: a row for each method, a column for each task and one for
    the mean. ``stars``: significant."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    stars: tuple[tuple[bool, ...], ...]


@dataclass(frozen=True)
class Ranking:
    """Mean ranks, best first. ``groups``: first and last index of rows that the critical difference doesn't part."""

    labels: tuple[str, ...]
    ranks: tuple[float, ...]
    critical: float
    groups: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Figure:
    """Panels side by side, or a heat map, or a ranking. ``table``: index of its table in the board; None: of all.
    ``shown``: the lines that are drawn where there is no choice."""

    name: str
    kind: str
    table: int | None
    title: str
    caption: str
    panels: tuple[Panel, ...] = ()
    grid: Grid | None = None
    ranking: Ranking | None = None
    shown: tuple[str, ...] = ()


class _Missing(Exception):
    """Why a figure cannot be made."""


def figures(board: Board, records: Iterable[Record], studies: Iterable[Record]) -> tuple[list[Figure], list[str]]:
    """All figures that the data support, and a line for each that they don't."""
    runs, outcomes = {record["key"]: record for record in records}, list(studies)
    made: list[Figure] = []
    missing = []
    names = slugs([table.title for table in board.tables])
    makers: list[Callable[[Table, Mapping[str, Record]], dict[str, Any]]] = [_quality, _gains, _training]
    for index, (table, slug) in enumerate(zip(board.tables, names, strict=True)):
        for make in (*makers, lambda table, runs: _tuning(table, runs, outcomes)):
            try:
                found = make(table, runs)
            except _Missing as reason:
                missing.append(f"{table.title}: {reason}")
            else:
                made.append(Figure(f"{found['kind']}-{slug}", table=index, **found))
    try:
        made.append(Figure("ranks", table=None, **_ranks(board.tables)))
    except _Missing as reason:
        missing.append(str(reason))
    return made, missing


def studies_of(results: Path) -> list[dict[str, Any]]:
    """The outcomes of all studies in a results folder, in path order."""
    return [read_study(path) for path in sorted(results.glob("studies/*/*/*.json"))]


def slugs(titles: Sequence[str]) -> list[str]:
    """A file name for each title, numbered where several have one title."""
    names = [re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "table" for title in titles]
    return [f"{name}-{names[: i + 1].count(name)}" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _cells(table: Table, header: str) -> list[Cell]:
    return [row.cells[table.headers.index(header)] for row in table.rows] if header in table.headers else []


def _real(table: Table) -> list[tuple[int, Row]]:
    """The rows that were run: no oracle, no chance."""
    return [(i, row) for i, row in enumerate(table.rows) if row.kind in ("competitor", "reference")]


def _task_headers(table: Table) -> list[str]:
    return [header for header in table.headers if header.endswith(ARROWS)]


def _quality(table: Table, runs: Mapping[str, Record]) -> dict[str, Any]:
    skills, panels = _cells(table, SKILL), []
    for header, label in COSTS.items():
        costs = _cells(table, header)
        known = [
            (row, costs[i].value or 0.0, skills[i])
            for i, row in _real(table)
            if skills and costs and (costs[i].value or 0) > 0 and skills[i].value is not None
        ]
        rivals = [(cost, cell.value or 0.0) for row, cost, cell in known if row.kind == "competitor"]
        points = [
            Point(
                row.label,
                row.kind,
                cost,
                cell.value or 0.0,
                cell.half_width,
                row.kind == "competitor" and _on_front((cost, cell.value or 0.0), rivals),
            )
            for row, cost, cell in known
        ]
        if len(rivals) > 1:
            panels.append(Panel("", label, SKILL, tuple(points)))
    if not panels:
        raise _Missing("no figure of quality against cost: fewer than two methods with a mean skill and a cost")
    return {
        "kind": "quality",
        "title": f"{table.title}: quality against cost",
        "caption": "Mean skill on test and its 95 % interval over seeds. The line joins the competitors on the Pareto "
        "front: none is cheaper and as good. Rows that cost nothing are left out.",
        "panels": tuple(panels),
    }


def _on_front(own: tuple[float, float], rivals: Iterable[tuple[float, float]]) -> bool:
    return not any(cost <= own[0] and skill >= own[1] and (cost, skill) != own for cost, skill in rivals)


def _gains(table: Table, runs: Mapping[str, Record]) -> dict[str, Any]:
    columns = [table.headers.index(header) for header in _task_headers(table)]
    rows = [row for _, row in _real(table) if row.kind == "competitor"]
    baseline = next((row for row in rows if _method(row, runs) == BASELINE), None)
    if baseline is None or len(rows) < 2 or not columns:
        raise _Missing(f"no map of gains: it needs a result of {BASELINE} and of another method")
    larger = {table.headers[i]: table.headers[i].endswith("↑") for i in columns}
    labels, values, stars = [], [], []
    for row in rows:
        if row is baseline:
            continue
        pairs = {table.headers[i]: _means(row.cells[i], baseline.cells[i]) for i in columns}
        here, there = ({task: pair[at] for task, pair in pairs.items() if pair} for at in (0, 1))
        known = gains(here, there, larger)
        own = [known.get(task) for task in larger]
        labels.append(row.label)
        values.append((*own, None if None in own else mean(v for v in own if v is not None)))
        stars.append((*(bool((d := row.cells[i].difference) and d.significant) for i in columns), False))
    return {
        "kind": "gains",
        "title": f"{table.title}: gain over {baseline.label}",
        "caption": f"Relative gain over {baseline.label} in percent, over the seeds that both have; blue is better, "
        "red is negative transfer, * is significant as in the table. The last column is the mean over tasks, Δm.",
        "grid": Grid(tuple(labels), (*(task.split()[0] for task in larger), "Δm"), tuple(values), tuple(stars)),
    }


def _method(row: Row, runs: Mapping[str, Record]) -> str | None:
    return next((str(runs[key]["spec"]["method"]) for key in row.keys.values() if key in runs), None)


def _means(own: Cell, base: Cell) -> tuple[float, float] | None:
    """Means over the seeds that both have."""
    common = [seed for seed in own.seeds if seed in base.seeds]
    return (mean(own.seeds[s] for s in common), mean(base.seeds[s] for s in common)) if common else None


def _training(table: Table, runs: Mapping[str, Record]) -> dict[str, Any]:
    panels, shown = [], _shown(table, runs)
    for header in _task_headers(table):
        task, metric, _ = header.split()
        lines = []
        for _, row in _real(table):
            curves = [
                [entry["valid"].get(task) for entry in runs[key]["curve"]]
                for key in row.keys.values()
                if key in runs and runs[key]["status"] == "ok"
            ]
            length = min(map(len, curves), default=0)  # where all seeds still train: later means are of the survivors
            epochs = [values for values in zip(*(c[:length] for c in curves), strict=True) if None not in values]
            if len(epochs) == length > 1:
                lines.append(
                    Line(
                        row.label,
                        tuple(float(i + 1) for i in range(length)),
                        tuple(map(mean, epochs)),
                        tuple(map(min, epochs)),
                        tuple(map(max, epochs)),
                    )
                )
        if lines:
            panels.append(Panel(task, "epoch", f"{metric}, validation", lines=tuple(lines)))
    if not panels:
        raise _Missing("no training curves: no run has two epochs")
    return {
        "kind": "training",
        "title": f"{table.title}: training curves",
        "caption": "Metric on validation after each epoch: mean and range over seeds, as far as all seeds trained.",
        "panels": tuple(panels),
        "shown": shown,
    }


def _shown(table: Table, runs: Mapping[str, Record], count: int = 5) -> tuple[str, ...]:
    """The best competitors, and the baseline."""
    rows = [row for _, row in _real(table) if row.kind == "competitor"]
    base = [row.label for row in rows if _method(row, runs) == BASELINE][:1]
    return tuple(dict.fromkeys([*base, *(row.label for row in rows)]))[: count + 1]


def _tuning(table: Table, runs: Mapping[str, Record], studies: Sequence[Record]) -> dict[str, Any]:
    places = {
        _place(runs[key]["spec"], runs[key]["data"]["sha256"]) for _, r in _real(table) for key in r.keys.values()
    }
    lines = [
        Line(_study_name(outcome, studies), *_best_so_far(outcome["trials"]))
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


def _ranks(tables: Sequence[Table]) -> dict[str, Any]:
    blocks = [(table, header) for table in tables for header in _task_headers(table)]
    columns = [
        {row.label: cell.value for (_, row), cell in _paired(table, header) if cell.value is not None}
        for table, header in blocks
    ]
    common = [label for label in columns[0] if all(label in column for column in columns)] if columns else []
    if len(blocks) < 2 or len(common) < 3:
        raise _Missing("no critical differences: fewer than three methods have a value in all tasks, or only one task")
    signed = [
        [column[label] * (1 if header.endswith("↑") else -1) for label in common]
        for column, (_, header) in zip(columns, blocks, strict=True)
    ]
    found = friedman(signed)
    order = sorted(range(len(common)), key=lambda i: (found.ranks[i], common[i]))
    ranks = [found.ranks[i] for i in order]
    return {
        "kind": "ranks",
        "title": "Mean ranks over data sets and tasks",
        "caption": f"Mean rank of the competitors with a value in all {len(blocks)} tasks (1 is best"
        f"{'' if found.p is None else f'; Friedman p = {found.p:.2g}'}). Ranks that differ by less than the critical difference {found.critical_difference:.2f} "
        "(Nemenyi, .05) cannot be told apart. Tasks of one data set are not independent: it is a picture, not a test.",
        "ranking": Ranking(
            tuple(common[i] for i in order),
            tuple(ranks),
            found.critical_difference,
            tuple(_groups(ranks, found.critical_difference)),
        ),
    }


def _paired(table: Table, header: str) -> Iterator[tuple[tuple[int, Row], Cell]]:
    cells = _cells(table, header)
    return (((i, row), cells[i]) for i, row in _real(table) if row.kind == "competitor")


def _groups(ranks: Sequence[float], critical: float) -> Iterator[tuple[int, int]]:
    """The longest stretches of sorted ranks that are within the critical difference."""
    reached = -1
    for first, rank in enumerate(ranks):
        last = max(i for i, other in enumerate(ranks) if other - rank < critical)
        if last > first and last > reached:
            yield first, last
        reached = max(reached, last)
