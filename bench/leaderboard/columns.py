"""Columns of a leaderboard: means over seeds, paired differences to the baseline, and who beats whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean

from bench.errors import unknown
from bench.leaderboard.grouping import Group, RowRuns, Run
from bench.leaderboard.tables import Cell, Header, Row
from bench.leaderboard.terms import BASELINE, MEAN, ORDER, YARDSTICKS, Task
from bench.markup import plus_minus, short
from bench.metrics import METRICS, skill
from bench.statistics.intervals import mean_interval
from bench.statistics.many import ALPHA, holm
from bench.statistics.paired import Difference, paired

Series = Mapping[int, float]  # the defined values by seed


@dataclass(frozen=True)
class Column:
    """A value for each run of a row, where it is defined."""

    header: Header
    find: Callable[[RowRuns], Series]
    known: dict[str, Series] = field(default_factory=dict)  # by label: it is asked for again and again

    def series(self, entry: RowRuns) -> Series:
        """The defined values of a row."""
        found = self.known.get(entry.label)
        if found is None:
            found = self.known[entry.label] = self.find(entry)
        return found


def larger(task: Task) -> bool:
    """Whether larger values are better. Raises BenchError for an unknown metric."""
    if task.metric not in METRICS:
        raise unknown("metric", task.metric, METRICS)
    return METRICS[task.metric].larger


def task_column(task: Task, part: str) -> Column:
    """The values of a task on a part of the test rows."""

    def find(entry: RowRuns) -> Series:
        return entry.values(part).get(task, {})

    return Column(Header(task.name, task.metric, larger(task)), find)


def skill_column(task: Task, part: str = "test") -> Column:
    """(value - chance) / (perfect - chance) on a part of the test rows."""

    def find(entry: RowRuns) -> Series:
        return {
            seed: skill(task.metric, value, chance)
            for seed, value in entry.values(part).get(task, {}).items()
            if (chance := entry.runs[seed].chance(task, part)) is not None
        }

    return Column(Header(task.name, larger=True), find)


def mean_column(columns: Sequence[Column]) -> Column:
    """Mean skill; none if a task has no value: means over other tasks could not be compared."""

    def find(entry: RowRuns) -> Series:
        series = [column.series(entry) for column in columns]
        return {s: fmean([v[s] for v in series]) for s in shared(series)}

    return Column(Header(MEAN, larger=True), find)


@dataclass(frozen=True)
class Comparison:
    """The rows of a group, the best mean skill first, and what they are measured by.

    tasks: all; skills: a column for each task that has a chance value; total: their mean; baseline: the best of its
    rows.
    """

    group: Group
    tasks: tuple[Task, ...]
    skills: tuple[Column, ...]
    total: Column
    entries: tuple[RowRuns, ...]
    baseline: RowRuns | None

    @classmethod
    def of(cls, group: Group) -> Comparison:
        """Raises BenchError for an unknown metric."""
        runs = group.runs
        tasks = group.tasks
        measured = [run for run in runs if run.status == "ok"]
        skills = tuple(skill_column(task) for task in tasks if any(run.chance(task) is not None for run in measured))
        total = mean_column(skills)

        def place(entry: RowRuns) -> tuple[int, float, str]:
            values = total.series(entry).values()
            return ORDER.index(entry.kind), -fmean(values) if values else float("inf"), entry.label

        found = [entry for entry in group.entries if entry.runs] + _yardsticks(measured)
        entries = tuple(sorted(found, key=place))
        baseline = next((entry for entry in entries if entry.method == BASELINE), None)
        return cls(group, tasks, skills, total, entries, baseline)

    @cached_property
    def total_cells(self) -> list[Cell]:
        """The cells of mean skill."""
        return self.cells(self.total)

    def cells(self, column: Column) -> list[Cell]:
        """A cell for each row: mean, interval, difference to the baseline, and the competitor that beats all others."""
        series = [column.series(entry) for entry in self.entries]
        base = column.series(self.baseline) if self.baseline else {}
        differences = [
            None if entry is self.baseline or entry.kind in YARDSTICKS else common(values, base)
            for entry, values in zip(self.entries, series, strict=True)
        ]
        adjusted = holm([_p(difference) for difference in differences])
        rivals = [s for entry, s in zip(self.entries, series, strict=True) if entry.kind == "competitor" and s]
        best = _best(rivals, bool(column.header.larger))
        return [
            _cell(values, difference, p, best is not None and values is best)
            for values, difference, p in zip(series, differences, adjusted, strict=True)
        ]

    def rows(self, *columns: Sequence[Cell]) -> tuple[Row, ...]:
        """A row for each entry from the cells of each column."""
        return tuple(
            Row(entry.label, entry.kind, entry.method, entry.tuned, entry.config, keys, (Cell(entry.label), *cells))
            for entry, keys, *cells in zip(self.entries, self._keys, *columns, strict=True)
        )

    @cached_property
    def _keys(self) -> list[dict[int, str]]:
        return [{run.seed: run.key for run in (*entry.runs.values(), *entry.failed)} for entry in self.entries]


def _yardsticks(measured: Sequence[Run]) -> list[RowRuns]:
    """Oracle and chance, which every run carries: read from the first."""
    first = [(kind, run) for kind in YARDSTICKS for run in [r for r in measured if kind in r.references][:1]]
    return [
        RowRuns(kind, kind, kind, False, {}, {run.seed: run._replace(error=None, parts=run.references[kind], cost={})})
        for kind, run in first
    ]


def shared(series: Sequence[Series]) -> list[int]:
    """The seeds that all have, in the order of the first."""
    return [seed for seed in series[0] if all(seed in other for other in series)] if series else []


def common(a: Series, b: Series) -> Difference | None:
    """The paired difference a - b over the seeds that both have; none without any."""
    seeds = [seed for seed in a if seed in b]
    return paired([a[seed] for seed in seeds], [b[seed] for seed in seeds]) if seeds else None


def _best(rivals: Sequence[Series], larger: bool) -> Series | None:
    """The one that is better on average and beats every other, after Holm's correction over them; none if none does."""
    ranked = sorted(rivals, key=lambda values: fmean(values.values()), reverse=larger)
    if len(ranked) < 2 or not _beats(ranked[0], ranked[1:2], larger):  # the second alone is tested fast
        return None
    return ranked[0] if _beats(ranked[0], ranked[1:], larger) else None


def _beats(best: Series, others: Sequence[Series], larger: bool) -> bool:
    found = [common(best, other) for other in others]
    ahead = all(d is not None and (d.mean > 0) is larger and d.mean != 0 for d in found)
    return ahead and all(p is not None and p < ALPHA for p in holm([_p(difference) for difference in found]))


def _p(difference: Difference | None) -> float | None:
    return None if difference is None else difference.p


def _cell(values: Series, difference: Difference | None, p: float | None, bold: bool) -> Cell:
    if not values:
        return Cell()
    centre, half = mean_interval(list(values.values()))
    text = f"{centre:z.4f}{short(plus_minus(half))}"
    return Cell(text, centre, half, dict(values), difference, p, p is not None and p < ALPHA, bold)
