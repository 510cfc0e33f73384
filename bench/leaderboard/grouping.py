"""Records to what a leaderboard keeps of them: runs, in rows that differ by seed alone, in groups that compare."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from bench.errors import BenchError
from bench.leaderboard.tables import Kind
from bench.spec import canonical
from bench.spec.names import named

Record = Mapping[str, Any]

TABLE_KEYS = ("dataset", "dataset_config", "dataset_version", "protocol", "budget")  # with the data hash: one table
COSTS = ("fit_s", "trained", "tuning_trials", "tuning_s")


class Task(NamedTuple):
    """A task and the metric that judges it."""

    name: str
    metric: str


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

    def chance(self, task: Task) -> float | None:
        """The value on the test rows of the best constant prediction."""
        return self.references.get("chance", {}).get("test", {}).get(task)


@dataclass(frozen=True)
class Entry:
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
class Line:
    """A row while it is read: what its runs have in common, and the runs by seed."""

    method: str
    choices: dict[str, Any]  # all that tells rows of one method apart
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
    lines: dict[str, Line] = field(default_factory=dict)
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
        lines = [self.lines[key] for key in sorted(self.lines)]
        return [line.runs[seed] for line in lines for seed in sorted(line.runs)]

    @property
    def entries(self) -> list[Entry]:
        """The rows, by label."""
        families: dict[str, list[Line]] = {}
        for _, line in sorted(self.lines.items()):
            families.setdefault(f"{line.method}, tuned" if line.tuned else line.method, []).append(line)
        entries = []
        for name, family in families.items():
            for label, line in zip(named(name, [line.choices for line in family]), family, strict=True):
                kind: Kind = "reference" if line.reference else "competitor"
                runs = {seed: run for seed, run in sorted(line.runs.items()) if run.status == "ok"}
                failed = tuple(run for _, run in sorted(line.runs.items()) if run.status != "ok")
                entries.append(Entry(label, kind, line.method, line.tuned, line.choices, runs, failed))
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
        self.places: dict[tuple[object, ...], tuple[Group, Line, Any]] = {}
        self.texts: dict[int, tuple[Any, str]] = {}
        self.tasks: dict[str, tuple[Task, ...]] = {}
        self.references: dict[tuple[str, str], Mapping[str, Mapping[str, Values]]] = {}

    def add(self, record: Record) -> None:
        group, line = self.place(record["spec"], record.get("data") or {})
        line.reference |= bool(record["reference"])
        group.devices.add((record.get("env") or {}).get("device") or "")
        run = self.run(record)
        if run.status == "ok":
            group.slices |= {name: part["rows"] for name, part in (record["metrics"].get("slices") or {}).items()}
        line.add(run)

    def place(self, spec: Record, data: Record) -> tuple[Group, Line]:
        """Where a run belongs; for runs whose specs share all but the seed it is found once."""
        shared = (*spec, *(id(value) for name, value in spec.items() if name != "seed"), id(data))
        if shared in self.places:
            return self.places[shared][:2]
        found = {**{name: spec.get(name) for name in TABLE_KEYS}, "data": data.get("sha256") or "unknown"}
        group = self.groups.setdefault("\t".join(map(self.text, found.values())), Group(found))
        own = [f"{name} {self.text(spec[name])}" for name in sorted(spec) if name not in (*TABLE_KEYS, "seed")]
        line = group.lines.setdefault("\t".join(own), Line(spec["method"], {}))
        if not line.choices:
            parts = {f"{part} version": version for part, version in spec.get("parts", {}).items()}
            line.choices |= {**spec["config"], "lm": spec["lm"], "version": spec.get("method_version"), **parts}
        group.rows |= data.get("rows") or {}
        group.models.add(spec["lm"] or "")
        self.places[shared] = group, line, (spec, data)  # kept: an id is its object's while that lives
        return group, line

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
            {name: value for name in COSTS if (value := cost.get(name)) is not None},
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
