"""KuaiRec from hand-made matrices: which views count where, labels, histories, duplicates and rows without a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from math import log1p
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from bench import registry
from bench.api import Dataset, Tables
from bench.data.raw.source import fetch
from bench.data.split import assign
from bench.datasets.logs.short_video import china_day
from bench.errors import BenchError
from tests.support.formats.kuairec import View, view, write, write_matrices

START, GAP, VALID, TEST = (
    china_day(day) // 1000 for day in ("2020-07-05", "2020-08-11", "2020-08-30", "2020-09-02")
)  # seconds
BIG = (
    view(1, 0, 9_999, 10_000, START + 5.25),  # ratio 0.9999
    view(1, 1, 10_000, 10_000, START + 6.5),  # exactly 1
    view(1, 2, 20_000, 10_000, START + 7),  # exactly 2: finished, not liked
    view(1, 3, 20_010, 10_000, START + 3600),  # the next hour
    view(1, 4, 90_000, 10_000, START + 3601),  # 9 times: clipped
    view(1, 3, 20_010, 10_000, START + 3600),  # a copy
    view(1, 3, 5_000, 10_000, START + 3700),  # seen again, no copy
    view(2, 5, 30_000, 10_000, VALID),
    view(2, 6, 30_000, 10_000, TEST),  # left out, but history of what follows
)
SMALL = (
    view(2, 7, 10_000, 5_000, GAP),  # before the test days: left out
    view(2, 8, 10_000, 5_000, TEST + 1),
    view(2, 9, 1_000, 5_000, TEST + 2),
    view(2, 10, 1_000, 5_000, None),  # no time
    view(1, 11, 5_000, 5_000, TEST),
)
TABLES = ("groups", "rows", "items", "users")


def build(folder: Path, big: Sequence[View] = BIG, small: Sequence[View] = SMALL) -> tuple[Dataset, Tables]:
    """The tables of the given matrices, with the features of the format's writer."""
    write(folder)
    write_matrices(folder, big, small)
    dataset = registry.load_dataset("kuairec")()
    return dataset, dataset.build(fetch(dataset.sources, folder / "into", folder))


def by_key(tables: Tables) -> dict[tuple[int, float], dict[str, Any]]:
    """Groups and their rows by user and second."""
    rows = tables.rows.group_by("group", maintain_order=True).agg(pl.all())
    return {(g["user"], g["time"] / 1000): g for g in tables.groups.join(rows, on="group").rows(named=True)}


def test_groups_histories_and_interest_by_hand(tmp_path: Path) -> None:
    dataset, tables = build(tmp_path)
    found = by_key(tables)
    assert {key: (g["item"], g["history"], g["history_time"], g["interest"]) for key, g in found.items()} == {
        (1, START + 5.25): ([0, 1, 2], [], None, "美食"),  # the first finished is 1
        (1, START + 3600): ([3, 3, 4], [1, 2], (START + 7) * 1000, "颜值"),
        (2, VALID): ([5], [], None, None),  # of no known category
        (1, TEST): ([11], [1, 2, 3, 4], (START + 3601) * 1000, None),
        (2, TEST + 1): ([8, 9], [5, 6], TEST * 1000, None),
    }
    part = assign(tables.groups, np.ones(tables.groups.height), dataset.split)
    parts = tables.groups.with_columns(part.alias("part"))
    assert dict(zip(parts["time"] / 1000, parts["part"], strict=True)) == {
        START + 5.25: "train", START + 3600: "train", VALID: "valid", TEST: "test", TEST + 1: "test",
    }  # fmt: skip


def test_labels_by_hand(tmp_path: Path) -> None:
    _, tables = build(tmp_path)
    found = by_key(tables)
    first, second = found[1, START + 5.25], found[1, START + 3600]
    assert first["watch_ratio"] == [0.9999, 1.0, 2.0] and first["rank"] == [0.49995, 0.5, 1.0]
    assert first["finish"] == first["rec"] == [0, 1, 1] and first["like"] == [0, 0, 0]
    assert second["watch_ratio"] == [2.001, 0.5, 5.0] and second["rank"] == [1.0, 0.25, 1.0]
    assert second["finish"] == [1, 0, 1] and second["like"] == [1, 0, 1]


def test_copies_and_rows_without_a_time_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="bench.datasets.kuairec"):
        build(tmp_path)
    said = [r.getMessage() for r in caplog.records]
    assert [text.split(": ")[1] for text in said] == [
        "left out 1 rows that repeat another and 0 without a time",
        "left out 0 rows that repeat another and 1 without a time",
    ]


def test_items_and_users(tmp_path: Path) -> None:
    more = [view(9, video, 1, 10_000 + video, START + video) for video in (1, 2, 28, 29)]
    dataset, tables = build(tmp_path, [*BIG, *more])
    items = {row["item"]: row for row in tables.items.rows(named=True)}
    assert sorted(items) == [0, 1, 2, 3, 4, 5, 6, 8, 9, 11, 28, 29]  # 7 and 10 occur in rows left out only
    assert items[0]["text"] == "第0个, 视频" and items[0]["category"] == "颜值" and items[0]["tag"] == "8"
    assert items[1]["text"] == 'two lines cover "封面" 五爱街,日常' and items[1]["category"] == "美食"
    assert items[1]["tag"] == "9" and items[1]["duration"] == pytest.approx(log1p(10))
    assert items[2]["text"] == "" and items[2]["category"] is None  # UNKNOWN
    assert (items[29]["text"], items[29]["category"], items[29]["tag"]) == ("", None, None)
    users = {row["user"]: row for row in tables.users.rows(named=True)}
    assert users[1]["user_active_degree"] == "high_active" and users[9]["user_active_degree"] is None
    assert dataset.tasks[-1].classes == ("美食", "颜值")


def test_columns_keep_the_contract(tmp_path: Path) -> None:
    dataset, tables = build(tmp_path)
    sides = {"user": [*tables.groups.columns, *tables.users.columns], "item": tables.items.columns}
    assert all(f.name in sides[f.side] and f.name not in dataset.forbidden for f in dataset.fields)
    assert not any({"play_duration", "ratio"} & set(getattr(tables, name).columns) for name in TABLES)
    (source,) = dataset.sources
    assert "item_daily_features.csv" not in source.published  # counts of the same day


def test_nothing_of_the_small_matrix_before_the_test_days(tmp_path: Path) -> None:
    """Its earlier rows may change without any effect, and so may all of it on what comes before the test days."""
    _, one = build(tmp_path / "one")
    _, other = build(tmp_path / "other", small=(view(2, 7, 1, 5_000, VALID + 50), *SMALL[1:]))
    for name in TABLES:
        assert_frame_equal(getattr(one, name), getattr(other, name))
    _, third = build(tmp_path / "third", small=(view(1, 12, 9_000, 5_000, TEST + 9), view(2, 5, 1, 5_000, START)))
    early = pl.col("time") < TEST * 1000
    assert_frame_equal(one.groups.filter(early).drop("group"), third.groups.filter(early).drop("group"))


def test_histories_end_before_their_group(tmp_path: Path) -> None:
    """Against a slow oracle, over the whole fixture."""
    write(tmp_path)
    dataset = registry.load_dataset("kuairec")()
    dataset.history = 4  # type: ignore[misc]
    tables = dataset.build(fetch(dataset.sources, tmp_path / "into", tmp_path))
    big = pl.read_csv(tmp_path / "big_matrix.csv")
    finished = sorted(
        {
            (int(r["user_id"]), round(r["timestamp"] * 1000), int(r["video_id"]))
            for r in big.rows(named=True)
            if r["watch_ratio"] >= 1
        }
    )
    assert big.is_duplicated().any()
    for group in tables.groups.rows(named=True):
        past = [(time, item) for user, time, item in finished if user == group["user"] and time < group["time"]]
        assert group["history"] == [item for _, item in past][-4:]
        assert group["history_time"] == (past[-1][0] if past else None)


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        text = (folder / name).read_text("utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1), "utf-8")

    return act


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (replace("big_matrix.csv", "\n1,2,", "\n1,two,"), "line 4: video_id 'two' is not a whole number of at least 0"),
        (replace("big_matrix.csv", ",0.9999", ",nan"), "line 2: watch_ratio 'nan' is not a number of at least 0"),
        (replace("big_matrix.csv", f",{START + 6.5},", ",later,"), "line 3: timestamp 'later' is not a number"),
        (replace("small_matrix.csv", "watch_ratio", "ratio"), "small_matrix.csv, line 1: no column 'watch_ratio'"),
        (replace("item_categories.csv", "\n3,", "\n2,"), "item_categories.csv, line 5: video_id '2' appears twice"),
        (replace("user_features.csv", "\n3,", "\n?,"), "user_features.csv, line 5: user_id '?' is not a whole number"),
        (replace("kuairec_caption_category.csv", "caption", "words"), "line 1: no column 'caption'"),
    ],
)  # fmt: skip
def test_bad_files_are_named(tmp_path: Path, act: Callable[[Path], None], message: str) -> None:
    write(tmp_path)
    write_matrices(tmp_path, BIG, SMALL)
    act(tmp_path)
    dataset = registry.load_dataset("kuairec")()
    with pytest.raises(BenchError) as caught:
        dataset.build(fetch(dataset.sources, tmp_path / "into", tmp_path))
    assert "\n" not in str(caught.value) and message in str(caught.value)


def test_matrices_of_other_times(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="holds no view before the test days"):
        build(tmp_path, [view(1, 1, 1, 1, TEST)], [view(1, 1, 1, 1, START)])
