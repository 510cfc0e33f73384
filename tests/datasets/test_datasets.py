"""Every registered data set, from files in its official format to a record, and the faults common to all readers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from bench import registry
from bench.api import Dataset
from bench.data import encode, prepare
from bench.data.describe import info, verify
from bench.data.load import Data, load
from bench.data.raw.source import fetch
from bench.data.split import PARTS, assign
from bench.errors import BenchError
from bench.execution.run import run
from bench.suites.specify import specify
from bench.training import contract
from tests.support.files import NAMES, WRITTEN, contents, write, writer

SMALL = {
    "sim-news": contract.SMALL,
    "sim-shop": contract.SMALL,
    "sim-video": contract.SMALL,
    "mmoe-synthetic": {"rows": 600},
}
# Of variants whose files differ by no more than their names, one.
NAMESAKES = ("aliexpress-[eu]s", "amazon-2023-[!a]*", "eb-nerd-[!d]*", "mind-large", "movielens-32m")
FORMATS = [n for n in WRITTEN if not any(fnmatch(n, pattern) for pattern in NAMESAKES)]


def named(patterns: Mapping[str, str], file: Path) -> str:
    """What the first pattern that a file's name matches stands for; empty if none does."""
    return next((column for pattern, column in patterns.items() if file.match(pattern)), "")


def prepared(name: str, folder: Path) -> Path:
    return prepare.prepare(name, SMALL.get(name), write(name, folder) if name in WRITTEN else None)


def verified(name: str, data: Data) -> Dataset:
    dataset, _ = prepare.configured(name, SMALL.get(name, {}))
    assert [f"{title}: {problem}" for title, problem in verify(dataset, data) if problem] == []
    assert set(PARTS) <= set(data.meta["parts"])
    return dataset


def test_every_data_set_with_files_brings_some() -> None:
    """From ``tests/support/formats``, or from a function ``sample(folder, variant)`` in the data set's own file."""
    assert not {n for n in NAMES if n not in WRITTEN and registry.load_dataset(n).sources}


@pytest.mark.parametrize("name", [*FORMATS, *SMALL])
def test_from_raw_files_to_a_record(name: str, tmp_path: Path) -> None:
    folder = prepared(name, tmp_path / "raw")
    data = load(folder)
    dataset = verified(name, data)
    found = info(name, dataset, data)
    assert all(found[key] for key in ("domain", "about", "licence", "citation"))
    json.dumps(found, allow_nan=False)
    spec = specify(name, "shared_bottom", knobs=SMALL.get(name), budget={"epochs": 1, "patience": 1})
    record, predictions = run(spec, load(folder), device=torch.device("cpu"))
    assert record["status"] == "ok", record["error"]
    assert set(predictions) == {t.name for t in data.schema.tasks}
    for task in data.schema.tasks:
        for part in ("valid", "test"):
            assert record["metrics"][part][task.name][task.metrics[0]] is not None, (
                f"{task.name} is undefined in {part}"
            )


@pytest.mark.parametrize("name", [n for n in WRITTEN if n not in FORMATS])
def test_namesakes_are_prepared_too(name: str, tmp_path: Path) -> None:
    verified(name, load(prepared(name, tmp_path)))


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_of_later_parts_reaches_the_training_part(name: str, tmp_path: Path) -> None:
    """Other labels and pair features in validation and test leave every training array and code as it was."""
    write(name, tmp_path / "raw")
    dataset, _ = prepare.configured(name, {})
    tables = dataset.build(fetch(dataset.sources, tmp_path / "into", tmp_path / "raw"))
    first = encode.encode(dataset, tables)
    groups, _ = encode._ordered(tables)
    part = assign(groups, groups["rows"].to_numpy(), dataset.split)
    late = pl.col("group").is_in(groups["group"].filter(part != "train").implode())
    columns = [t.name for t in dataset.tasks if t.scope == "pair"] + [
        f.name for f in dataset.fields if f.side == "pair"
    ]
    tables.rows = tables.rows.with_columns(
        pl.when(late).then(pl.col(c).reverse()).otherwise(c).alias(c) for c in columns
    )
    second = encode.encode(dataset, tables)
    assert first.cardinality == second.cardinality
    changed = 0
    for key, array in first.arrays.items():
        same = np.array_equal(array, second.arrays[key], equal_nan=array.dtype.kind == "f")
        assert same or not key.startswith(("train/", "items/")), key
        changed += not same
    assert changed  # the later parts did change


def mixed_encoding(path: Path) -> None:
    whole = path.read_bytes()
    middle = whole.index(b"\n", len(whole) // 2) + 1
    path.write_bytes(whole[:middle] + b"\xff\xfe\x80" + whole[middle:])


def other_separator(path: Path) -> None:
    table = bytes.maketrans(b",\t|\x01", b";;;;")
    path.write_bytes(path.read_bytes().replace(b"::", b";").translate(table))


def not_numbers(path: Path) -> None:
    digits = bytes.maketrans(b"0123456789", b"abcdefghij")
    first, newline, rest = path.read_bytes().partition(b"\n")
    path.write_bytes(first + newline + rest.translate(digits))


FAULTS: dict[str, Callable[[Path], None]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: max(1, path.stat().st_size * 2 // 5)]),
    "binary": lambda path: path.write_bytes(b"\xff\xfe\x00\x80" * 100),
    "mixed encoding": mixed_encoding,
    "other separator": other_separator,
    "no numbers": not_numbers,
}
# A text may hold anything, and a latin-1 file any byte; what is read as a stream may lose its last lines unseen.
TOLERABLE = ("truncated", "missing", "mixed encoding", "other separator", "no numbers")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_one_clear_line(name: str, fault: str, tmp_path: Path) -> None:
    folder = write(name, tmp_path)
    refused = 0
    for file, whole in contents(name).items():
        FAULTS[fault](folder / file)
        try:
            prepare.prepare(name, None, folder)
        except BenchError as error:
            refused += 1
            assert "\n" not in str(error)
            blamed = contents(name) if fault == "truncated" else [file]  # what a cut file lacks, another may ask for
            assert any(f.name in str(error) for f in blamed) or fault == "missing", f"{file}: {error}"
        else:
            assert fault in TOLERABLE, f"{file} {fault}: accepted"
            print(f"{name}: {file} {fault}: accepted")
        (folder / file).write_bytes(whole)
    assert refused, "no damaged file was refused"
    assert prepare.prepare(name, None, folder).is_dir()  # the next correct run works


def drop_column(path: Path, key: str) -> None:
    """A JSON file without a key (unnamed: its first), any other without its first column, in header and lines."""
    if path.suffix == ".parquet":
        table = pl.read_parquet(path)
        table.drop(table.columns[0]).write_parquet(path)
        return
    lines = path.read_bytes().splitlines(keepends=True)
    if lines[0].startswith(b"{"):
        rows = [json.loads(line) for line in lines]
        rows = [{k: v for k, v in row.items() if k != (key or next(iter(row)))} for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    else:
        path.write_bytes(b"".join(re.split(rb"::|[,\t|]", line, maxsplit=1)[-1] for line in lines))


def repeat_key(path: Path, key: str) -> str:
    """Adds the last line again, under the key of another line, which is returned.

    In JSON and parquet the key is the one named, elsewhere the first cell.
    """
    if path.suffix == ".parquet":
        table = pl.read_parquet(path)
        pl.concat([table, table.tail(1).with_columns(table[key].head(1))]).write_parquet(path)
        return str(table[key][0])
    *others, last = path.read_bytes().splitlines(keepends=True)
    if last.startswith(b"{"):
        value = json.loads(others[0])[key]
        added = json.dumps({**json.loads(last), key: value}).encode() + b"\n"
    else:
        cut = [re.match(rb"(.*?)((?:::|[,\t|]).*)", line, re.DOTALL) for line in (*others[1:], last)]
        *earlier, (own, content) = [m.groups() for m in cut if m]
        value = next(k for k, other in reversed(earlier) if k != own and other != content).decode()
        added = value.encode() + content
    path.write_bytes(path.read_bytes() + added)
    return value


@pytest.mark.parametrize("name", FORMATS)
def test_a_missing_column_is_refused(name: str, tmp_path: Path) -> None:
    needed = {**getattr(writer(name), "KEYS", {}), **getattr(writer(name), "NEEDED", {})}
    folder = write(name, tmp_path)
    for file, whole in contents(name).items():
        drop_column(folder / file, named(needed, file))
        with pytest.raises(BenchError) as caught:
            prepare.prepare(name, None, folder)
        assert file.name in str(caught.value) and "\n" not in str(caught.value), file
        (folder / file).write_bytes(whole)


@pytest.mark.parametrize("name", [n for n in FORMATS if hasattr(writer(n), "KEYS")])
def test_one_key_with_two_contents_is_refused_or_the_first_counts(name: str, tmp_path: Path) -> None:
    keys = writer(name).KEYS
    first_counts = getattr(writer(name), "FIRST_COUNTS", ())
    intact, folder = (write(name, tmp_path / kind) for kind in ("intact", "broken"))
    files = [file for file in contents(name) if named(keys, file)]
    assert files
    for file in files:
        value = repeat_key(folder / file, named(keys, file))
        if any(file.match(pattern) for pattern in first_counts):
            found, whole = (load(prepare.prepare(name, None, f)).meta["sha256"] for f in (folder, intact))
            assert found == whole, file
        else:
            with pytest.raises(BenchError) as caught:
                prepare.prepare(name, None, folder)
            assert "\n" not in str(caught.value)
            assert re.search(rf"{re.escape(file.name)}.*\b{re.escape(value)}\b", str(caught.value)), caught.value
        write(name, folder)


@pytest.mark.slow
def test_split_hashes_do_not_depend_on_the_hash_seed(tmp_path: Path) -> None:
    code = (
        "import sys, json; from pathlib import Path; from bench.data.prepare import prepare\n"
        "print(json.dumps([str(prepare(n, k, f and Path(f))) for n, k, f in json.loads(sys.argv[1])]))"
    )
    places = [(n, SMALL.get(n), str(write(n, tmp_path / n)) if n in FORMATS else None) for n in (*FORMATS, *SMALL)]
    env = {"PYTHONHASHSEED": "2", "BENCH_CACHE": str(tmp_path / "cache"), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(places)], env=env, capture_output=True, text=True, check=True
    )
    for (name, knobs, folder), there in zip(places, json.loads(done.stdout), strict=True):
        here = prepare.prepare(name, knobs, Path(folder) if folder else None)
        assert load(here).meta["sha256"] == load(Path(there)).meta["sha256"], name
