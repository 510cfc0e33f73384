"""Ali-CCP from hand-made files: features out of their lists, labels, parts, rare values, and bad lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
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
from bench.datasets import ali_ccp
from bench.datasets.ali_ccp import EXTRACTED, FILES, ITEM, PAIR, USER, AliCCP
from bench.errors import BenchError
from tests.support.formats import ali_ccp as layout

SAMPLE = registry.ROOT.parent / "shared/samples/ali_ccp_train_sample.csv"
TABLES = ("groups", "rows", "items", "users")
Lines = list[str]


def features(**ids: int | tuple[int, ...]) -> str:
    """f205=3 is the feature 3 of field 205; two ids are two features of one field."""
    flat = [(f[1:], i) for f, given in ids.items() for i in (given if isinstance(given, tuple) else (given,))]
    return layout.features([(field, number, 0.5) for field, number in flat])


def skeleton(number: int, click: int, buy: int, context: str, **ids: int | tuple[int, ...]) -> str:
    return f"{number},{click},{buy},{context},{len(ids)},{features(**ids)}"


def write(folder: Path, train: tuple[Lines, Lines], test: tuple[Lines, Lines]) -> None:
    """Skeleton and common lines of both parts."""
    folder.mkdir(exist_ok=True)
    for part, files in (("train", train), ("test", test)):
        for kind, lines in zip(("sample_skeleton", "common_features"), files, strict=True):
            (folder / f"{kind}_{part}.csv").write_text("".join(line + "\n" for line in lines))


def build(folder: Path) -> Tables:
    return AliCCP().build({name: folder / name for name in FILES})


COMMON = [
    f"aa,3,{features(f101=70, f109_14=(101, 7), f121=2)}",
    f"bb,4,{features(f1121=9, f121=5, f101=71, f129=(3, 4))}",  # 1121 is no field 121; the first id of 129 counts
    f"cc,1,{features(f122=8)}",  # no user
]
TRAIN = [
    skeleton(1, 0, 0, "bb", f205=500, f206=1, f216=4, f508=6),
    skeleton(2, 1, 1, "aa", f205=501, f206=2, f853=(11, 12), f301=1),
    skeleton(3, 0, 1, "aa", f205=502, f206=3),  # bought without a click
    skeleton(4, 1, 0, "bb", f205=500, f206=9, f207=8),  # other attributes than in its first line
    skeleton(5, 0, 0, "cc", f206=7, f301=2),  # no item
]
TEST = [skeleton(6, 1, 0, "aa", f205=500, f206=6), skeleton(7, 0, 0, "aa", f205=503, f207=3)]


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tables:
    """By hand, every value frequent enough."""
    monkeypatch.setattr(ali_ccp, "RARE", -1)
    write(tmp_path, (TRAIN, COMMON), (TEST, COMMON[:1]))
    return build(tmp_path)


def test_contexts_by_hand(tables: Tables) -> None:
    """In the order of their first impression; one index in two files is two contexts; three contexts leave none out."""
    columns = ("group", "user", "time", "user_id", "profile", "profile_group", "gender", "geography")
    assert tables.groups.select(columns).rows() == [
        (0, 71, 0, 71, 5, None, None, 3),
        (1, 70, 0, 70, 2, None, None, None),
        (2, 0, 0, None, None, 8, None, None),
        (3, 70, 2, 70, 2, None, None, None),
    ]
    assert tables.users["user"].to_list() == [0, 70, 71]


def test_impressions_by_hand(tables: Tables) -> None:
    columns = ("group", "item", "click", "ctcvr", "cvr", "category_affinity", "intention_affinity", "shown_position")
    assert tables.rows.select(columns).rows() == [
        (0, 500, 0, 0, None, 6, None, None),
        (1, 501, 1, 1, 1, None, 11, 1),
        (0, 500, 1, 0, 0, None, None, None),
        (2, 0, 0, 0, None, None, None, 2),
        (3, 500, 1, 0, 0, None, None, None),
        (3, 503, 0, 0, None, None, None, None),
    ]


def test_items_by_hand(tables: Tables) -> None:
    """As in their first line, the training file before the test file; 502 was never shown."""
    assert tables.items.select("item", "item_id", "category", "shop", "brand", "text").rows() == [
        (0, None, 7, None, None, ""),
        (500, 500, 1, None, 4, ""),
        (501, 501, 2, None, None, ""),
        (503, 503, None, 3, None, ""),
    ]


def test_no_outcome_is_a_field() -> None:
    assert not {f.name for f in AliCCP.fields} & set(AliCCP.forbidden)
    assert len(AliCCP.fields) == 18
    numbers = [*USER, *ITEM, *PAIR]
    assert sorted(numbers) == [
        "101", "121", "122", "124", "125", "126", "127", "128", "129",
        "205", "206", "207", "216", "301", "508", "509", "702", "853",
    ]  # fmt: skip


def parsed(path: Path) -> list[tuple[list[str], dict[str, int]]]:
    """Oracle: the lines of a file and the first id of each field, taken apart with nothing but str."""
    found = []
    for line in path.read_text().splitlines():
        cells = line.split(",")
        ids: dict[str, int] = {}
        for feature in cells[-1].split("\x01"):
            field, rest = feature.split("\x02")
            ids.setdefault(field, int(rest.split("\x03")[0]))
        found.append((cells, ids))
    return found


def test_every_row_and_every_rare_value_of_the_format(tmp_path: Path) -> None:
    """Oracle in plain Python: the join, the parts, and which values occur in more than ten training rows."""
    layout.write(tmp_path)
    rows: list[dict[str, Any]] = []
    for part in ("train", "test"):
        common = {cells[0]: ids for cells, ids in parsed(tmp_path / f"common_features_{part}.csv")}
        order: dict[str, int] = {}
        for cells, ids in parsed(tmp_path / f"sample_skeleton_{part}.csv"):
            click, buy = int(cells[1]), int(cells[2])
            if click or not buy:
                order.setdefault(cells[3], len(order))
                rows.append({**ids, **common[cells[3]], "click": click, "buy": buy, "place": (part, order[cells[3]])})
    late = {("train", n) for n in range(45, 50)}
    trains = [r for r in rows if r["place"][0] == "train" and r["place"] not in late]
    tables = build(tmp_path)
    built = tables.rows.join(tables.groups, on="group", maintain_order="left")
    built = built.join(tables.items, on="item", maintain_order="left")
    assert built.height == len(rows)
    assert built["click"].to_list() == [r["click"] for r in rows]
    assert built["ctcvr"].to_list() == [r["buy"] for r in rows]
    assert built["cvr"].to_list() == [r["buy"] if r["click"] else None for r in rows]
    times = {"train": 0, "test": 2}
    assert built["time"].to_list() == [1 if r["place"] in late else times[r["place"][0]] for r in rows]
    assert built["item"].to_list() == [r["205"] for r in rows] and built["user"].to_list() == [r["101"] for r in rows]
    rare = 0
    for field, name in (USER | ITEM | PAIR).items():
        counts = Counter(r.get(field) for r in trains)
        known = [r.get(field) if counts[r.get(field)] > 10 else None for r in rows]
        assert built[name].to_list() == known, name
        rare += sum(a != r.get(field) for a, r in zip(known, rows, strict=True))
    assert rare > 50


def test_the_size_of_the_chunks_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout.write(tmp_path)
    expected = build(tmp_path)
    monkeypatch.setattr(ali_ccp, "CHUNK", dict.fromkeys(ali_ccp.CHUNK, 7))
    found = build(tmp_path)
    for name in TABLES:
        assert_frame_equal(getattr(found, name), getattr(expected, name))
    path = tmp_path / "sample_skeleton_train.csv"
    lines = path.read_text().splitlines()
    lines[99] = lines[99].replace(",", ",2", 1)
    path.write_text("\n".join(lines))
    fails(tmp_path, f"{path}, line 100: click '2")


def test_the_test_files_leave_the_training_arrays_alone(tmp_path: Path) -> None:
    layout.write(tmp_path)
    before = encode.encode(AliCCP(), build(tmp_path))
    lines = [skeleton(n, n % 2, 0, "zz", f205=n % 30 + 1, f206=77, f216=n % 3, f508=8) for n in range(60)]
    common = [f"zz,2,{features(f101=3, f121=66)}"]
    for kind, content in (("sample_skeleton", lines), ("common_features", common)):
        (tmp_path / f"{kind}_test.csv").write_text("".join(line + "\n" for line in content))
    after = encode.encode(AliCCP(), build(tmp_path))
    assert before.cardinality == after.cardinality
    assert before.parts["train"] == after.parts["train"] and before.parts["test"] != after.parts["test"]
    for key in before.arrays:
        if key.startswith(("train/user_", "train/pair", "train/label", "train/start", "valid/pair", "valid/user_")):
            assert np.array_equal(before.arrays[key], after.arrays[key], equal_nan=True), key


@pytest.mark.parametrize("inside", [False, True])
def test_the_files_lie_flat_or_in_the_folders_of_the_archives(tmp_path: Path, inside: bool) -> None:
    layout.write(tmp_path)
    if inside:
        for name, part in FILES.items():
            (tmp_path / f"sample_{part}").mkdir(exist_ok=True)
            (tmp_path / name).rename(tmp_path / f"sample_{part}" / name)
    raw = source.fetch(AliCCP.sources, tmp_path / "into", tmp_path)
    assert AliCCP().build(raw).rows.height == 685
    with pytest.raises(BenchError, match="get sample_train.tar.gz and sample_test.tar.gz from https://tianchi"):
        source.fetch(AliCCP.sources, tmp_path / "into")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("sample_skeleton_train.csv", "2,1,1,aa", "2,3,1,aa", "line 2: click '3' is not 0 or 1"),
        ("sample_skeleton_train.csv", "2,1,1,aa", "2,1,,aa", "line 2: buy '' is not 0 or 1"),
        ("sample_skeleton_train.csv", "4,1,0,bb", "4,1,0,bx", "line 4: common_feature_index 'bx' is not in"),
        ("sample_skeleton_train.csv", "5,0,0,cc", "5,0,0,1,cc", "line 5: 7 columns instead of 6"),
        ("sample_skeleton_test.csv", "7,0,0,aa,2,", "7,0,0,aa", "line 2: ends before its last feature does"),
        ("common_features_train.csv", "cc,1,122\x028\x030.5", "cc,1,122\x028", "line 3: ends before its last feature"),
        ("common_features_train.csv", "cc,1", "aa,1", "common_feature_index 'aa' has two different lines"),
        ("common_features_test.csv", "aa,3", "aa,3,4", "line 1: 4 columns instead of 3"),
    ],
)
def test_bad_values_are_named(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    write(tmp_path, (TRAIN, COMMON), (TEST, COMMON[:1]))
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new))
    fails(tmp_path, str(tmp_path / file), message)


@pytest.mark.parametrize("file", FILES)
def test_damaged_files(tmp_path: Path, file: str) -> None:
    layout.write(tmp_path)
    path = tmp_path / file
    whole = path.read_bytes()
    path.write_bytes(whole[:-6])
    fails(tmp_path, f"{path}, line {whole.count(10)}: ends before its last feature does")
    path.write_bytes(whole[: whole.index(b"\n") + 1] if file.startswith("common") else b"")
    fails(tmp_path, str(path))  # contexts that the skeleton needs are missing
    path.write_bytes(b"")
    fails(tmp_path, f"{path}: holds no rows")
    path.write_bytes(b"\xff\xfe\x00\x80" * 100)
    fails(tmp_path, f"{path}, line 1: 1 columns")


def test_a_line_twice_is_two_impressions_but_one_context(tmp_path: Path) -> None:
    write(tmp_path, ([*TRAIN, TRAIN[0]], [*COMMON, COMMON[0]]), (TEST, COMMON[:1]))
    tables = build(tmp_path)
    assert tables.rows.height == 7 and tables.groups.height == 4


def fails(folder: Path, *parts: str, build: Callable[[Path], Tables] = build) -> None:
    with pytest.raises(BenchError) as caught:
        build(folder)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def extracted(click: int, purchase: int, **codes: int) -> str:
    """A line of an extracted file; fields that are not given have code 0."""
    given = {name: str(codes.get(f"f{name}", 0)) for name in layout.SPARSE}
    return ",".join([str(click), str(purchase), *given.values(), *["0.5"] * len(layout.DENSE)])


def build_extracted(folder: Path) -> Tables:
    return AliCCP().build(source.fetch(AliCCP.sources, folder / "into", folder))


def write_extracted(folder: Path, parts: tuple[Lines, Lines, Lines], head: str = ",".join(layout.EXTRACTED)) -> None:
    for name, lines in zip(EXTRACTED, parts, strict=True):
        (folder / name).write_text("".join(f"{line}\n" for line in (head, *lines)), "utf-8")


def test_extracted_files_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One group a row; code 0 is missing; an item is a distinct item, category, shop and brand."""
    monkeypatch.setattr(ali_ccp, "RARE", -1)
    train = [
        extracted(1, 1, f101=4, f121=2, f205=9, f206=3, f301=1, f109_14=7),
        extracted(0, 0, f101=4, f206=3, f508=6),
        extracted(0, 1, f101=4, f206=3),  # bought without a click
        extracted(1, 0, f129=8, f206=5),  # no user; the same item code, 0, in another category
        extracted(0, 0, f101=6, f205=9, f206=3, f210=4),  # 210 is not among the 18 fields
    ]
    write_extracted(tmp_path, (train, [extracted(0, 0, f101=4, f206=3)], [extracted(1, 0, f101=5, f205=8)]))
    tables = build_extracted(tmp_path)
    assert tables.groups.select("group", "user", "time", "user_id", "profile", "geography").rows() == [
        (0, 4, 0, 4, 2, None), (1, 4, 0, 4, None, None), (2, 0, 0, None, None, 8), (3, 6, 0, 6, None, None),
        (4, 4, 1, 4, None, None), (5, 5, 2, 5, None, None),
    ]  # fmt: skip
    columns = ("group", "item", "click", "ctcvr", "cvr", "category_affinity", "shown_position")
    assert tables.rows.select(columns).rows() == [
        (0, 0, 1, 1, 1, None, 1), (1, 1, 0, 0, None, 6, None), (2, 2, 1, 0, 0, None, None),
        (3, 0, 0, 0, None, None, None), (4, 1, 0, 0, None, None, None), (5, 3, 1, 0, 0, None, None),
    ]  # fmt: skip
    assert tables.items.rows() == [
        (0, 9, 3, None, None, ""), (1, None, 3, None, None, ""), (2, None, 5, None, None, ""),
        (3, 8, None, None, None, ""),
    ]  # fmt: skip
    assert tables.users["user"].to_list() == [0, 4, 5, 6]


def test_extracted_files_make_a_data_set_without_leaks(tmp_path: Path) -> None:
    layout.extracted(tmp_path)
    data = load(prepare.prepare("ali-ccp", None, tmp_path))
    assert [problem for _, problem in verify(AliCCP(), data) if problem] == []
    assert {p: data.meta["parts"][p]["rows"] for p in ("train", "valid", "test")} == {
        "train": 300, "valid": 100, "test": 100,
    }  # fmt: skip
    before = encode.encode(AliCCP(), build_extracted(tmp_path))
    lines = [extracted(n % 2, 0, f101=77, f205=n % 30, f206=88, f508=9) for n in range(60)]
    (tmp_path / EXTRACTED[2]).write_text("".join(f"{line}\n" for line in (",".join(layout.EXTRACTED), *lines)))
    after = encode.encode(AliCCP(), build_extracted(tmp_path))
    assert before.cardinality == after.cardinality
    for key in before.arrays:
        if key.startswith("train/"):
            assert np.array_equal(before.arrays[key], after.arrays[key], equal_nan=True), key


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("click", "2", "line 3: click '2' is not 0 or 1"),
        ("purchase", "", "line 3: purchase '' is not 0 or 1"),
        ("205", "-4", "line 3: 205 '-4' is not a whole number of at least 0"),
        ("101", "u7", "line 3: 101 'u7' is not a whole number of at least 0"),
    ],
)
def test_bad_extracted_values_are_named(tmp_path: Path, column: str, value: str, message: str) -> None:
    layout.extracted(tmp_path)
    path = tmp_path / EXTRACTED[1]
    lines = path.read_text().split("\n")
    cells = lines[2].split(",")
    cells[layout.EXTRACTED.index(column)] = value
    path.write_text("\n".join([*lines[:2], ",".join(cells), *lines[3:]]))
    fails(tmp_path, f"{path}, {message}", build=build_extracted)
    path.write_text("\n".join(lines).replace(column, "other", 1))
    fails(tmp_path, f"{path}, line 1: no column '{column}'", build=build_extracted)


@pytest.mark.parametrize("name", EXTRACTED)
def test_damaged_extracted_files(tmp_path: Path, name: str) -> None:
    layout.extracted(tmp_path)
    path = tmp_path / name
    whole = path.read_bytes()
    for damaged in (b"", whole[:-1], whole[: whole.index(b"\n") + 1], b"\xff\xfe\x00\x80" * 100):
        path.write_bytes(damaged)
        fails(tmp_path, str(path), build=build_extracted)


@pytest.mark.skipif(not SAMPLE.is_file(), reason="the sample files are not here")
def test_the_extracted_sample_is_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ali_ccp, "RARE", -1)
    head, *lines = SAMPLE.read_text("utf-8").splitlines()
    assert head == ",".join(layout.EXTRACTED)
    write_extracted(tmp_path, (lines[:60], lines[60:80], lines[80:]), head)
    tables = build_extracted(tmp_path)
    cells = [dict(zip(head.split(","), line.split(","), strict=True)) for line in lines]
    built = tables.rows.join(tables.groups, on="group", maintain_order="left")
    built = built.join(tables.items, on="item", maintain_order="left")
    assert built["click"].to_list() == [int(c["click"]) for c in cells] and built["click"].sum() == 7
    assert built["ctcvr"].to_list() == [int(c["purchase"]) for c in cells]
    assert built["time"].to_list() == [0] * 60 + [1] * 20 + [2] * 20
    for field, name in (USER | ITEM | PAIR).items():
        assert built[name].fill_null(0).to_list() == [int(c[field]) for c in cells], name
    assert tables.items.filter(pl.col("item_id").is_null())["category"].n_unique() > 10
    encode.encode(AliCCP(), tables)
