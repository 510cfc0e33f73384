"""How one names a row in words, the rows that may be compared, and what a row has measured, in skill."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bench.errors import BenchError
from bench.leaderboard.columns import mean_column, skill_column
from bench.leaderboard.filters import EVERYTHING, Filter
from bench.leaderboard.grouping import Record, RowRuns, grouped
from bench.leaderboard.tables import Row
from bench.leaderboard.terms import Task
from bench.spec.names import listed

R = TypeVar("R", RowRuns, Row)
_NAMED = re.compile(r"(?P<method>\w+)(?P<tuned>, tuned)?(?: \((?P<settings>.+)\))?", re.ASCII)


@dataclass(frozen=True)
class Selector:
    """Rows in words, as the leaderboard labels them: ``mmoe``, ``mmoe, tuned``, ``frozen (trunk=single_task)``.

    ``settings``: those that a row must have, as text.
    """

    method: str
    tuned: bool = False
    settings: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> Selector:
        """Raises BenchError for a text of another form."""
        found = _NAMED.fullmatch(text)
        pairs = re.split(r", (?=[^=,]+=)", found["settings"]) if found and found["settings"] else []
        if not found or not all(re.fullmatch("[^=]+=.+", pair) for pair in pairs):
            raise BenchError(f"row '{text}': give METHOD, or METHOD, tuned, or METHOD (KEY=VALUE, KEY=VALUE)")
        settings = {key: value for key, _, value in (pair.partition("=") for pair in pairs)}
        return cls(found["method"], bool(found["tuned"]), settings)

    def fits(self, row: RowRuns | Row) -> bool:
        """Whether the row is one of those that are meant."""
        return (self.method, self.tuned) == (row.method, row.tuned) and all(
            key in row.config and listed({key: row.config[key]}) == f"{key}={value}"
            for key, value in self.settings.items()
        )

    def __str__(self) -> str:
        settings = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{self.method}{', tuned' if self.tuned else ''}{f' ({settings})' if settings else ''}"


@dataclass(frozen=True)
class Rows:
    """Rows that may be compared: same data, protocol and budget, which ``about`` has."""

    title: str
    about: dict[str, Any]
    entries: tuple[RowRuns, ...]
    tasks: tuple[Task, ...]

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return str(self.about["dataset"])

    def find(self, selector: Selector) -> list[RowRuns]:
        """The rows that are meant: none, one, or several if the words do not tell them apart."""
        return [entry for entry in self.entries if selector.fits(entry)]

    def spec(self, entry: RowRuns) -> dict[str, Any]:
        """What ``reproduce_command`` needs to know of a row's runs, with seed 0."""
        settings = {k: v for k, v in entry.config.items() if k != "version" and not k.endswith(" version")}
        if settings.get("lm") is None:
            settings.pop("lm", None)
        return {**self.about, "method": entry.method, "config": settings, "seed": 0}


def one(selector: Selector, rows: Sequence[R], where: str) -> R | None:
    """The row that is meant, by its whole label or by what tells it from others; None if there is none.

    Raises BenchError if several are meant. ``where``: what the rows are of, for the error.
    """
    found = [row for row in rows if row.label == str(selector)] or [row for row in rows if selector.fits(row)]
    if len(found) > 1:
        names = ", ".join(f"'{row.label}'" for row in found)
        raise BenchError(f"'{selector}' means several rows of {where}: {names}; name one")
    return found[0] if found else None


def comparable(records: Iterable[Record], wanted: Filter = EVERYTHING) -> list[Rows]:
    """The final records that pass, of the clean protocols if none is named, rows that may be compared together. Raises
    BenchError if none is left."""
    groups = wanted.chosen(grouped(records))
    keys = [group.key for group in groups]
    return [
        Rows(
            _title(group.key, keys),
            group.key,
            tuple(group.entries),
            tuple(dict.fromkeys(task for run in group.runs for task in run.tasks)),
        )
        for group in groups
    ]


def _title(about: dict[str, Any], keys: Sequence[dict[str, Any]]) -> str:
    """The data set, with what tells these rows from others on it."""

    def flat(one: dict[str, Any]) -> dict[str, Any]:
        own = {k: v for k, v in one.items() if k not in ("dataset_config", "budget")}
        return {**own, **one["dataset_config"], **one["budget"], "data": one["data"][:8]}

    own, kin = flat(about), [flat(other) for other in keys if other["dataset"] == about["dataset"]]
    telling = listed({k: v for k, v in own.items() if any(other.get(k) != v for other in kin)})
    return f"{about['dataset']}{f' ({telling})' if telling else ''}"


def trials(entry: RowRuns) -> int:
    """Trials of the study that its settings come from; 0 if it is not tuned."""
    return int(max((run.cost.get("tuning_trials", 0) for run in entry.runs.values()), default=0))


def chance(entry: RowRuns, task: Task, part: str = "test") -> float | None:
    """The value of the best constant prediction there: the zero of skill."""
    known = (run.chance(task, part) for run in entry.runs.values())
    return next((value for value in known if value is not None), None)


def skills(entry: RowRuns, tasks: Sequence[Task], part: str = "test") -> dict[int, float]:
    """Mean skill over the tasks by seed. A task without a chance value there does not count; a seed that lacks one of
    the others has no mean."""
    counted = [skill_column(task, part) for task in tasks if chance(entry, task, part) is not None]
    return dict(mean_column(counted).series(entry))
