"""How one names a row in words, the rows that may be compared, and what a row has measured, in skill."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from bench.errors import BenchError
from bench.leaderboard.columns import shared
from bench.leaderboard.filters import EVERYTHING, Filter
from bench.leaderboard.grouping import Entry, Record, Task, grouped
from bench.metrics import skill
from bench.spec.names import listed

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

    def fits(self, entry: Entry) -> bool:
        """Whether the row is one of those that are meant."""
        return (self.method, self.tuned) == (entry.method, entry.tuned) and all(
            key in entry.config and listed({key: entry.config[key]}) == f"{key}={value}"
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
    entries: tuple[Entry, ...]
    tasks: tuple[Task, ...]

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return str(self.about["dataset"])

    def find(self, selector: Selector) -> list[Entry]:
        """The rows that are meant: none, one, or several if the words do not tell them apart."""
        return [entry for entry in self.entries if selector.fits(entry)]

    def spec(self, entry: Entry) -> dict[str, Any]:
        """What ``reproduce_command`` needs to know of a row's runs, with seed 0."""
        settings = {k: v for k, v in entry.config.items() if k != "version" and not k.endswith(" version")}
        if settings.get("lm") is None:
            settings.pop("lm", None)
        return {**self.about, "method": entry.method, "config": settings, "seed": 0}


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


def trials(entry: Entry) -> int:
    """Trials of the study that its settings come from; 0 if it is not tuned."""
    return int(max((run.cost.get("tuning_trials", 0) for run in entry.runs.values()), default=0))


def values(entry: Entry, task: Task, part: str = "test") -> dict[int, float]:
    """The task's primary metric by seed, on the test part or on a slice of it."""
    return dict(entry.values(part).get(task, {}))


def chance(entry: Entry, task: Task, part: str = "test") -> float | None:
    """What the best constant prediction gets there: the zero of skill."""
    known = (run.references.get("chance", {}).get(part, {}).get(task) for run in entry.runs.values())
    return next((value for value in known if value is not None), None)


def skills(entry: Entry, tasks: Sequence[Task], part: str = "test") -> dict[int, float]:
    """Mean skill over the tasks by seed. A task without a chance value there does not count; a seed that lacks one of
    the others has no mean."""
    parts = [
        {seed: skill(task.metric, value, base) for seed, value in values(entry, task, part).items()}
        for task in tasks
        if (base := chance(entry, task, part)) is not None
    ]
    return {seed: mean(other[seed] for other in parts) for seed in shared(parts)}


def slope(task: Task, base: float) -> float:
    """Skill for each unit of the task's metric: negative where smaller is better. ``base``: chance."""
    return skill(task.metric, base + 1, base)
