"""Final records as comparable rows, how one names a row in words, and what a row has measured."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from bench.errors import BenchError
from bench.metrics import METRICS, skill
from bench.spec import canonical

Record = Mapping[str, Any]
COMPARABLE = ("dataset", "dataset_version", "dataset_config", "protocol", "budget")  # with the data: one group
MEAN = "mean skill"
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

    def fits(self, row: Row) -> bool:
        """Whether the row is one of those that are meant."""
        known = row.choices
        return (self.method, self.tuned) == (row.method, row.tuned) and all(
            key in known and _text(known[key]) == value for key, value in self.settings.items()
        )

    def __str__(self) -> str:
        settings = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{self.method}{', tuned' if self.tuned else ''}{f' ({settings})' if settings else ''}"


@dataclass(frozen=True)
class Row:
    """One method and configuration. ``runs``: successful records by seed. ``trials``: those of its tuning."""

    spec: dict[str, Any]  # of one of its runs
    trials: int
    runs: dict[int, Record]
    failed: dict[int, Record]

    @property
    def method(self) -> str:
        """The method's name."""
        return str(self.spec["method"])

    @property
    def tuned(self) -> bool:
        """Whether its settings come from a study."""
        return self.trials > 0

    @property
    def choices(self) -> dict[str, Any]:
        """All that tells it from other rows of its method."""
        parts = {f"{part} version": version for part, version in self.spec.get("parts", {}).items()}
        more = {"lm": self.spec["lm"], "version": self.spec.get("method_version")}
        return {**self.spec["config"], **more, **parts}

    def named(self, others: Sequence[Row]) -> Selector:
        """The words that tell it from the other rows."""
        alike = [row for row in others if (row.method, row.tuned) == (self.method, self.tuned)]
        own = self.choices
        telling = {k for row in alike for k in own if k in row.choices and _text(row.choices[k]) != _text(own[k])}
        return Selector(self.method, self.tuned, {key: _text(own[key]) for key in sorted(telling)})


@dataclass(frozen=True)
class Group:
    """Rows that may be compared: same data, protocol and budget. ``about``: the values that all of them share."""

    dataset: str
    title: str
    about: dict[str, Any]
    rows: tuple[Row, ...]

    def find(self, selector: Selector) -> list[Row]:
        """The rows that are meant: none, one, or several if the words do not tell them apart."""
        return [row for row in self.rows if selector.fits(row)]

    @property
    def tasks(self) -> list[Record]:
        """The tasks of all records, each once."""
        records = [r for row in self.rows for r in (*row.runs.values(), *row.failed.values())]
        return list({(t["name"], t["metric"]): t for r in records for t in r["tasks"]}.values())


def groups(records: Iterable[Record]) -> list[Group]:
    """The final records of the clean protocols as groups, in order of data set and what else tells groups apart."""
    found: dict[str, list[Record]] = {}
    for record in records:
        if record["role"] == "final" and record["spec"]["protocol"].startswith("clean-"):
            found.setdefault(canonical(_about(record)), []).append(record)
    ordered = sorted(
        ((_about(some[0]), some) for some in found.values()), key=lambda g: (g[0]["dataset"], canonical(g[0]))
    )
    return [
        Group(about["dataset"], _title(about, [other for other, _ in ordered]), about, _rows(some))
        for about, some in ordered
    ]


def values(row: Row, task: Record, part: str = "test") -> dict[int, float]:
    """The task's primary metric by seed, on the test part or on a slice of it."""
    found = {seed: _part(run["metrics"], part).get(task["name"], {}) for seed, run in sorted(row.runs.items())}
    return {seed: value[task["metric"]] for seed, value in found.items() if value.get(task["metric"]) is not None}


def chance(row: Row, task: Record, part: str = "test") -> float | None:
    """What the best constant prediction gets there: the zero of skill."""
    known: Record = next((r["references"]["chance"] for r in row.runs.values() if r.get("references")), {})
    value: float | None = _part(known, part).get(task["name"], {}).get(task["metric"])
    return value


def skills(row: Row, tasks: Sequence[Record], part: str = "test") -> dict[int, float]:
    """Mean skill over the tasks by seed. A task without a chance value there does not count; a seed that lacks one of
    the others has no mean."""
    zero = {t["name"]: chance(row, t, part) for t in tasks}
    parts = [
        {seed: skill(t["metric"], value, base) for seed, value in values(row, t, part).items()}
        for t in tasks
        if (base := zero[t["name"]]) is not None
    ]
    common = [seed for seed in parts[0] if all(seed in other for other in parts)] if parts else []
    return {seed: mean(other[seed] for other in parts) for seed in common}


def slope(task: Record, base: float) -> float:
    """Skill for each unit of the task's metric: negative where smaller is better. ``base``: chance."""
    return skill(task["metric"], base + 1, base)


def larger(task: Record) -> bool:
    """Whether a larger value of the task's metric is better."""
    return METRICS[task["metric"]].larger


def _part(metrics: Any, part: str) -> dict[str, Any]:
    if part == "test":
        return metrics.get("test") or {}
    return (metrics.get("slices") or {}).get(part, {}).get("metrics") or {}


def _text(value: Any) -> str:
    return "none" if value is None else canonical(value).strip('"')


def _about(record: Record) -> dict[str, Any]:
    data = (record.get("data") or {}).get("sha256") or "unknown"
    return {**{key: record["spec"].get(key) for key in COMPARABLE}, "data": data}


def _title(about: dict[str, Any], all_of_them: list[dict[str, Any]]) -> str:
    """The data set, with what tells it from the other groups on it."""

    def flat(one: dict[str, Any]) -> dict[str, Any]:
        return {**one, **one["dataset_config"], **one["budget"], "data": one["data"][:8]}

    own, kin = flat(about), [flat(o) for o in all_of_them if o["dataset"] == about["dataset"]]
    telling = [k for k in own if k not in ("dataset_config", "budget") and any(o.get(k) != own[k] for o in kin)]
    settings = ", ".join(f"{k}={_text(own[k])}" for k in telling)
    return f"{about['dataset']}{f' ({settings})' if settings else ''}"


def _rows(records: list[Record]) -> tuple[Row, ...]:
    found: dict[str, list[Record]] = {}
    for record in records:
        own = {key: value for key, value in record["spec"].items() if key not in (*COMPARABLE, "seed")}
        found.setdefault(canonical(own), []).append(record)
    return tuple(
        Row(
            found[key][0]["spec"],
            max((r.get("cost") or {}).get("tuning_trials") or 0 for r in found[key]),
            {r["spec"]["seed"]: r for r in found[key] if r["status"] == "ok"},
            {r["spec"]["seed"]: r for r in found[key] if r["status"] != "ok"},
        )
        for key in sorted(found)
    )
