"""Census-Income from hand-made files: labels, inputs, the halved test file, and bad lines."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from bench import registry
from bench.api import Tables
from bench.data import encode, prepare
from bench.data.describe import verify
from bench.data.load import load
from bench.data.raw import source
from bench.datasets.census_income import COLUMNS, ENCODED, FILES, HEADER, NUMERICAL, CensusIncome
from bench.errors import BenchError
from tests.support.formats import census_income as layout

SAMPLE = registry.ROOT.parent / "shared/samples/census_income_train_sample.csv"
TABLES = ("groups", "rows", "items", "users")


def line(changes: Mapping[int, str] | None = None) -> str:
    """A person aged 40; ``changes`` by column, counted from 0. The separator is a comma and a space."""
    values = ["40", *(f"v{i}" for i in range(1, 42))]
    for place in (5, 16, 17, 18, 30, 39):
        values[place] = "0"
    values[24], values[7], values[41] = "1700.09", "Divorced", "- 50000."
    for place, value in (changes or {}).items():
        values[place] = value
    return ", ".join(values)


def write(folder: Path, train: list[str], test: list[str], end: str = "\n") -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    for name, lines in zip(FILES, (train, test), strict=True):
        (folder / name).write_bytes("".join(text + end for text in lines).encode())
    return {name: folder / name for name in FILES}


def small(folder: Path) -> dict[str, Path]:
    train = [line(), line({7: "Never married", 0: "9"}), line({41: "50000+.", 5: "1250", 6: "?", 18: "30"})]
    return write(folder, train, [line({2: "7"}), line({7: "Married-A F spouse present", 41: "50000+."})])


def test_labels_and_inputs_by_hand(tmp_path: Path) -> None:
    tables = CensusIncome().build(small(tmp_path))
    assert tables.rows.select("group", "item", "income", "never_married").rows() == [
        (0, 0, 0, 0), (1, 0, 0, 1), (2, 0, 1, 0), (3, 0, 0, 0), (4, 0, 1, 0),
    ]  # fmt: skip
    columns = ("user", "age", "wage_per_hour", "enrolled_in_edu_inst_last_wk", "dividends_from_stocks", "industry_code")
    assert tables.users.select(columns).rows() == [
        (0, 40.0, 0.0, "v6", 0.0, "v2"),
        (1, 9.0, 0.0, "v6", 0.0, "v2"),
        (2, 40.0, 1250.0, None, 30.0, "v2"),  # "?" is missing
        (3, 40.0, 0.0, "v6", 0.0, "7"),  # a code is not a number
        (4, 40.0, 0.0, "v6", 0.0, "v2"),
    ]
    assert tables.items.rows() == [(0, "")]
    assert tables.groups.select("group", "user").rows() == [(i, i) for i in range(5)]


def test_columns_are_the_published_ones_without_labels_and_weight() -> None:
    names = [f.name for f in CensusIncome.fields]
    assert len(COLUMNS) == 42 and COLUMNS.index("marital_status") == 7 and COLUMNS.index("instance_weight") == 24
    assert names == [c for c in COLUMNS if c not in ("marital_status", "instance_weight", "income")]
    assert sum(f.kind == "numerical" for f in CensusIncome.fields) == len(NUMERICAL) == 7
    assert not set(names) & set(CensusIncome.forbidden)


def test_the_test_file_is_halved_at_random_not_in_order(tmp_path: Path) -> None:
    tables = CensusIncome().build(write(tmp_path, [line()] * 3, [line({0: str(i)}) for i in range(11)]))
    assert tables.groups["time"].to_list()[:3] == [0, 0, 0]
    assert tables.groups["time"].to_list()[3:] == [2, 1, 1, 2, 1, 2, 1, 1, 2, 2, 2]  # rounded down: five validate
    layout.write(tmp_path / "more")
    counts = CensusIncome().build(files(tmp_path / "more")).groups["time"].value_counts().sort("time")
    assert counts.rows() == [(0, 240), (1, 80), (2, 80)]


def files(folder: Path) -> dict[str, Path]:
    return {name: folder / name for name in FILES}


def test_other_line_ends_a_mark_in_front_and_compressed_files_give_the_same(tmp_path: Path) -> None:
    expected = CensusIncome().build(small(tmp_path / "plain"))
    text = {name: path.read_bytes() for name, path in files(tmp_path / "plain").items()}
    (tmp_path / "dos").mkdir()
    (tmp_path / "packed").mkdir()
    for name, content in text.items():
        (tmp_path / "dos" / name).write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"))
        (tmp_path / "packed" / f"{name}.gz").write_bytes(gzip.compress(content))
    packed = source.fetch(CensusIncome.sources, tmp_path / "into", tmp_path / "packed")
    for found in (CensusIncome().build(files(tmp_path / "dos")), CensusIncome().build(packed)):
        for name in TABLES:
            assert_frame_equal(getattr(found, name), getattr(expected, name))


def test_without_files_the_error_says_where_they_are(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"download census-income\.data\.gz and census-income\.test\.gz from https://"):
        source.fetch(CensusIncome.sources, tmp_path / "into")


def test_the_format_and_that_the_test_file_leaves_the_training_arrays_alone(tmp_path: Path) -> None:
    layout.write(tmp_path)
    dataset = CensusIncome()
    before = encode.encode(dataset, dataset.build(files(tmp_path)))
    path = tmp_path / FILES[1]
    path.write_text("".join(line({0: "99", 2: f"{i}", 41: "50000+."}) + "\n" for i in range(30)))
    after = encode.encode(dataset, dataset.build(files(tmp_path)))
    assert before.cardinality == after.cardinality
    for key in before.arrays:
        if key.startswith("train/"):
            assert np.array_equal(before.arrays[key], after.arrays[key]), key
    assert (after.arrays["test/user_cat"][:, 1] == 0).sum() < 15  # some codes of industry are known, others are 0
    assert before.arrays["train/user_num"].mean(axis=0) == pytest.approx(np.zeros(7), abs=1e-6)


def test_labels_are_those_of_the_lines(tmp_path: Path) -> None:
    """Oracle: the lines taken apart with nothing but str."""
    layout.write(tmp_path)
    tables: Tables = CensusIncome().build(files(tmp_path))
    cells = [row.split(",") for name in FILES for row in (tmp_path / name).read_text().splitlines()]
    assert tables.rows["income"].to_list() == [int(c[41] == " 50000+.") for c in cells]
    assert tables.rows["never_married"].to_list() == [int(c[7] == " Never married") for c in cells]
    assert tables.users["age"].to_list() == [float(c[0]) for c in cells]
    assert tables.users["year"].to_list() == [c[40].strip() for c in cells]
    missing = [c[33].strip() == "?" for c in cells]
    assert tables.users.select(pl.col("country_of_birth_mother").is_null()).to_series().to_list() == missing


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({0: "old"}, "line 2: age 'old' is not a number of at least 0"),
        ({0: "-1"}, "line 2: age '-1' is not a number"),
        ({5: "?"}, "line 2: wage_per_hour '?' is not a number"),
        ({39: ""}, "line 2: weeks_worked_in_year '' is not a number"),
        ({18: "inf"}, "line 2: dividends_from_stocks 'inf' is not a number"),
        ({41: "50000"}, "line 2: income '50000' is none of - 50000., 50000+."),
        ({7: "?"}, "line 2: marital_status '?' is no marital status"),
        ({3: "a, b"}, "line 2: 43 columns instead of 42"),
    ],
)
def test_bad_values_are_named(tmp_path: Path, changes: dict[int, str], message: str) -> None:
    raw = write(tmp_path, [line(), line(changes), line()], [line()])
    fails(raw, f"{raw[FILES[0]]}, {message}")


@pytest.mark.parametrize("name", FILES)
def test_damaged_files(tmp_path: Path, name: str) -> None:
    raw = small(tmp_path)
    whole = raw[name].read_bytes()
    lines = whole.count(b"\n")
    raw[name].write_bytes(whole[:-3])
    fails(raw, f"{raw[name]}, line {lines}: income")
    raw[name].write_bytes(whole[:-60])
    fails(raw, f"{raw[name]}, line {lines}: ", "columns instead of 42")
    raw[name].write_bytes(b"")
    fails(raw, f"{raw[name]}: holds no rows")
    raw[name].write_bytes(b"\xff\xfe\x00" * 50)
    fails(raw, f"{raw[name]}, line 1: 1 columns")
    raw[name].write_bytes(line({3: "café"}).encode("latin-1") + b"\n")
    fails(raw, f"{raw[name]}: not a readable text file")


def build(raw: dict[str, Path]) -> Tables:
    return CensusIncome().build(raw)


def fails(raw: Any, *parts: str, build: Callable[[Any], Tables] = build) -> None:
    with pytest.raises(BenchError) as caught:
        build(raw)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def build_encoded(folder: Path) -> Tables:
    return CensusIncome().build(source.fetch(CensusIncome.sources, folder / "into", folder))


def test_encoded_files_tell_the_same_people(tmp_path: Path) -> None:
    """Labels are equal, codes stand for values one to one, and numbers are scaled."""
    layout.encoded(tmp_path)
    found = build_encoded(tmp_path)
    expected = CensusIncome().build(files(tmp_path / "published"))
    order = [*range(240), *range(240, 400, 2), *range(241, 400, 2)]
    assert found.groups["time"].to_list() == [0] * 240 + [1] * 80 + [2] * 80
    for label in ("income", "never_married"):
        assert found.rows[label].to_list() == expected.rows[label][order].to_list()
    for field in CensusIncome.fields:
        ours, theirs = found.users[field.name], expected.users[field.name][order]
        if field.kind == "numerical":
            scaled = (theirs - theirs.min()) / (theirs.max() - theirs.min())  # type: ignore[operator]
            assert ours.to_list() == pytest.approx(scaled.to_list(), abs=1e-4)
        else:
            assert ours.dtype == pl.String and not ours.has_nulls()
            pairs = set(zip(ours, theirs, strict=True))
            assert len(pairs) == ours.n_unique() == theirs.n_unique(), field.name
    assert (found.items.rows(), found.groups["user"].to_list()) == ([(0, "")], list(range(400)))


def test_encoded_files_make_a_data_set_without_leaks(tmp_path: Path) -> None:
    layout.encoded(tmp_path)
    data = load(prepare.prepare("census-income", None, tmp_path))
    assert [problem for _, problem in verify(CensusIncome(), data) if problem] == []


def test_the_published_files_come_before_encoded_ones(tmp_path: Path) -> None:
    layout.encoded(tmp_path)
    layout.write(tmp_path)
    assert set(source.fetch(CensusIncome.sources, tmp_path / "into", tmp_path)) == set(FILES)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("income", "2", "line 3: income '2' is not 0 or 1"),
        ("marital status", "Widowed", "line 3: marital status 'Widowed' is not 0 or 1"),
        ("divdends from stocks", "", "line 3: divdends from stocks '' is not a number of at least 0"),
        ("migration code-change in msa", "?", "line 3: migration code-change in msa '?' is not a whole number"),
    ],
)
def test_bad_encoded_values_are_named(tmp_path: Path, column: str, value: str, message: str) -> None:
    layout.encoded(tmp_path)
    path = tmp_path / ENCODED[1]
    lines = path.read_text().split("\n")
    cells = lines[2].split(",")
    cells[layout.HEADER.split(",").index(column)] = value
    path.write_text("\n".join([*lines[:2], ",".join(cells), *lines[3:]]))
    fails(tmp_path, f"{path}, {message}", build=build_encoded)
    path.write_text("\n".join(lines).replace(column, "other", 1))
    fails(tmp_path, f"{path}, line 1: no column '{column}'", build=build_encoded)


@pytest.mark.parametrize("name", ENCODED)
def test_damaged_encoded_files(tmp_path: Path, name: str) -> None:
    layout.encoded(tmp_path)
    path = tmp_path / name
    whole = path.read_bytes()
    for damaged in (b"", whole[:-1], whole[: whole.index(b"\n") + 1], b"\xff\xfe\x00\x80" * 100):
        path.write_bytes(damaged)
        fails(tmp_path, str(path), build=build_encoded)


@pytest.mark.skipif(not SAMPLE.is_file(), reason="the sample files are not here")
def test_the_encoded_sample_is_readable(tmp_path: Path) -> None:
    head, *lines = SAMPLE.read_text("utf-8").splitlines()
    assert head == layout.HEADER and sorted(HEADER.values()) == sorted(head.split(","))
    for name, chosen in zip(ENCODED, (lines[:48], lines[48:64], lines[64:]), strict=True):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in (head, *chosen)), "utf-8")
    tables = build_encoded(tmp_path)
    cells = [dict(zip(head.split(","), line.split(","), strict=True)) for line in lines]
    assert tables.rows["income"].to_list() == [int(c["income"]) for c in cells]
    assert tables.rows["never_married"].to_list() == [int(c["marital status"]) for c in cells]
    assert tables.users["dividends_from_stocks"].to_list() == [float(c["divdends from stocks"]) for c in cells]
    assert tables.users["education"].to_list() == [c["education"] for c in cells]
    assert tables.groups["time"].to_list() == [0] * 48 + [1] * 16 + [2] * 16
    encode.encode(CensusIncome(), tables)
