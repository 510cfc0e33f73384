"""The words that all parts of a leaderboard share: tasks, kinds of rows, names of columns, costs."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["oracle", "competitor", "reference", "chance"]

ORDER: tuple[Kind, ...] = ("oracle", "competitor", "reference", "chance")  # of the rows in a table
YARDSTICKS: tuple[Kind, ...] = ("oracle", "chance")  # properties of the data, not runs
BASELINE = "single_task"
MEAN, DELTA, RANK = "mean skill", "Δm %", "mean rank"  # columns
OVER_TASKS = "over_tasks"  # the part of a table that is none of the test rows


class Task(NamedTuple):
    """A task and the metric that judges it."""

    name: str
    metric: str


class Cost(NamedTuple):
    """An entry of a record's cost, and the form in which a column shows it."""

    entry: str
    form: str


COSTS = {  # by column
    "fit s": Cost("fit_s", ",.1f"),
    "trained": Cost("trained", ",.0f"),
    "trials": Cost("tuning_trials", ",.0f"),
    "tuning s": Cost("tuning_s", ",.0f"),
}
