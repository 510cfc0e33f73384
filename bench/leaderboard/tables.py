"""What a leaderboard is made of: boards of tables of rows of cells, and nothing about how they are shown."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.statistics.paired import Difference

Kind = Literal["oracle", "competitor", "reference", "chance"]

DASH = "–"
COSTS = ("fit s", "trained", "trials", "tuning s", "seeds")  # columns of one plain number


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
    """Comparable rows, best mean skill first, and runs without a result. The same rows again: measures over tasks and
    costs, and slices of the test set. ``dataset``: none where a table is over several."""

    dataset: str
    title: str
    caption: str
    headers: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    over_tasks: Table | None = None
    slices: tuple[Table, ...] = ()

    @property
    def parts(self) -> tuple[Table, ...]:
        """The tables of the same rows, in the order in which they are shown."""
        return (*([self.over_tasks] if self.over_tasks else []), *self.slices)


@dataclass(frozen=True)
class Board:
    """The tables of all data sets, those over data sets, and the legend that explains them."""

    tables: tuple[Table, ...]
    overall: tuple[Table, ...]
    legend: tuple[str, ...]


def short(number: str) -> str:
    """A formatted number without the zero before its point."""
    return re.sub(r"^([+-]?)0\.", r"\1.", number)
