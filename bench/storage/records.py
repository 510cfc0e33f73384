"""One immutable JSON file a run: ``runs/<dataset>/<method>/<key>.json``. The file's existence means done."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from bench.errors import BenchError
from bench.spec import digest
from bench.storage.atomic import clear_abandoned, write_atomically
from bench.storage.reading import SCHEMA, Shared, foreign, read_result, unreadable


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
        shared = Shared()
        for folder, names in self._folders():
            for name in names if datasets is None or folder.parent.name in datasets else ():
                path = f"{folder}/{name}"
                try:
                    yield read_result(path, name.removesuffix(".json"), shared)
                except (OSError, ValueError, msgspec.MsgspecError) as error:
                    raise unreadable(path, error) from error

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
        raise unreadable(path, error) from error
    if not whole:
        raise foreign(path)
    return record
