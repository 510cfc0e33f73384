"""Unites the records and studies of several results folders, as the jobs of a batch queue leave them."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.errors import BenchError
from bench.spec import canonical, digest
from bench.storage.atomic import write_atomically
from bench.storage.records import Store

# What must not depend on where or when a run was made, the telling first. ``key`` and ``spec`` are equal by the name.
COMPARED = ("status", "metrics", "data", "role", "tasks", "references", "curve", "best_epoch", "error")
RESULTS = ("ok", "declined", "diverged")  # the same again, wherever the run is made; other ends may be the machine's
NOTHING = object()

What = Literal["new", "same", "replaced", "left", "conflict", "unreadable"]


@dataclass(frozen=True)
class Merged:
    """What became of one file. new: copied; same: the target had it; replaced: a failure there gave way to it; left: a
    failure, and the target has the run already; conflict: the target has another result, and keeps it; unreadable:
    no record or study of its own, or its predictions are broken. ``why``: the reason where there is one to tell."""

    file: str
    what: What
    why: str = ""


def merge(sources: Sequence[Path], target: Path) -> list[Merged]:
    """Copies the records that ``target`` lacks, with their predictions, and the studies; returns what became of each
    file.

    Of a study the outcome with more trials stays, if it begins with the trials of the other. Nothing is lost: of two
    results of one run the target's stays, of a failure and a result the result. So where sources disagree the first
    decides. Doing it again changes nothing. Raises BenchError, before anything is written, if a source is missing,
    holds neither records nor studies or is the target itself; and if the target cannot be written.
    """
    for source in sources:
        if not source.is_dir():
            raise BenchError(f"{source}: no such folder; give the folders that `bench run --results` wrote")
        if target.exists() and source.samefile(target):
            raise BenchError(f"{source} is the results folder itself; merge other folders into it")
        if not (source / "runs").is_dir() and not (source / "studies").is_dir():
            raise BenchError(
                f"{source} has no folder 'runs' or 'studies'; give the folder that `bench run --results` wrote"
            )
    store = Store(target)
    store.check_writable()
    return [done for source in sources for done in _merge(Store(source), store)]


def _merge(source: Store, target: Store) -> Iterator[Merged]:
    unreadable: list[OSError] = []
    for folder, take in (("runs", _take), ("studies", _take_study)):
        if not (source.root / folder).exists():
            continue
        tree = os.walk(source.root / folder, onerror=unreadable.append, followlinks=True)
        for path in sorted(Path(at, name) for at, _, names in tree for name in names):
            if path.name.startswith(".") or (take is _take_study and path.suffix == ".log"):
                continue  # of runs at work, or of killed ones; the log goes with its outcome
            try:
                yield take(path, source, target)
            except _Unreadable as error:
                yield Merged(str(path), "unreadable", str(error))
    for unlisted in unreadable:
        yield Merged(str(unlisted.filename), "unreadable", f"cannot be listed: {unlisted.strerror}")


class _Unreadable(Exception):
    """A file that cannot be taken for what it should be."""


def _take(path: Path, source: Store, target: Store) -> Merged:
    new, content = _record(path, source)
    place = target.path(new["spec"], new["key"])
    old = _record(place, target)[0] if place.exists() else None
    if old is not None:
        found = difference(old, new)
        if found is None:
            return Merged(str(path), "same")
        if new["status"] not in RESULTS:
            return Merged(str(path), "left", f"{_end(new)}; {place} stays")
        if old["status"] in RESULTS:
            name, there, here = found
            return Merged(str(path), "conflict", f"{name} is {here}, but {there} in {place}, which stays")
    predictions = Path("predictions", f"{new['key']}.npz")
    arrays = _predictions(source.root / predictions)
    if arrays is not None:
        write_atomically(target.root / predictions, arrays)
    write_atomically(place, content)  # last: a record that exists is done
    return Merged(str(path), "new") if old is None else Merged(str(path), "replaced", f"{place} was {_end(old)}")


def _take_study(path: Path, source: Store, target: Store) -> Merged:
    place = target.root / path.relative_to(source.root)
    new, old = _trials(path), _trials(place) if place.exists() else []
    found = next(
        (f for i, pair in enumerate(zip(old, new, strict=False)) if (f := _first(f"trials[{i}]", *pair))), None
    )
    if found is not None:
        name, there, here = found
        return Merged(str(path), "conflict", f"{name} is {here}, but {there} in {place}, which stays")
    if len(new) <= len(old):
        return Merged(str(path), "same")
    log = path.with_suffix(".log")
    if log.exists():
        write_atomically(place.with_suffix(".log"), log.read_bytes())
    write_atomically(place, path.read_bytes())
    return Merged(str(path), "replaced", f"{place} had {len(old)} trials") if old else Merged(str(path), "new")


def _trials(path: Path) -> list[dict[str, Any]]:
    """What the trials of a study's outcome must say wherever they were made."""
    try:
        outcome = json.loads(path.read_text("utf-8"))
        spec, trials = outcome["study"]["spec"], outcome["trials"]
        if digest(outcome["study"]) != path.stem or path.parts[-3:-1] != (spec["dataset"], spec["method"]):
            raise _Unreadable(f"{path} is no study of its own key, data set and method; move it away")
        return [{k: v for k, v in trial.items() if k != "seconds"} for trial in trials]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Unreadable(f"{path} cannot be read as a study ({error}); move it away and tune again") from error


def _end(record: Mapping[str, Any]) -> str:
    return f"{record['status']}: {record['error']}"


def _record(path: Path, store: Store) -> tuple[dict[str, Any], bytes]:
    """A whole record and its bytes. It must lie where a record of its spec does: its name is then safe to write to."""
    parts = path.relative_to(store.root / "runs").parts
    if len(parts) != 3 or path.suffix != ".json":
        raise _Unreadable("no record lies at such a place; move it away")
    place = dict(zip(("dataset", "method"), parts, strict=False))
    try:
        content, record = path.read_bytes(), store.get(place, path.stem) or {}
        canonical(record)
    except (BenchError, OSError) as error:
        raise _Unreadable(str(error)) from error
    except ValueError as error:
        raise _Unreadable(f"{path} has a number that is not finite; move it away and run again") from error
    missing = [name for name in COMPARED if name not in record]
    if missing:
        raise _Unreadable(f"{path} has no '{missing[0]}'; move it away and run again")
    if not isinstance(record["spec"], dict) or not place.items() <= record["spec"].items():
        raise _Unreadable(f"{path} is of another data set or method than its folders say; move it there")
    return record, content


def _predictions(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            broken = archive.testzip()
    except FileNotFoundError:
        return None
    except Exception as error:  # of many kinds, depending on which bytes are damaged
        raise _Unreadable(f"{path} cannot be read ({error}); delete it to merge the record alone") from error
    if broken:
        raise _Unreadable(f"{path}: {broken} is damaged; delete the file to merge the record alone")
    return content


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """The first thing in which two records of one run differ: its name, and both values; None if they tell the same."""
    return next((found for name in COMPARED if (found := _first(name, old[name], new[name]))), None)


def _first(name: str, old: Any, new: Any) -> tuple[str, str, str] | None:
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(f"{name}.{key}", old.get(key, NOTHING), new.get(key, NOTHING)) for key in {**old, **new}]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(f"{name}[{i}]", *both) for i, both in enumerate(zip(old, new, strict=True))]
    else:
        there, here = ("missing" if value is NOTHING else canonical(value) for value in (old, new))
        return None if there == here else (name, _short(there), _short(here))
    return next((found for pair in pairs if (found := _first(*pair))), None)


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:76]} ..."
