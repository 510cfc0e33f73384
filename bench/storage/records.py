"""The records of a results folder: one immutable JSON file a run, ``runs/<dataset>/<method>/<key>.json``, and of
published ones a line each in ``runs/<dataset>.jsonl``. A record that exists means done."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.spec import canonical
from bench.storage.atomic import clear_abandoned, write_atomically
from bench.storage.reading import Place, Shared, packed, read_record, read_result


class Store:
    """The records under a results folder, in files of their own and in lines of files of many."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, spec: Mapping[str, Any], key: str) -> Path:
        """Returns where a new record of a spec goes."""
        return self.root / "runs" / str(spec["dataset"]) / str(spec["method"]) / f"{key}.json"

    @property
    def published(self) -> bool:
        """Whether there are files of many records: such a folder takes new ones from a clean tree alone."""
        return any(self.root.glob("runs/*.jsonl"))

    def check_writable(self) -> None:
        """Raises BenchError at once, before hours of work, if no record could be written. Clears what a killed
        process left half-written."""
        probe = self.root / "runs" / ".probe"
        write_atomically(probe, b"")
        probe.unlink(missing_ok=True)
        clear_abandoned(self.root)

    def place(self, spec: Mapping[str, Any], key: str) -> Place | None:
        """Returns where the record of a spec lies, if there is one."""
        dataset, path = str(spec["dataset"]), self.path(spec, key)
        old = self._packed(dataset).get(key)
        return _either(old, Place(dataset, str(spec["method"]), key, str(path))) if path.exists() else old

    def get(self, spec: Mapping[str, Any], key: str) -> dict[str, Any] | None:
        """Returns the stored record of a spec, if any."""
        place = self.place(spec, key)
        return place and read_record(place)

    def put(self, record: Mapping[str, Any]) -> Path:
        """Stores a record under its key, atomically. Raises BenchError if the folder cannot be written."""
        path = self.path(record["spec"], record["key"])
        write_atomically(path, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
        return path

    def find(self, key: str) -> dict[str, Any]:
        """Returns the record whose key begins so.

        Raises BenchError, with the nearest, if there is none or more than one.
        """
        places = {place.key: place for place in self.places()}
        found = [own for own in places if own.startswith(key)] if key else []
        if len(found) == 1:
            return read_record(places[found[0]])
        near = found[:3] or get_close_matches(key, places, n=3, cutoff=0)
        named = ", ".join(f"{own} ({places[own].dataset} {places[own].method})" for own in near)
        if found:
            raise BenchError(f"{len(found)} keys begin with '{key}', such as {named}; give more of it")
        raise BenchError(f"no record '{key}' in {self.root}; {f'nearest: {named}' if near else 'there are no records'}")

    def records(self) -> Iterator[dict[str, Any]]:
        """Yields all records by data set, method and key. Raises BenchError naming a file that is no record."""
        return map(read_record, self.places())

    def results(self, datasets: Collection[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yields all records as ``records`` does, or those of some data sets: with what a leaderboard needs, much
        faster. Without curve, decisions, gates, code, time and validation metrics; what records have in common they
        share, so change none.

        Raises BenchError as ``records`` does, and where an entry that is needed is missing.
        """
        shared = Shared()
        for place in self.places(datasets):
            yield read_result(place, shared)

    def sizes(self) -> dict[str, int]:
        """Returns how many records each data set has."""
        return Counter(place.dataset for place in self.places())

    def places(self, datasets: Collection[str] | None = None) -> Iterator[Place]:
        """Yields where the records lie, by data set, method and key: all, or those of some data sets.

        Raises BenchError if two records of one run differ, and if a file of many records is damaged.
        """
        names = {path.name.removesuffix(".jsonl") for path in self.root.glob("runs/[!.]*")}
        for dataset in sorted(names if datasets is None else names.intersection(datasets)):
            found = dict(self._packed(dataset))
            own = [
                Place(dataset, folder.name, name.removesuffix(".json"), f"{folder}/{name}")
                for folder in (self.root / "runs" / dataset).glob("*")
                if folder.is_dir()
                for name in os.listdir(folder)
                if name.endswith(".json")
            ]
            yield from sorted([*(_either(found.pop(place.key, None), place) for place in own), *found.values()])

    def _packed(self, dataset: str) -> Mapping[str, Place]:
        return packed(self.root / "runs" / f"{dataset}.jsonl")


# What must not depend on where or when a run was made, the telling first. ``key`` and ``spec`` are equal by the name.
COMPARED = ("status", "metrics", "data", "role", "tasks", "references", "curve", "best_epoch", "error")
NOTHING = object()


def _either(old: Place | None, new: Place) -> Place:
    """The place of a run's record, of two that must tell the same: in a file of many, if there, and in its own."""
    if old is not None and (found := difference(read_record(old), read_record(new))) is not None:
        name, there, here = found
        raise BenchError(f"{new}: {name} is {here}, but {there} in {old}; move one of the two away")
    return old or new


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Returns the first thing in which two records of one run differ: its name and both values; None if they agree."""
    pairs = ((name, old.get(name, NOTHING), new.get(name, NOTHING)) for name in COMPARED)
    return next((found for pair in pairs if (found := first(*pair))), None)


def first(name: str, old: Any, new: Any) -> tuple[str, str, str] | None:
    """Returns the first thing in which two values of that name differ, as ``difference`` does."""
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(f"{name}.{key}", old.get(key, NOTHING), new.get(key, NOTHING)) for key in {**old, **new}]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(f"{name}[{i}]", *both) for i, both in enumerate(zip(old, new, strict=True))]
    else:
        there, here = ("missing" if value is NOTHING else canonical(value) for value in (old, new))
        return None if there == here else (name, _short(there), _short(here))
    return next((found for pair in pairs if (found := first(*pair))), None)


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:76]} ..."
