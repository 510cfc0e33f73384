"""Reading of records: where each lies, whole, or fast with what a leaderboard needs and what they have in common."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bench.errors import BenchError
from bench.spec import canonical, digest

SCHEMA = 1
FOREIGN = f"is no record of schema {SCHEMA} under its own key"


class Unreadable(BenchError):
    """A file, or a line of one, that is not the record or study that it should be."""


class Place(NamedTuple):
    """Where a record lies: in a file of its own, or in a line of its data set's, ``runs/<dataset>.jsonl``."""

    dataset: str
    method: str
    key: str
    path: str
    line: int = 0  # from 1; 0: the file is the record's own
    start: int = 0
    size: int = -1  # bytes; -1: all

    def __str__(self) -> str:
        return f"{self.path} line {self.line}" if self.line else self.path

    def read(self) -> bytes:
        """Returns the JSON text of the record. Raises OSError."""
        with open(self.path, "rb", buffering=0) as file:
            file.seek(self.start)
            return file.read(self.size)

    def broken(self, why: str) -> Unreadable:
        """Returns the error that no whole record lies here, with what to do about it."""
        remedy = "restore the file, or delete the line and run again" if self.line else "move it away and run again"
        return Unreadable(f"{self} {why}; {remedy}")


class _Spec(msgspec.Struct):
    dataset: str
    method: str


class _Head(msgspec.Struct):
    key: str
    spec: _Spec


_HEAD = msgspec.json.Decoder(_Head)


def _head(line: bytes) -> _Head:
    """What an index needs of a record: mostly in the text before ``role``, so that the long rest is not read twice."""
    try:
        return _HEAD.decode(line[: line.find(b',"role":')] + b"}")
    except ValueError:  # msgspec's are values, too
        return _HEAD.decode(line)


def packed(path: Path) -> Mapping[str, Place]:
    """Returns where each record of a data set's file lies, by key; nothing where there is no such file.

    The file is read again only after a change. Raises Unreadable naming the line that is no record of the data set.
    """
    try:
        state = path.stat()
    except FileNotFoundError:
        return {}
    return _indexed(str(path), path.stem, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _indexed(path: str, dataset: str, *_state: int) -> Mapping[str, Place]:
    found: dict[str, Place] = {}
    start = 0
    with open(path, "rb") as file:
        for number, text in enumerate(file, 1):
            place = Place(dataset, "", "", path, number, start, len(text))
            try:
                head = _head(text)
            except ValueError as error:
                raise place.broken(f"cannot be read as a record ({error})") from error
            if head.spec.dataset != dataset or head.key in found:
                raise place.broken("is of another data set, or has the key of an earlier line")
            found[head.key] = place._replace(method=head.spec.method, key=head.key)
            start += len(text)
    return found


def read_record(place: Place) -> dict[str, Any]:
    """Returns the whole record that lies in a place. Raises Unreadable naming the place if it is none."""
    try:
        record: dict[str, Any] = json.loads(place.read())
        whole = isinstance(record, dict) and record.get("schema") == SCHEMA
        whole = whole and record.get("key") == digest(record.get("spec")) == place.key
    except (OSError, ValueError) as error:
        raise place.broken(f"cannot be read as a record ({error})") from error
    if not whole:
        raise place.broken(FOREIGN)
    return record


class _Metrics(msgspec.Struct):
    test: dict[str, dict[str, float | None]]
    slices: dict[str, Any] = {}


class _Env(msgspec.Struct):
    device: str | None = None


class _Result(msgspec.Struct):
    """The entries that ``Store.results`` reads. Those left raw are alike in many records."""

    schema: int
    key: str
    spec: dict[str, msgspec.Raw]
    role: str
    status: str
    error: str | None
    reference: bool
    tasks: msgspec.Raw
    metrics: _Metrics | None
    references: msgspec.Raw
    cost: dict[str, float | int | None] | None
    data: msgspec.Raw
    env: _Env | None = None


class Shared:
    """JSON texts that occur in many records, each read and made canonical once."""

    def __init__(self) -> None:
        self.known: dict[bytes, tuple[Any, str]] = {}
        self.specs: dict[tuple[object, ...], tuple[dict[str, Any], str, str]] = {}

    def __call__(self, raw: msgspec.Raw) -> tuple[Any, str]:
        """Returns the value of a text, and its canonical JSON."""
        text = bytes(raw)
        found = self.known.get(text)
        if found is None:
            value = json.loads(text)
            found = self.known[text] = value, canonical(value)
        return found

    def spec(self, raw: dict[str, msgspec.Raw]) -> tuple[dict[str, Any], str]:
        """Returns a spec, and its canonical JSON; of specs that differ by seed alone all else is made once."""
        seed, own = self(raw.pop("seed", NULL))
        texts = (*raw, *map(bytes, raw.values()))
        found = self.specs.get(texts)
        if found is None:
            parts = {name: self(raw[name]) for name in sorted(raw)}
            # what ``canonical`` gives; a name that needed more than quotes would not give the key
            before = "".join(f'"{name}":{text},' for name, (_, text) in parts.items() if name < "seed")
            after = "".join(f',"{name}":{text}' for name, (_, text) in parts.items() if name > "seed")
            found = self.specs[texts] = {name: value for name, (value, _) in parts.items()}, before, after
        rest, before, after = found
        return rest | {"seed": seed}, f'{{{before}"seed":{own}{after}}}'


NULL = msgspec.Raw(b"null")


DECODER = msgspec.json.Decoder(_Result)


def read_result(place: Place, shared: Shared) -> dict[str, Any]:
    """Returns what a leaderboard needs of the record that lies in a place; ``shared``: what others had already.

    Raises Unreadable naming the place if it is no record, or lacks an entry.
    """
    try:
        found = DECODER.decode(place.read())
        spec, text = shared.spec(found.spec)
    except (OSError, ValueError) as error:  # msgspec's are values
        raise place.broken(f"cannot be read as a record ({error})") from error
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    if not (found.schema == SCHEMA and found.key == key == place.key):
        raise place.broken(FOREIGN)
    return {
        "key": key,
        "spec": spec,
        "role": found.role,
        "status": found.status,
        "error": found.error,
        "reference": found.reference,
        "tasks": shared(found.tasks)[0],
        "metrics": found.metrics and {"test": found.metrics.test, "slices": found.metrics.slices},
        "references": shared(found.references)[0],
        "cost": found.cost,
        "data": shared(found.data)[0],
        "env": {"device": found.env and found.env.device},
    }
