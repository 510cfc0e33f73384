"""AliExpress from hand-made files in the raw and the processed layout: columns, labels, parts, and bad lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from bench import registry
from bench.api import Tables
from bench.data import encode
from bench.data.raw import source
from bench.datasets.aliexpress import AliExpress
from bench.errors import BenchError
from tests.support.formats import aliexpress as layout

TABLES = ("groups", "rows", "items", "users")
SAMPLES = registry.ROOT.parent / "shared/samples"
USER_LINE = ",".join(str(c) if c < 9 or c > 31 else f"{c}.5" for c in range(2, 34))
ITEM_LINE = ",".join(str(c) if c in (19, 34, 35, 36, 40, 41, 42) else f"{c}.25" for c in range(2, 49))


def country(name: str = "nl") -> AliExpress:
    found: AliExpress = type("OneCountry", (AliExpress,), {"variant": name})()
    return found


def fetch(folder: Path, name: str = "nl") -> dict[str, Path]:
    return source.fetch(country(name).sources, folder / "into", folder)


def build(folder: Path, name: str = "nl") -> Tables:
    return country(name).build(fetch(folder, name))


def by_hand(folder: Path, results: dict[str, list[tuple[int, int]]], users: dict[str, list[int]] | None = None) -> None:
    """Raw files whose values are their column numbers. results: part -> (search id, label)."""
    folder.mkdir(exist_ok=True)
    for part, shown in results.items():
        ids = sorted({i for i, _ in shown}, reverse=True) if users is None else users[part]
        (folder / f"nl_user_{part}.csv").write_text("".join(f"{i},{USER_LINE}\n" for i in ids))
        (folder / f"nl_item_{part}.csv").write_text("".join(f"{i},{ITEM_LINE},{label}\n" for i, label in shown))


TRAIN = [(7, 0), (3, 2), (7, 1), (3, 0), (7, 0)]


def test_labels_by_hand(tmp_path: Path) -> None:
    by_hand(tmp_path, {"train": TRAIN, "test": [(7, 0), (7, 2)]})
    tables = build(tmp_path)
    # Search 7 of the test file is another search than 7 of the training file; results keep their order.
    assert tables.groups.select("group", "user", "time").rows() == [(0, 0, 0), (1, 1, 0), (2, 2, 2)]
    assert tables.rows.select("group", "click", "ctcvr", "cvr", "rec", "rank").rows() == [
        (1, 0, 0, None, 0, 0.0),
        (0, 1, 1, 1, 1, 1.0),
        (1, 1, 0, 0, 1, 0.5),
        (0, 0, 0, None, 0, 0.0),
        (1, 0, 0, None, 0, 0.0),
        (2, 0, 0, None, 0, 0.0),
        (2, 1, 1, 1, 1, 1.0),
    ]
    assert tables.items.rows() == [(0, "")] and tables.rows["item"].unique().to_list() == [0]


def test_columns_have_their_processed_names(tmp_path: Path) -> None:
    by_hand(tmp_path, {"train": TRAIN, "test": [(7, 0)]})
    tables = build(tmp_path)
    both = tables.groups.head(1).hstack(tables.rows.head(1).drop("group", "item"))
    found = [both[f"categorical_{i}"][0] for i in range(1, 17)]
    assert found == [2, 3, 4, 5, 6, 7, 8, 32, 33, 19, 34, 35, 36, 40, 41, 42]
    found = [both[f"numerical_{i}"][0] for i in range(1, 64)]
    item = [c for c in range(2, 49) if c not in (19, 34, 35, 36, 40, 41, 42)]
    assert found == [c + 0.5 for c in range(9, 32)] + [c + 0.25 for c in item]
    sides = {side: [f.name for f in AliExpress.fields if f.side == side] for side in ("user", "item", "pair")}
    assert len(sides["user"]) == 32 and not sides["item"] and len(sides["pair"]) == 47
    assert set(sides["user"]) <= set(tables.groups.columns) and set(sides["pair"]) <= set(tables.rows.columns)
    assert not {f.name for f in AliExpress.fields} & set(AliExpress.forbidden)


def test_raw_zipped_and_processed_files_give_the_same_tables(tmp_path: Path) -> None:
    layout.raw(tmp_path / "raw", "es")
    layout.raw(tmp_path / "zips" / "aliexpress_ES_datasets", "es", zipped=True)
    layout.processed(tmp_path / "processed")
    expected = build(tmp_path / "raw", "es")
    for other in ("zips", "processed"):
        found = build(tmp_path / other, "es")
        for name in TABLES:
            assert_frame_equal(getattr(found, name), getattr(expected, name))


def test_zips_leave_nothing_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    layout.raw(tmp_path / "zips", "nl", zipped=True)
    build(tmp_path / "zips")
    assert list((tmp_path / "cache").iterdir()) == []


def test_validation_is_the_tenth_of_the_training_searches_with_the_highest_ids(tmp_path: Path) -> None:
    ids = [5, 90, 17, 33, 2, 8, 41, 100, 29, 60, 12, 55, 71, 1, 9, 84, 3, 30, 22, 48]
    by_hand(tmp_path, {"train": [(i, 0) for i in ids for _ in range(i % 3 + 1)], "test": [(1, 1)]})
    tables = build(tmp_path)
    assert tables.groups["time"].to_list() == [0] * 18 + [1, 1] + [2]
    rows = tables.rows.group_by("group").len().sort("group")["len"].to_list()
    assert rows == [i % 3 + 1 for i in sorted(ids)] + [1]
    assert rows[18:20] == [90 % 3 + 1, 100 % 3 + 1]


def test_what_lacks_its_other_side_is_dropped(tmp_path: Path) -> None:
    shown = [(i, 0) for i in range(10)]
    users = {"train": [*range(1, 10), 11, 12, 4], "test": [5]}  # 0 lacks its user; 11 and 12 were never shown; 4 twice
    by_hand(tmp_path, {"train": shown, "test": [(5, 1), (6, 1)]}, users)
    tables = build(tmp_path)
    assert tables.groups["time"].to_list() == [0] * 8 + [1, 2]  # 9, not 11 or 12, is the highest id
    assert tables.rows["group"].to_list() == list(range(10))


def test_results_that_look_the_same_are_kept_and_empty_cells_are_missing(tmp_path: Path) -> None:
    by_hand(tmp_path, {"train": [(1, 0), (1, 0), (2, 1)], "test": [(1, 1)]})
    path = tmp_path / "nl_item_train.csv"
    lines = path.read_text().split("\n")
    lines[2] = lines[2].replace(",5.25,", ",,").replace(",34,", ",,")
    path.write_text("\n".join(lines))
    rows = build(tmp_path).rows
    assert rows["group"].to_list() == [0, 0, 1, 2]
    assert rows["numerical_27"].to_list() == [5.25, 5.25, None, 5.25]  # item column 5
    assert rows["categorical_11"].to_list() == [34, 34, None, 34]


def test_the_test_files_leave_the_training_arrays_alone(tmp_path: Path) -> None:
    layout.raw(tmp_path, "nl")
    before = encode.encode(country(), build(tmp_path))
    by_hand(tmp_path, {"test": [(i, i % 3) for i in range(12)]})
    after = encode.encode(country(), build(tmp_path))
    assert before.cardinality == after.cardinality
    assert before.parts["train"] == after.parts["train"] and before.parts["test"] != after.parts["test"]
    for key in before.arrays:
        if key.startswith(("train/", "valid/")) and key != "valid/user":
            assert np.array_equal(before.arrays[key], after.arrays[key], equal_nan=True), key


@pytest.mark.parametrize("name", AliExpress.variants)
def test_each_country_has_its_own_files(tmp_path: Path, name: str) -> None:
    raw, zips, processed = country(name).sources
    assert set(raw.published) == set(zips.published)
    assert sorted(raw.published) == [f"{name}_{s}_{p}.csv" for s in ("item", "user") for p in ("test", "train")]
    assert list(processed.published) == ["train.csv", "test.csv"]
    tmp_path.joinpath("train.csv").touch()
    with pytest.raises(BenchError, match=f"lacks {name}_user_train.csv, .*or else test.csv"):
        fetch(tmp_path, name)
    with pytest.raises(BenchError, match=f"get aliexpress_{name.upper()}_datasets.zip from https://tianchi"):
        source.fetch(country(name).sources, tmp_path / "into")


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample files are not here")
def test_real_samples_are_readable() -> None:
    tables = country().build({f"{p}.csv": SAMPLES / f"aliexpress_{p}_sample.csv" for p in ("train", "test")})
    assert (tables.groups.height, tables.rows.height) == (41 + 10, 120)
    assert tables.rows.select(pl.sum("click", "ctcvr")).row(0) == (70, 4)
    first = pl.read_csv(SAMPLES / "aliexpress_train_sample.csv").row(0, named=True)
    row = tables.rows.row(0, named=True)
    assert row["numerical_24"] == pytest.approx(first["numerical_24"]) and row["click"] == first["click"]
    encode.encode(country(), tables)


def replace(path: Path, line: int, place: int, value: str) -> None:
    lines = path.read_text().split("\n")
    cells = lines[line - 1].split(",")
    cells[place] = value
    lines[line - 1] = ",".join(cells)
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("file", "line", "place", "value", "message"),
    [
        ("nl_user_train.csv", 2, 0, "x7", "line 2: search_id 'x7' is not a number"),
        ("nl_user_train.csv", 3, 4, "1.5", "line 3: categorical_4 '1.5' is not a number"),
        ("nl_user_test.csv", 2, 20, "much", "line 2: numerical_13 'much' is not a number"),
        ("nl_user_train.csv", 2, 32, "", "line 2: fewer columns than 33, or no categorical_9"),
        ("nl_item_train.csv", 4, 48, "3", "line 4: label '3' is not 0, 1 or 2"),
        ("nl_item_test.csv", 1, 48, "", "line 1: fewer columns than 49, or no label"),
        ("nl_item_train.csv", 4, 0, "", "line 4: fewer columns than 49"),
        ("nl_item_train.csv", 5, 3, "1,2", "line 5: 50 columns instead of 49"),
        ("train.csv", 1, 3, "color", "line 1: no column 'categorical_3'"),
        ("train.csv", 4, 80, "2", "line 4: click '2' is not 0 or 1"),
        ("train.csv", 3, 81, "yes", "line 3: conversion 'yes' is not a number"),
        ("test.csv", 3, 17, "1 2", "line 3: numerical_1 '1 2' is not a number"),
    ],
)
def test_bad_values_are_named(tmp_path: Path, file: str, line: int, place: int, value: str, message: str) -> None:
    layout.write(tmp_path, "fr" if file in ("train.csv", "test.csv") else "nl")
    replace(tmp_path / file, line, place, value)
    fails(tmp_path, f"{tmp_path / file}, {message}")


def test_contradictions(tmp_path: Path) -> None:
    layout.write(tmp_path / "raw", "nl")
    user = tmp_path / "raw" / "nl_user_train.csv"
    number = user.read_text().split(",")[0]
    user.write_text(user.read_text() + f"{number},{USER_LINE}\n")
    fails(tmp_path / "raw", f"{user}: search_id {number} has two different user sides")
    layout.write(tmp_path / "processed", "fr")
    train = tmp_path / "processed" / "train.csv"
    cells = [line.split(",") for line in train.read_text().splitlines()]
    line = next(n for n, row in enumerate(cells, 1) if row[-2:] == ["0", "0"])
    replace(train, line, 81, "1")
    fails(tmp_path / "processed", f"{train}, line {line}: conversion '1' comes without a click")


@pytest.mark.parametrize("file", ["nl_user_train.csv", "nl_item_test.csv", "train.csv"])
def test_damaged_files(tmp_path: Path, file: str) -> None:
    layout.write(tmp_path, "fr" if file == "train.csv" else "nl")
    path = tmp_path / file
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    fails(tmp_path, f"{path}, line {whole.count(10)}: fewer columns than")
    path.write_bytes(b"")
    fails(tmp_path, f"{path}", "no column" if file == "train.csv" else "holds no rows")
    path.write_bytes(whole[: whole.index(b"\n") + 1] if file == "train.csv" else b"\n")
    fails(tmp_path, f"{path}")
    path.write_bytes(b"\xff\xfe\x00\x80" * 100)
    fails(tmp_path, f"{path}, line 1: ")


def test_damaged_zips(tmp_path: Path) -> None:
    layout.raw(tmp_path, "nl", zipped=True)
    path = tmp_path / "nl_item_train.zip"
    path.write_bytes(path.read_bytes()[:-40])
    fails(tmp_path, "nl_item_train.zip is damaged or truncated")


def fails(folder: Path, *parts: str) -> None:
    with pytest.raises(BenchError) as caught:
        build(folder)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)
