"""Makes a folder of tables and arrays of raw files, once for each content, and finds it again by that."""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bench import api, registry
from bench.api import Dataset, Task
from bench.data import encode
from bench.data.raw import source
from bench.errors import BenchError, unknown
from bench.spec import canonical, digest
from bench.spec.settings import apply, own_settings
from bench.storage import cache
from bench.storage.atomic import sha256_of

Report = Callable[[str], None]
TABLES = ("groups", "rows", "items", "users")
_of_code = registry.remembered(sha256_of)


def configured(name: str, given: Mapping[str, Any]) -> tuple[Dataset, dict[str, Any]]:
    """Returns a data set and its resolved knobs. Raises BenchError for unknown names and bad knobs.

    Beside the data set's own knobs, ``domains`` = {"train": [...], "test": [...]} trains and selects on some values of
    its ``domain_field`` and tests on others; ``tasks`` = ["click", ...] leaves out all others.
    """
    cls = registry.load_dataset(name)
    own = {key: value for key, value in given.items() if key not in ("domains", "tasks")}
    knobs = apply(own_settings(cls), own)
    dataset = cls(**knobs)
    if given.get("domains") is not None:
        if not dataset.domain_field:
            raise BenchError(f"data set '{name}' has no domains (no device, country or tab); leave --domains out")
        knobs["domains"] = dataset.domains = given["domains"]
    if given.get("tasks") is not None:
        wanted = given["tasks"]
        if not isinstance(wanted, list) or not wanted or not all(isinstance(task, str) for task in wanted):
            raise BenchError(
                f'knob \'tasks\' must be a list of names such as ["click", "rec"], got {json.dumps(wanted)}'
            )
        knobs["tasks"] = sorted(set(wanted))
    return dataset, knobs


def prepare(
    name: str, given: Mapping[str, Any] | None = None, folder: Path | None = None, report: Report = lambda text: None
) -> Path:
    """Fetches, builds and encodes a data set unless that has been done; returns its folder.

    The folder is found by what decides its content: version, knobs, raw files and the code that makes it. ``report`` is
    told what begins, and at the end how fast it went.
    """
    dataset, knobs = configured(name, given or {})
    with cache.only_one(f"prepare-{name}"):
        return _prepared(dataset, name, knobs, folder, report)


def _prepared(dataset: Dataset, name: str, knobs: dict[str, Any], folder: Path | None, report: Report) -> Path:
    report(f"preparing {name}: getting the files")
    raw = source.fetch(dataset.sources, cache.root() / "raw" / name, folder) if dataset.sources else {}
    made_of: dict[str, Any] = {
        "version": dataset.version,
        "knobs": knobs,
        "raw": {key: sha256_of(path) for key, path in sorted(raw.items())},
        "code": code_digest(type(dataset)),
    }
    target = cache.root() / "data" / name / digest(made_of)
    if not (target / "meta.json").exists():
        start, need = time.perf_counter(), _space(name, raw, target)
        report(f"preparing {name}: building tables from {need / 1e9:.2f} GB of raw files, on about as much disk")
        dataset.report_share = lambda share: report(f"preparing {name}: building tables, {share:.0%} done")
        with cache.new_folder(target) as made:
            tables = _built(dataset, name, raw)
            if "tasks" in knobs:
                dataset.tasks = _only(dataset.tasks, knobs["tasks"])
            rows = tables.rows.height
            report(f"preparing {name}: encoding {rows:,} rows in {tables.groups.height:,} groups")
            _write(dataset, name, knobs, made_of, tables, made)
        seconds = time.perf_counter() - start
        report(f"prepared {name}: {rows:,} rows in {seconds:.1f} s, {rows / seconds:,.0f} rows/s")
    return target


def _only(tasks: tuple[Task, ...], wanted: list[str]) -> tuple[Task, ...]:
    """The wanted tasks in the data set's order. Raises BenchError for one that it does not have."""
    known = [task.name for task in tasks]
    for name in wanted:
        if name not in known:
            raise unknown("task", name, known)
    return tuple(task for task in tasks if task.name in wanted)


def _space(name: str, raw: Mapping[str, Path], target: Path) -> int:
    """Bytes of the raw files. Raises BenchError if the disk cannot hold as much again."""
    need = sum(path.stat().st_size for path in raw.values())
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if need > free:
        raise BenchError(
            f"data set '{name}' takes about {need / 1e9:.1f} GB in {target.parent}, with {free / 1e9:.1f} GB free; "
            "free some, or set BENCH_CACHE to another disk"
        )
    return need


def _built(dataset: Dataset, name: str, raw: Mapping[str, Path]) -> api.Tables:
    try:
        return dataset.build(raw)
    except pl.exceptions.PanicException as error:  # polars gives up on some damaged files without saying which
        files = ", ".join(str(path) for path in raw.values())
        raise BenchError(f"data set '{name}': one of these files is damaged: {files}; fetch them again") from error


def content_hash(folder: Path) -> str:
    """Returns the sha256 over every array and text of a prepared folder."""
    total = hashlib.sha256()
    for path in [*sorted((folder / "arrays").rglob("*.npy")), folder / "texts.json"]:
        total.update(path.relative_to(folder).as_posix().encode())
        total.update(sha256_of(path).encode())
    return total.hexdigest()


def code_digest(cls: type[Dataset]) -> str:
    """Returns a digest of the source files that decide what a data set becomes.

    They are those of its class and its ancestors, the contract among them, of this room, and what data sets share.
    """
    own = {Path(inspect.getfile(c)) for c in cls.__mro__ if c is not object}
    rooms = Path(__file__).parent, Path(__file__).parents[1] / "datasets" / "logs"
    files = own.union(*(room.rglob(kind) for room in rooms for kind in ("*.py", "*.yaml")))
    return digest([_of_code(file) for file in sorted(files)])


def _write(
    dataset: Dataset, name: str, knobs: dict[str, Any], made_of: dict[str, Any], tables: api.Tables, folder: Path
) -> None:
    try:
        encoded = encode.encode(dataset, tables)
    except BenchError as error:
        raise BenchError(f"data set '{name}': {error}") from error
    (folder / "tables").mkdir()
    for table in TABLES:
        getattr(tables, table).write_parquet(folder / "tables" / f"{table}.parquet")
    for key, array in encoded.arrays.items():
        path = folder / "arrays" / f"{key}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.ascontiguousarray(array))
    (folder / "texts.json").write_text(json.dumps(encoded.texts, ensure_ascii=False), "utf-8")
    meta = {
        "dataset": name,
        "made_of": made_of,
        "knobs": knobs,
        "sha256": content_hash(folder),
        "parts": encoded.parts,
        "purged": encoded.purged,
        "schema": {
            "tasks": [asdict(t) for t in dataset.tasks],
            "fields": [asdict(f) for f in dataset.fields],
            "cardinality": encoded.cardinality,
            "history": dataset.history,
        },
    }
    (folder / "meta.json").write_text(json.dumps(json.loads(canonical(meta)), indent=1, ensure_ascii=False), "utf-8")
