"""What a leaderboard is made of: boards of tables of rows of cells, and nothing about how they are shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bench.leaderboard.terms import Kind
from bench.markup import DASH
from bench.statistics.paired import Difference


@dataclass(frozen=True)
class Header:
    """The head of a column. ``name``: of its task, or of what it is. ``metric``: a task's; empty in other columns.
    ``larger``: whether larger values are better, None where neither is. ``plain``: a cell is one number."""

    name: str
    metric: str = ""
    larger: bool | None = None
    plain: bool = False

    @property
    def measure(self) -> str:
        """The metric, with an arrow to where it is better; empty where the column is no task's."""
        return f"{self.metric} {'↑' if self.larger else '↓'}" if self.metric else ""

    def __str__(self) -> str:
        return f"{self.name} {self.measure}" if self.metric else self.name


@dataclass(frozen=True)
class Cell:
    """Text, and the numbers behind it: mean over seeds, half-width of its 95 % interval, the value of each seed, and
    the paired difference to the baseline over common seeds.

    p: of that difference, after Holm's correction over the rows of the column; star: p < .05. bold: the competitor that
    beats every other one.
    """

    text: str = DASH
    value: float | None = None
    half_width: float | None = None
    seeds: dict[int, float] = field(default_factory=dict)
    difference: Difference | None = None
    p: float | None = None
    star: bool = False
    bold: bool = False


@dataclass(frozen=True)
class Row:
    """One method and configuration: a cell for each header. ``keys``: the key of each seed's record."""

    label: str
    kind: Kind
    method: str
    tuned: bool
    config: dict[str, Any]
    keys: dict[int, str]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Failure:
    """Runs of one row that ended alike, without a result."""

    label: str
    status: str
    reason: str
    seeds: tuple[int, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Comparable rows, best mean skill first, and runs without a result. Its ``parts`` are tables of these rows too:
    measures over tasks and costs, and slices of the test rows. ``dataset``: empty where a table is over several.
    ``part``: which of these parts it is, such as ``cold_item``; empty where it is none."""

    dataset: str
    title: str
    caption: str
    headers: tuple[Header, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    over_tasks: Table | None = None
    slices: tuple[Table, ...] = ()
    part: str = ""

    @property
    def parts(self) -> tuple[Table, ...]:
        """The tables of the same rows, in the order in which they are shown."""
        return (*([self.over_tasks] if self.over_tasks else []), *self.slices)

    @property
    def tasks(self) -> list[Header]:
        """The headers of the columns that tasks have."""
        return [header for header in self.headers if header.metric]

    def column(self, name: str, metric: str = "") -> dict[str, Cell]:
        """The cells of a column by row, here or in the table over tasks; none where there is no such column."""
        for table in (self, self.over_tasks):
            for i, header in enumerate(table.headers if table else ()):
                if table and (header.name, header.metric) == (name, metric):
                    return {row.label: row.cells[i] for row in table.rows}
        return {}


@dataclass(frozen=True)
class Board:
    """The tables of all data sets, those over data sets, and the legend that explains them."""

    tables: tuple[Table, ...]
    overall: tuple[Table, ...]
    legend: tuple[str, ...]
