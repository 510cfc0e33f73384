"""Tenrec from hand-made lines: groups by the order of lines alone, given and computed histories, missing values."""

from __future__ import annotations

from collections.abc import Callable
from math import log1p
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from bench import registry
from bench.api import Dataset, Tables
from bench.data.encode import encode
from bench.data.raw.source import fetch
from bench.errors import BenchError
from tests.support.formats.kuairand import write_csv
from tests.support.formats.tenrec import HISTORY, LOG, write

CTR, WHOLE = "ctr_data_1M.csv", "QK-video.csv"
TABLES = ("groups", "rows", "items", "users")
Lines = list[list[object]]


def line(user: int, item: int, click: int = 0, *, like: int = 0, seen: int = 0, category: object = 1) -> list[object]:
    """A line of QK-video.csv."""
    return [user, item, click, 0, like, 0, category, seen, 2, user % 8]


def lines() -> Lines:
    """User 4: 12 lines that click on 12 and 10; user 2 between them: one line, a copy of it, and another."""
    first = [line(4, 20 - i, int(i in (8, 10)), seen=3 * int(i == 8)) for i in range(12)]
    return [
        *first[:5],
        line(2, 7, 1, like=1, category=r"\N"),
        *first[5:],
        line(2, 7, 1, like=1, category=r"\N"),
        line(2, 9),
    ]


History = Callable[[int], list[int]]


def build(folder: Path, found: Lines, history: History | None = None, **knobs: Any) -> tuple[Dataset, Tables]:
    """The tables of lines; with ``history`` (of a user) as ctr_data_1M.csv, otherwise as QK-video.csv."""
    folder.mkdir(exist_ok=True)
    if history is None:
        write_csv(folder / WHOLE, LOG, found)
    else:
        write_csv(folder / CTR, [*LOG, *HISTORY], [[*row, *history(int(str(row[0])))] for row in found])
    dataset = registry.load_dataset("tenrec-qkvideo")(**knobs)
    return dataset, dataset.build(fetch(dataset.sources, folder / "into", folder))


def joined(tables: Tables) -> list[dict[str, Any]]:
    """Groups with their rows."""
    rows = tables.rows.group_by("group", maintain_order=True).agg(pl.all())
    return tables.groups.join(rows, on="group", maintain_order="left").rows(named=True)


def test_groups_labels_and_computed_histories_by_hand(tmp_path: Path) -> None:
    _, tables = build(tmp_path, lines())
    found = joined(tables)
    assert [(g["user"], g["time"], g["item"], g["click"], g["history"], g["history_time"]) for g in found] == [
        (2, 0.0, [7, 7, 9], [1, 1, 0], [], None),
        (4, 0.0, list(range(11, 21)), [0, 1, *[0] * 8], [], None),
        (4, 0.5, [9, 10], [0, 1], [12], 0.0),
    ]
    assert found[0]["like"] == [1, 1, 0] and found[0]["follow"] == found[0]["share"] == [0, 0, 0]
    assert found[1]["watching_times"] == pytest.approx([0, log1p(3), *[0] * 8]) and found[1]["rec"] == found[1]["click"]
    items = {row["item"]: row for row in tables.items.rows(named=True)}
    assert items[7]["video_category"] is None and items[9]["video_category"] == "1" and items[9]["text"] == ""
    assert tables.users.rows() == [(2, "2", "2"), (4, "2", "4")]


def test_given_histories_are_taken_as_they_are(tmp_path: Path) -> None:
    _, tables = build(tmp_path, lines(), lambda user: [101, 100, 7, *[0] * 7] if user == 2 else [0] * 10)
    assert [(g["user"], g["history"], g["history_time"]) for g in joined(tables)] == [
        (2, [101, 100, 7], None), (4, [], None), (4, [], None),
    ]  # fmt: skip
    assert {100, 101, 7} <= set(tables.items["item"])


def test_the_file_of_the_benchmark_goes_first(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, name=WHOLE)
    dataset = registry.load_dataset("tenrec-qkvideo")()
    assert list(fetch(dataset.sources, tmp_path / "into", tmp_path)) == [CTR]
    (tmp_path / CTR).unlink()
    assert list(fetch(dataset.sources, tmp_path / "into", tmp_path)) == [WHOLE]


def test_every_user_is_tested_on_the_last_lines(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    found: Lines = [line(u, int(rng.integers(50)), int(rng.random() < 0.4)) for u in range(1, 6) for _ in range(200)]
    dataset, tables = build(tmp_path, found)
    encoded = encode(dataset, tables)
    sizes = {name: (part["groups"], part["rows"]) for name, part in encoded.parts.items()}
    assert sizes == {"train": (80, 800), "valid": (10, 100), "test": (10, 100)}
    assert not encoded.arrays["test/cold_user"].any() and len(np.unique(encoded.arrays["test/user"])) == 5


def test_computed_histories_hold_earlier_groups_only(tmp_path: Path) -> None:
    """Against a slow oracle, over the fixture."""
    write(tmp_path, name=WHOLE)
    dataset = registry.load_dataset("tenrec-qkvideo")()
    tables = dataset.build(fetch(dataset.sources, tmp_path / "into", tmp_path))
    log = pl.read_csv(tmp_path / WHOLE, infer_schema=False).with_columns(pl.col("user_id", "item_id").cast(pl.Int64))
    for (user,), own in log.group_by("user_id"):
        rows = own.rows(named=True)
        groups = [g for g in joined(tables) if g["user"] == user]
        assert len(groups) == -(-len(rows) // 10)
        for number, group in enumerate(groups):
            now = rows[10 * number : 10 * number + 10]
            assert group["time"] == number / len(groups)
            assert group["item"] == sorted(r["item_id"] for r in now)
            starts = range(0, 10 * number, 10)
            earlier = [sorted(r["item_id"] for r in rows[i : i + 10] if r["click"] == "1") for i in starts]
            assert group["history"] == [i for window in earlier for i in window][-20:]
            assert group["history_time"] is None or group["history_time"] < group["time"]


def test_later_lines_change_no_earlier_group(tmp_path: Path) -> None:
    _, whole = build(tmp_path / "whole", lines())
    _, part = build(tmp_path / "part", lines()[:11])  # user 4 up to the tenth line
    assert part.groups.select("user", "history").rows() == whole.groups.select("user", "history").rows()[:2]
    assert part.rows.filter(pl.col("group") == 1).rows() == whole.rows.filter(pl.col("group") == 1).rows()


def test_one_user_in_so_many(tmp_path: Path) -> None:
    _, tables = build(tmp_path, lines(), one_in=4)
    assert tables.users["user"].to_list() == [4] and tables.groups["user"].unique().to_list() == [4]
    assert 7 not in tables.items["item"]
    _, given = build(tmp_path / "ctr", lines(), lambda user: [user] * 10, one_in=4)
    assert given.groups["history"].to_list() == [[4] * 10] * 2
    with pytest.raises(BenchError, match="holds no rows of a user whose number 5 divides"):
        build(tmp_path, lines(), one_in=5)
    with pytest.raises(BenchError, match="one_in must be at least 1, got 0"):
        build(tmp_path, lines(), one_in=0)


def test_users_in_any_order(tmp_path: Path) -> None:
    """Lines of other users in between tell nothing."""
    _, mixed = build(tmp_path / "mixed", lines())
    _, blocks = build(tmp_path / "blocks", sorted(lines(), key=lambda row: int(str(row[0]))))
    for name in TABLES:
        assert_frame_equal(getattr(mixed, name), getattr(blocks, name))


def test_flags_may_be_written_as_fractions(tmp_path: Path) -> None:
    found = [[*row[:2], *(f"{v}.0" for v in row[2:6]), *row[6:]] for row in lines()]
    assert_frame_equal(build(tmp_path / "a", found)[1].rows, build(tmp_path / "b", lines())[1].rows)


def test_columns_keep_the_contract(tmp_path: Path) -> None:
    dataset, tables = build(tmp_path, lines())
    sides = {"user": [*tables.groups.columns, *tables.users.columns], "item": tables.items.columns}
    assert all(f.name in sides[f.side] and f.name not in dataset.forbidden for f in dataset.fields)
    assert not set(dataset.forbidden) & {*tables.groups.columns, *tables.items.columns, *tables.users.columns}


def replace(old: str, new: str) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), "utf-8")

    return act


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (replace("\n4,19,", "\nu4,19,"), "line 3: user_id 'u4' is not a whole number of at least 0"),
        (replace("\n4,19,", "\n4,,"), "line 3: item_id '' is not a whole number"),
        (replace("\n4,18,0,", "\n4,18,yes,"), "line 4: click 'yes' is not 0 or 1"),
        (replace("watching_times", "play_times"), "line 1: no column 'watching_times'"),
        (replace(",9,9,9", ",9,x,9"), "line 2: hist_2 'x' is not a whole number"),
        (replace("hist_7", "hist7"), "line 1: no column 'hist_7'"),
        (lambda path: path.write_bytes(path.read_bytes()[:-4]), "ends in the middle of a line"),
        (lambda path: path.write_bytes(b""), "no column 'user_id'; found an empty file"),
    ],
)  # fmt: skip
def test_bad_files_are_named(tmp_path: Path, act: Callable[[Path], None], message: str) -> None:
    dataset, _ = build(tmp_path, lines(), lambda user: [9] * 10)
    act(tmp_path / CTR)
    with pytest.raises(BenchError) as caught:
        dataset.build(fetch(dataset.sources, tmp_path / "into", tmp_path))
    assert "\n" not in str(caught.value) and message in str(caught.value) and CTR in str(caught.value)
