"""Columns of a leaderboard: means over seeds, paired differences to the baseline, and who beats whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from bench.errors import unknown
from bench.metrics import METRICS, skill
from bench.runs import Entry, Group, Run, Task
from bench.stats import Difference, holm, mean_interval, paired
from bench.tables import Cell, Kind, Row, short

BASELINE = "single_task"
YARDSTICKS: tuple[Kind, ...] = ("oracle", "chance")  # properties of the data, not runs
ORDER: tuple[Kind, ...] = ("oracle", "competitor", "reference", "chance")
ALPHA = 0.05
Series = Mapping[int, float]  # the defined values by seed


@dataclass(frozen=True)
class Column:
    """One value a run; ``larger`` is better."""

    header: str
    larger: bool
    get: Callable[[Run], float | None]

    def series(self, entry: Entry) -> Series:
        """The defined values of a row."""
        return {seed: value for seed, run in entry.runs.items() if (value := self.get(run)) is not None}


def larger(task: Task) -> bool:
    """Whether larger values are better. Raises BenchError for an unknown metric."""
    if task.metric not in METRICS:
        raise unknown("metric", task.metric, METRICS)
    return METRICS[task.metric].larger


def task_column(task: Task, part: str) -> Column:
    """The values of a task on a part of the test rows."""
    header = f"{task.name} {task.metric} {'↑' if larger(task) else '↓'}"
    return Column(header, larger(task), lambda run: run.value(part, task))


def skill_column(task: Task) -> Column:
    """(value - chance) / (perfect - chance) on the test rows."""

    def get(run: Run) -> float | None:
        value, chance = run.value("test", task), run.chance(task)
        return None if value is None or chance is None else skill(task.metric, value, chance)

    return Column(task.name, True, get)


def mean_column(columns: Sequence[Column]) -> Column:
    """Mean skill; none if a task has no value: means over other tasks could not be compared."""

    def get(run: Run) -> float | None:
        values = [value for column in columns if (value := column.get(run)) is not None]
        return fmean(values) if values and len(values) == len(columns) else None

    return Column("mean skill", True, get)


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
    entries: tuple[Entry, ...]
    baseline: Entry | None

    @classmethod
    def of(cls, group: Group) -> Comparison:
        """Raises BenchError for an unknown metric."""
        runs = group.runs
        tasks = tuple({task: None for some in dict.fromkeys(run.tasks for run in runs) for task in some})
        measured = [run for run in runs if run.status == "ok"]
        skills = tuple(skill_column(task) for task in tasks if any(run.chance(task) is not None for run in measured))
        total = mean_column(skills)

        def place(entry: Entry) -> tuple[int, float, str]:
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
        adjusted = holm([difference and difference.p for difference in differences])
        rivals = [s for entry, s in zip(self.entries, series, strict=True) if entry.kind == "competitor" and s]
        best = _best(rivals, column.larger)
        return [
            _cell(values, difference, p, best is not None and values is best)
            for values, difference, p in zip(series, differences, adjusted, strict=True)
        ]

    def rows(self, *columns: Sequence[Cell]) -> tuple[Row, ...]:
        """A row for each entry from the cells of each column."""
        rows = []
        for entry, *cells in zip(self.entries, *columns, strict=True):
            keys = {run.seed: run.key for run in (*entry.runs.values(), *entry.failed)}
            rows.append(Row(entry.label, entry.kind, entry.config, keys, (Cell(entry.label), *cells)))
        return tuple(rows)


def _yardsticks(measured: Sequence[Run]) -> list[Entry]:
    """Oracle and chance, which every run carries: read from the first."""
    first = [(kind, run) for kind in YARDSTICKS for run in [r for r in measured if kind in r.references][:1]]
    return [
        Entry(kind, kind, kind, False, {}, {run.seed: _as_run(run, run.references[kind])}) for kind, run in first
    ]


def _as_run(run: Run, parts: Mapping[str, Any]) -> Run:
    return Run(run.key, run.seed, run.status, None, run.tasks, parts, run.references, {})


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
    return ahead and all(p is not None and p < ALPHA for p in holm([d and d.p for d in found]))


def _cell(values: Series, difference: Difference | None, p: float | None, bold: bool) -> Cell:
    if not values:
        return Cell()
    centre, half = mean_interval(list(values.values()))
    text = f"{centre:z.4f}" + ("" if half is None else f" ± {short(half, '.4f')}")
    return Cell(text, centre, half, dict(values), difference, p, p is not None and p < ALPHA, bold)
