"""Unites the records and studies of several results folders, as the jobs of a batch queue leave them."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from bench.errors import BenchError
from bench.spec import canonical
from bench.storage.atomic import write_atomically
from bench.storage.reading import Place, Unreadable, packed, read_record
from bench.storage.records import COMPARED, Store, difference, first
from bench.storage.studies import read_study

RESULTS = ("ok", "declined", "diverged")  # the same again, wherever the run is made; other ends may be the machine's

What = Literal["new", "same", "replaced", "left", "conflict", "refused", "unreadable", "packed"]


@dataclass(frozen=True)
class Merged:
    """What became of a file, or of a line of a file of many records. ``why``: the reason where there is one to tell.

    new: copied; same: the target had it; replaced: a failure there gave way to it; left: a failure, and the target has
    the run already; conflict: the target has another result, and keeps it; refused: not fit to be published;
    unreadable: no record or study of its own, or its predictions are broken; packed: moved into its data set's file.
    """

    file: str
    what: What
    why: str = ""


def merge(sources: Sequence[Path], target: Path, pack: bool = False) -> list[Merged]:
    """Copies the records that ``target`` lacks, with their predictions, and the studies; returns what became of each
    file. pack: publish the target, with one file of records a data set; a folder that has such files stays published.

    Of a study the outcome with more trials stays, if it begins with the trials of the other. Nothing is lost: of two
    results of one run the target's stays, of a failure and a result the result. So where sources disagree the first
    decides. Doing it again changes nothing. Raises BenchError, before anything is written, if a source is missing,
    holds neither records nor studies or is the target itself; and if the target cannot be read or written.
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
    pack |= store.published
    list(store.places())  # a damaged file of many records, before anything is written
    done = [found for source in sources for found in _merge(Store(source), store, pack)]
    return [*done, *_pack(store)] if pack else done


def _merge(source: Store, target: Store, publish: bool) -> Iterator[Merged]:
    unlisted: list[OSError] = []
    for folder, take in (("runs", partial(_take, publish=publish)), ("studies", _take_study)):
        if not (source.root / folder).exists():
            continue
        tree = os.walk(source.root / folder, onerror=unlisted.append, followlinks=True)
        for path in sorted(Path(at, name) for at, _, names in tree for name in names):
            if path.name.startswith(".") or (take is _take_study and path.suffix == ".log"):
                continue  # of runs at work, or of killed ones; the log goes with its outcome
            try:
                yield from take(path, source, target)
            except Unreadable as error:
                yield Merged(str(path), "unreadable", str(error))
    for fault in unlisted:
        yield Merged(str(fault.filename), "unreadable", f"cannot be listed: {fault.strerror}")


def _places(path: Path, store: Store) -> Collection[Place]:
    """The records of a file below ``runs``."""
    match path.relative_to(store.root / "runs").parts:
        case (dataset, method, _) if path.suffix == ".json":
            return [Place(dataset, method, path.stem, str(path))]
        case (_,) if path.suffix == ".jsonl":
            return packed(path).values()
    raise Unreadable(f"{path}: no record lies at such a place; move it away")


def _take(path: Path, source: Store, target: Store, publish: bool) -> Iterator[Merged]:
    for place in _places(path, source):
        what, why = _settled(new := _record(place), target, publish)
        if what in ("new", "replaced"):
            predictions = Path("predictions", f"{place.key}.npz")
            arrays = _predictions(source.root / predictions)
            if arrays is not None:
                write_atomically(target.root / predictions, arrays)
            target.put(new)  # last: a record that exists is done
        yield Merged(str(place), what, why)


def _settled(new: Mapping[str, Any], target: Store, publish: bool) -> tuple[What, str]:
    """What becomes of a record, and why."""
    place = target.place(new["spec"], new["key"])
    if place is not None:
        old = _record(place)
        found = difference(old, new)
        if found is None:
            return "same", ""
        if new["status"] not in RESULTS:
            return "left", f"{_end(new)}; {place} stays"
        if old["status"] not in RESULTS:
            return "replaced", f"{place} was {_end(old)}"
        name, there, here = found
        return "conflict", f"{name} is {here}, but {there} in {place}, which stays"
    unfit = _unfit(new) if publish else ""
    return ("refused", unfit) if unfit else ("new", "")


def _unfit(record: Mapping[str, Any]) -> str:
    """Why a record cannot be published, and what to do; nothing if it can."""
    key = record["key"]
    if record["status"] not in RESULTS:
        return f"{key} has no result ({_end(record)}); run it again with --retry"
    if record["code"].get("dirty") is not False:
        return f"{key} is of code that is in no commit; commit it and run again (`bench show {key}` tells how)"
    return ""


def _pack(store: Store) -> Iterator[Merged]:
    """Moves records from files of their own into the file of their data set. Both at once, as a process that is killed
    between leaves them, read the same."""
    for dataset in store.sizes():
        places = sorted(store.places([dataset]), key=attrgetter("key"))
        unfit = {place: why for place in places if not place.line and (why := _unfit(_record(place)))}
        yield from (Merged(str(place), "refused", why) for place, why in unfit.items())
        kept = [place for place in places if place not in unfit]
        if not all(place.line for place in kept):
            write_atomically(store.root / "runs" / f"{dataset}.jsonl", b"".join(map(_line, kept)))
        for place in kept:
            store.path(place._asdict(), place.key).unlink(missing_ok=True)
        yield from (Merged(str(place), "packed") for place in kept if not place.line)


def _line(place: Place) -> bytes:
    """The line of a record. Entries keep their order, so that it is shown like a record in a file of its own."""
    text = json.dumps(read_record(place), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def _end(record: Mapping[str, Any]) -> str:
    return f"{record['status']}: {record['error']}"


def _take_study(path: Path, source: Store, target: Store) -> Iterator[Merged]:
    place = target.root / path.relative_to(source.root)
    new, old = _trials(path), _trials(place) if place.exists() else []
    pairs = enumerate(zip(old, new, strict=False))
    found = next((found for i, pair in pairs if (found := first(f"trials[{i}]", *pair))), None)
    if found is not None:
        name, there, here = found
        yield Merged(str(path), "conflict", f"{name} is {here}, but {there} in {place}, which stays")
        return
    if len(new) <= len(old):
        yield Merged(str(path), "same")
        return
    log = path.with_suffix(".log")
    if log.exists():
        write_atomically(place.with_suffix(".log"), log.read_bytes())
    write_atomically(place, path.read_bytes())
    yield Merged(str(path), "replaced", f"{place} had {len(old)} trials") if old else Merged(str(path), "new")


def _trials(path: Path) -> list[dict[str, Any]]:
    """What the trials of a study's outcome must say wherever they were made."""
    outcome = read_study(path)
    try:
        spec, trials = outcome["study"]["spec"], outcome["trials"]
        if path.parts[-3:-1] != (spec["dataset"], spec["method"]):
            raise Unreadable(f"{path} is of another data set or method than its folders say; move it there")
        return [{k: v for k, v in trial.items() if k != "seconds"} for trial in trials]
    except (KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"{path} cannot be read as a study ({error}); move it away and tune again") from error


def _record(place: Place) -> dict[str, Any]:
    """A whole record. It must lie where a record of its spec does: its name is then safe to write to."""
    record = read_record(place)
    try:
        canonical(record)
    except ValueError as error:
        raise place.broken("has a number that is not finite") from error
    missing = [name for name in (*COMPARED, "code") if name not in record]
    if missing:
        raise place.broken(f"has no '{missing[0]}'")
    if not {"dataset": place.dataset, "method": place.method}.items() <= record["spec"].items():
        raise Unreadable(f"{place} is of another data set or method than its folders say; move it there")
    return record


def _predictions(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            broken = archive.testzip()
    except FileNotFoundError:
        return None
    except Exception as error:  # of many kinds, depending on which bytes are damaged
        raise Unreadable(f"{path} cannot be read ({error}); delete it to merge the record alone") from error
    if broken:
        raise Unreadable(f"{path}: {broken} is damaged; delete the file to merge the record alone")
    return content
