"""One immutable JSON file a run: ``runs/<dataset>/<method>/<key>.json``. The file's existence means done."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from bench.errors import BenchError
from bench.spec import canonical, digest

SCHEMA = 1
STUDY_SCHEMA = 1
ABANDONED_S = 600  # a temporary file older than this belongs to no living process
os.umask(UMASK := os.umask(0o077))  # it can only be read by setting it; here, before there are threads


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Writes a file so that readers see the old content, the new content or nothing, never a part.

    Raises BenchError if the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                os.fchmod(handle, 0o666 & ~UMASK)  # a temporary file is its owner's alone
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror}; choose another folder with --results") from error


def clear_abandoned(folder: Path) -> None:
    """Removes what killed processes left half-written below a folder."""
    for stale in folder.rglob(".tmp-*"):
        with suppress(FileNotFoundError):  # just finished, or cleared by another process
            if time.time() - stale.stat().st_mtime > ABANDONED_S:
                stale.unlink()


class Store:
    """The records under a results folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, spec: dict[str, Any], key: str) -> Path:
        """Where the record of a spec lies."""
        return self.root / "runs" / str(spec["dataset"]) / str(spec["method"]) / f"{key}.json"

    def check_writable(self) -> None:
        """Raises BenchError at once, before hours of work, if no record could be written. Clears what a killed
        process left half-written."""
        probe = self.root / "runs" / ".probe"
        write_atomically(probe, b"")
        probe.unlink(missing_ok=True)
        clear_abandoned(self.root)

    def get(self, spec: dict[str, Any], key: str) -> dict[str, Any] | None:
        """The stored record of a spec, if any."""
        path = self.path(spec, key)
        return _read(path) if path.exists() else None

    def put(self, record: dict[str, Any]) -> Path:
        """Stores a record under its key, atomically. Raises BenchError if the folder cannot be written."""
        path = self.path(record["spec"], record["key"])
        write_atomically(path, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
        return path

    def find(self, key: str) -> dict[str, Any]:
        """The record whose key begins so. Raises BenchError, with the nearest, if there is none or more than one."""
        paths = {path.stem: path for path in self.paths()}
        found = [own for own in paths if own.startswith(key)] if key else []
        if len(found) == 1:
            return _read(paths[found[0]])
        near = found[:3] or get_close_matches(key, paths, n=3, cutoff=0)
        named = ", ".join(f"{own} ({paths[own].parent.parent.name} {paths[own].parent.name})" for own in near)
        if found:
            raise BenchError(f"{len(found)} keys begin with '{key}', such as {named}; give more of it")
        raise BenchError(f"no record '{key}' in {self.root}; {f'nearest: {named}' if near else 'there are no records'}")

    def records(self) -> Iterator[dict[str, Any]]:
        """All records in path order. Raises BenchError naming a file that is no record."""
        for path in self.paths():
            yield _read(path)

    def results(self, datasets: Collection[str] | None = None) -> Iterator[dict[str, Any]]:
        """All records in path order, or those of some data sets: with what a leaderboard needs, much faster than
        ``records``. Without curve, decisions, gates, code, time and validation metrics; what records have in common
        they share, so change none.

        Raises BenchError as ``records`` does, and where an entry that is needed is missing.
        """
        shared = _Shared()
        for folder, names in self._folders():
            for name in names if datasets is None or folder.parent.name in datasets else ():
                path = f"{folder}/{name}"
                try:
                    yield _result(path, name.removesuffix(".json"), shared)
                except (OSError, ValueError, msgspec.MsgspecError) as error:
                    raise _unreadable(path, error) from error

    def sizes(self) -> dict[str, int]:
        """How many files each data set's folder has."""
        found: dict[str, int] = {}
        for folder, names in self._folders():
            found[folder.parent.name] = found.get(folder.parent.name, 0) + len(names)
        return found

    def paths(self) -> Iterator[Path]:
        """The files of all records, in order."""
        for folder, names in self._folders():
            yield from (folder / name for name in names)

    def _folders(self) -> Iterator[tuple[Path, list[str]]]:
        for folder in sorted(self.root.glob("runs/*/*")):
            if folder.is_dir():
                yield folder, sorted(name for name in os.listdir(folder) if name.endswith(".json"))


def _read(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        whole = isinstance(record, dict) and record.get("schema") == SCHEMA
        whole = whole and record.get("key") == digest(record.get("spec")) == path.stem
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not whole:
        raise _foreign(path)
    return record


def _unreadable(path: Path | str, error: Exception) -> BenchError:
    return BenchError(f"{path} cannot be read as a record ({error}); move it away and run again")


def _foreign(path: Path | str) -> BenchError:
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


class _Shared:
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


def _result(path: str, stem: str, shared: _Shared) -> dict[str, Any]:
    with open(path, "rb", buffering=0) as file:
        found = DECODER.decode(file.read())
    spec, text = shared.spec(found.spec)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    if not (found.schema == SCHEMA and found.key == key == stem):
        raise _foreign(path)
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


def read_study(path: Path) -> dict[str, Any]:
    """The stored outcome of a study. Raises BenchError naming a file that is none."""
    try:
        outcome: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if outcome["schema"] == STUDY_SCHEMA and outcome["key"] == digest(outcome["study"]) == path.stem:
            return outcome
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{path} cannot be read as a study ({error}); move it away and tune again") from error
    raise BenchError(f"{path} is no study of schema {STUDY_SCHEMA} under its own key; move it away and tune again")
