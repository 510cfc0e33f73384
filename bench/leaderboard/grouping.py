"""Records to what a leaderboard keeps of them: runs, in rows that differ by seed alone, in groups that compare."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from bench.errors import BenchError
from bench.leaderboard.terms import COSTS, Kind, Task
from bench.spec import canonical
from bench.spec.names import named

Record = Mapping[str, Any]

TABLE_KEYS = ("dataset", "dataset_config", "dataset_version", "protocol", "budget")  # with the data hash: one table

Values = dict[Task, float]  # those that are defined


class Run(NamedTuple):
    """One record. parts: values on ``test`` and on each slice, none without a result; references: the same of chance
    and, where known, of the oracle."""

    key: str
    seed: int
    status: str
    error: str | None
    tasks: tuple[Task, ...]
    parts: Mapping[str, Values]
    references: Mapping[str, Mapping[str, Values]]
    cost: Mapping[str, float]

    def chance(self, task: Task, part: str = "test") -> float | None:
        """The value of the best constant prediction on a part of the test rows."""
        return self.references.get("chance", {}).get(part, {}).get(task)


@dataclass(frozen=True)
class RowRuns:
    """The runs of a row: those with a result by seed, and the others."""

    label: str
    kind: Kind
    method: str
    tuned: bool
    config: dict[str, Any]
    runs: Mapping[int, Run]
    failed: tuple[Run, ...] = ()
    known: dict[str, dict[Task, dict[int, float]]] = field(default_factory=dict, compare=False, repr=False)

    def values(self, part: str) -> Mapping[Task, Mapping[int, float]]:
        """The defined values on a part of the test rows, by task and seed."""
        found = self.known.get(part)
        if found is None:  # it is asked for again and again
            found = self.known[part] = {}
            for seed, run in self.runs.items():
                for task, value in run.parts.get(part, {}).items():
                    found.setdefault(task, {})[seed] = value
        return found


@dataclass
class Configuration:
    """A method and its settings: what the runs of a row have in common, and the runs by seed."""

    method: str
    settings: dict[str, Any]  # all that tells rows of one method apart
    reference: bool = False
    runs: dict[int, Run] = field(default_factory=dict)

    @property
    def tuned(self) -> bool:
        """With the settings that a study found."""
        return any(run.cost.get("tuning_trials") for run in self.runs.values())

    def add(self, run: Run) -> None:
        """Takes a run in. Raises BenchError if it is there with another result."""
        kept = self.runs.setdefault(run.seed, run)
        if kept is run:
            return
        if (kept.status, kept.parts) != (run.status, run.parts):
            raise BenchError(f"records of run {run.key} disagree on its result; keep the one you can reproduce")
        self.runs[run.seed] = min(kept, run, key=lambda run: canonical([run.cost, run.error]))


@dataclass
class Group:
    """Runs that can be compared. key: what they have in common; rows, slices: sizes of data parts and of slices."""

    key: dict[str, Any]
    configurations: dict[str, Configuration] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    slices: dict[str, int] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    devices: set[str] = field(default_factory=set)
    only: tuple[str, ...] = ()  # patterns of the tasks that are shown

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks of all runs that are shown, in the order of their records."""
        found = {task: None for tasks in dict.fromkeys(run.tasks for run in self.runs) for task in tasks}
        return tuple(task for task in found if not self.only or any(fnmatchcase(task.name, p) for p in self.only))

    @property
    def runs(self) -> list[Run]:
        """All runs, whatever the order in which they were read."""
        found = [self.configurations[key] for key in sorted(self.configurations)]
        return [own.runs[seed] for own in found for seed in sorted(own.runs)]

    @property
    def entries(self) -> list[RowRuns]:
        """The rows, by label."""
        families: dict[str, list[Configuration]] = {}
        for _, own in sorted(self.configurations.items()):
            families.setdefault(f"{own.method}, tuned" if own.tuned else own.method, []).append(own)
        entries = []
        for name, family in families.items():
            for label, own in zip(named(name, [own.settings for own in family]), family, strict=True):
                kind: Kind = "reference" if own.reference else "competitor"
                runs = {seed: run for seed, run in sorted(own.runs.items()) if run.status == "ok"}
                failed = tuple(run for _, run in sorted(own.runs.items()) if run.status != "ok")
                entries.append(RowRuns(label, kind, own.method, own.tuned, own.settings, runs, failed))
        return sorted(entries, key=lambda entry: entry.label)


def grouped(records: Iterable[Record]) -> list[Group]:
    """The final records, in groups that do not depend on the records' order.

    Raises BenchError if two records of one run disagree.
    """
    reader = _Reader()
    for record in records:
        if record["role"] == "final":
            reader.add(record)
    return [reader.groups[key] for key in sorted(reader.groups)]


@contextmanager
def uncollected() -> Iterator[None]:
    """Without garbage collection of cycles: it would go through millions of objects, again and again, to find none."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class _Reader:
    """Reads record by record, and keeps once what many have in common."""

    def __init__(self) -> None:
        self.groups: dict[str, Group] = {}
        self.places: dict[tuple[object, ...], tuple[Group, Configuration, Any]] = {}
        self.texts: dict[int, tuple[Any, str]] = {}
        self.tasks: dict[str, tuple[Task, ...]] = {}
        self.references: dict[tuple[str, str], Mapping[str, Mapping[str, Values]]] = {}

    def add(self, record: Record) -> None:
        group, own = self.place(record["spec"], record.get("data") or {})
        own.reference |= bool(record["reference"])
        group.devices.add((record.get("env") or {}).get("device") or "")
        run = self.run(record)
        if run.status == "ok":
            group.slices |= {name: part["rows"] for name, part in (record["metrics"].get("slices") or {}).items()}
        own.add(run)

    def place(self, spec: Record, data: Record) -> tuple[Group, Configuration]:
        """Where a run belongs; for runs whose specs share all but the seed it is found once."""
        shared = (*spec, *(id(value) for name, value in spec.items() if name != "seed"), id(data))
        if shared in self.places:
            return self.places[shared][:2]
        found = {**{name: spec.get(name) for name in TABLE_KEYS}, "data": data.get("sha256") or "unknown"}
        group = self.groups.setdefault("\t".join(map(self.text, found.values())), Group(found))
        texts = [f"{name} {self.text(spec[name])}" for name in sorted(spec) if name not in (*TABLE_KEYS, "seed")]
        own = group.configurations.setdefault("\t".join(texts), Configuration(spec["method"], {}))
        if not own.settings:
            parts = {f"{part} version": version for part, version in spec.get("parts", {}).items()}
            own.settings |= {**spec["config"], "lm": spec["lm"], "version": spec.get("method_version"), **parts}
        group.rows |= data.get("rows") or {}
        group.models.add(spec["lm"] or "")
        self.places[shared] = group, own, (spec, data)  # kept: an id is its object's while that lives
        return group, own

    def run(self, record: Record) -> Run:
        text = self.text(record["tasks"])
        tasks = self.tasks.get(text)
        if tasks is None:
            tasks = self.tasks[text] = tuple(Task(task["name"], task["metric"]) for task in record["tasks"])
        references = record["references"] or {}
        texts = text, self.text(references)
        known = self.references.get(texts)
        if known is None:
            known = self.references[texts] = {kind: _parts(part, tasks) for kind, part in references.items() if part}
        cost = record.get("cost") or {}
        return Run(
            record["key"],
            record["spec"]["seed"],
            record["status"],
            record["error"],
            tasks,
            _parts(record["metrics"], tasks) if record["status"] == "ok" else {},
            known,
            {name: value for name, _ in COSTS.values() if (value := cost.get(name)) is not None},
        )

    def text(self, value: Any) -> str:
        """Canonical JSON; of an object that several records share it is made once."""
        found = self.texts.get(id(value))
        if found is None:
            found = self.texts[id(value)] = value, canonical(value)
        return found[1]


def _parts(metrics: Record, tasks: tuple[Task, ...]) -> dict[str, Values]:
    slices = metrics.get("slices") or {}
    return {"test": _values(metrics["test"], tasks)} | {
        name: _values(part["metrics"], tasks) for name, part in slices.items()
    }


def _values(part: Record, tasks: tuple[Task, ...]) -> Values:
    return {task: value for task in tasks if (value := (part.get(task.name) or {}).get(task.metric)) is not None}
