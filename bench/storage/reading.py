"""Fast reading of records: what a leaderboard needs of each, and what they have in common once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec

from bench.errors import BenchError
from bench.spec import canonical

SCHEMA = 1


def unreadable(path: Path | str, error: Exception) -> BenchError:
    return BenchError(f"{path} cannot be read as a record ({error}); move it away and run again")


def foreign(path: Path | str) -> BenchError:
    return BenchError(f"{path} is no record of schema {SCHEMA} under its own key; move it away and run again")


class _Metrics(msgspec.Struct):
    test: dict[str, dict[str, float | None]]
    slices: dict[str, Any] = {}  # noqa: RUF012 msgspec copies it


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
        """The value of a text, and its canonical JSON."""
        text = bytes(raw)
        found = self.known.get(text)
        if found is None:
            value = json.loads(text)
            found = self.known[text] = value, canonical(value)
        return found

    def spec(self, raw: dict[str, msgspec.Raw]) -> tuple[dict[str, Any], str]:
        """A spec, and its canonical JSON; of specs that differ by seed alone all else is made once."""
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


def read_result(path: str, stem: str, shared: Shared) -> dict[str, Any]:
    with open(path, "rb", buffering=0) as file:
        found = DECODER.decode(file.read())
    spec, text = shared.spec(found.spec)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    if not (found.schema == SCHEMA and found.key == key == stem):
        raise foreign(path)
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
