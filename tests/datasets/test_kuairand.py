"""KuaiRand from hand-made files: requests, labels, histories, the random log, texts, and what may not leak."""

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
from bench.data.raw.source import Download, Local, fetch
from bench.data.split import assign
from bench.datasets.kuairand import ATTRIBUTES
from bench.datasets.logs.histories import histories
from bench.datasets.logs.short_video import PROFILE, china_day
from bench.errors import BenchError
from tests.support.formats.kuairand import Row, log_row, write, write_csv, write_logs

START, VALID, TEST = (china_day(day) for day in ("2022-04-08", "2022-04-22", "2022-04-29"))
HOUR = 3_600_000
EARLY = (
    log_row(1, 10, START + 1000, click=1, played=8000, lasts=20_000),
    log_row(1, 11, START + 2000, played=1000, lasts=5000),
    log_row(1, 12, START + 500, click=1, long=1, played=30_000, lasts=15_000, tab=4),
    log_row(1, 13, START + HOUR, click=1, long=1, like=1, played=18_000, lasts=18_000),
    log_row(2, 10, START + 1500, played=5, lasts=0),
    # The first video watched to the end has no known category; the next one does not count.
    log_row(2, 12, START + 2 * HOUR + 9, click=1, long=1, played=20_000),
    log_row(2, 14, START + 2 * HOUR + 8, click=1, long=1, played=20_000),
)
LATE = (
    log_row(1, 15, TEST + 1000, click=1, long=1, follow=1, played=20_000),
    log_row(1, 14, TEST),
)
RANDOM = (
    log_row(1, 16, VALID, click=1, long=1, played=20_000, random=1),
    log_row(1, 10, TEST + 500, random=1),
)
TABLES = ("groups", "rows", "items", "users")


Logs = tuple[tuple[Row, ...], ...]


def build(folder: Path, variant: str = "pure", logs: Logs = (EARLY, LATE, RANDOM)) -> tuple[Dataset, Tables]:
    """The tables of the given logs, with the features of the format's writer."""
    write(folder, variant)
    write_logs(folder, variant, *logs)
    dataset = registry.load_dataset(f"kuairand-{variant}")()
    return dataset, dataset.build(fetch(dataset.sources, folder / "into", folder))


def by_key(tables: Tables) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Groups and their rows by user, time, tab and extra."""
    rows = tables.rows.group_by("group", maintain_order=True).agg(pl.all())
    joined = tables.groups.join(rows, on="group").rows(named=True)
    return {(g["user"], g["time"], g["tab"], g["extra"]): g for g in joined}


def test_requests_histories_and_interest_by_hand(tmp_path: Path) -> None:
    _, tables = build(tmp_path)
    found = by_key(tables)
    assert {key: (g["item"], g["history"], g["history_time"], g["interest"]) for key, g in found.items()} == {
        (1, START + 500, 4, None): ([12], [], None, "运动"),
        (1, START + 1000, 1, None): ([10, 11], [12], START + 500, None),
        (1, START + HOUR, 1, None): ([13], [12, 10], START + 1000, "美食"),
        (2, START + 1500, 1, None): ([10], [], None, None),
        (2, START + 2 * HOUR + 8, 1, None): ([12, 14], [], None, None),
        (1, VALID, 1, "random"): ([16], [12, 10, 13], START + HOUR, "美食"),
        (1, TEST, 1, None): ([14, 15], [12, 10, 13], START + HOUR, "运动"),
        (1, TEST + 500, 1, "random"): ([10], [12, 10, 13], START + HOUR, None),
    }


def test_labels_by_hand(tmp_path: Path) -> None:
    _, tables = build(tmp_path)
    found = by_key(tables)
    first = found[1, START + 1000, 1, None]
    assert (first["click"], first["rec"], first["long_view"], first["like"]) == ([1, 0], [1, 0], [0, 0], [0, 0])
    assert first["play_time"] == pytest.approx([log1p(8), log1p(1)]) and first["rank"] == [0.4, 0.2]
    assert found[1, START + 500, 4, None]["rank"] == [1.0]  # played twice: at most 1
    assert found[2, START + 1500, 1, None]["rank"] == [1.0]  # a duration of 0 counts as 1 ms
    assert found[1, START + HOUR, 1, None]["like"] == [1]
    assert found[1, TEST, 1, None]["follow"] == [0, 1] and found[1, TEST, 1, None]["long_view"] == [0, 1]


def test_the_random_log_is_a_part_of_its_own_from_the_test_days_on(tmp_path: Path) -> None:
    dataset, tables = build(tmp_path, logs=(EARLY, (*LATE, log_row(3, 1, TEST - 1)), RANDOM))
    part = assign(tables.groups, np.ones(tables.groups.height), dataset.split)
    found = tables.groups.with_columns(part.alias("part"))
    for group in found.rows(named=True):
        usual = "train" if group["time"] < VALID else "valid" if group["time"] < TEST else "test"
        extra = "random" if group["time"] >= TEST else "purged"
        assert group["part"] == (usual if group["extra"] is None else extra)
    assert set(found["part"]) == {"train", "valid", "test", "random", "purged"}


def test_items_texts_and_users(tmp_path: Path) -> None:
    more = [log_row(11, video, START + video) for video in (0, 1, 2, 3, 39)]
    dataset, tables = build(tmp_path, logs=((*EARLY, *more), LATE, RANDOM))
    items = {row["item"]: row for row in tables.items.rows(named=True)}
    assert sorted(items) == [0, 1, 2, 3, 10, 11, 12, 13, 14, 15, 16, 39]
    assert items[0]["text"] == "#话题0 第0个视频, 很好" and items[0]["category"] == "运动" and items[0]["tag"] == "12"
    assert items[0]["duration"] == pytest.approx(log1p(5)) and items[3]["duration"] is None and items[2]["tag"] is None
    assert items[1]["text"] == 'says "好", over two lines 封面'  # the first of its two rows
    assert items[2]["text"] == "" and items[2]["category"] is None  # UNKNOWN
    assert [items[0][a] for a in ATTRIBUTES] == ["0", "AD", "ShortImport", "4.0"]
    assert [items[39][a] for a in ATTRIBUTES] == [None] * 4 and items[39]["text"] == "#话题4 第39个视频, 很好"
    users = {row["user"]: row for row in tables.users.rows(named=True)}
    assert sorted(users) == [1, 2, 11]
    assert users[1]["user_active_degree"] == "high_active" and users[1]["follow_user_num_range"] == "(0,10]"
    assert [users[11][name] for name in PROFILE] == [None] * len(PROFILE)
    assert dataset.tasks[-1].classes == ("美食", "运动") and dataset.tasks[-1].scope == "user"


def test_without_texts_there_is_no_interest(tmp_path: Path) -> None:
    dataset, tables = build(tmp_path / "1k", "1k")
    assert "interest" not in {t.name for t in dataset.tasks}
    assert tables.items["text"].null_count() == tables.items.height == tables.items["category"].null_count()
    with_texts, other = build(tmp_path / "pure")
    assert [t.name for t in with_texts.tasks] == [*(t.name for t in dataset.tasks), "interest"]
    assert_frame_equal(tables.rows, other.rows)
    # Both text files or neither.
    (tmp_path / "pure" / "kuairand_video_captions.csv").unlink()
    raw = fetch(with_texts.sources, tmp_path / "into", tmp_path / "pure")
    assert sorted(raw) == sorted(with_texts.sources[1].published)
    again = type(with_texts)()
    again.build(raw)
    assert again.tasks == dataset.tasks


def test_sources() -> None:
    for variant, top, md5 in (("pure", "KuaiRand-Pure", "0820"), ("1k", "KuaiRand-1K", "6b0b")):
        by_hand, archive = registry.load_dataset(f"kuairand-{variant}")().sources
        assert isinstance(by_hand, Local) and isinstance(archive, Download)
        assert archive.url.endswith(f"/{top}.tar.gz") and archive.hash.startswith(f"md5:{md5}")
        assert set(archive.published) < set(by_hand.published) and len(by_hand.published) == len(archive.published) + 2
        assert all(path.startswith(f"{top}/data/") for path in by_hand.published.values())
        assert not any("statistic" in name for name in by_hand.published)  # averages over the whole month


def test_columns_keep_the_contract(tmp_path: Path) -> None:
    dataset, tables = build(tmp_path)
    sides = {"user": [*tables.groups.columns, *tables.users.columns], "item": tables.items.columns}
    assert all(f.name in sides[f.side] and f.name not in dataset.forbidden for f in dataset.fields)
    outcomes = {*dataset.forbidden, "played", "lasts"} - {"long_view"}
    assert not any(outcomes & set(getattr(tables, name).columns) for name in TABLES)
    # The publisher's example: 2022-04-21, 4 o'clock.
    assert china_day("2022-04-21") + 4 * HOUR <= 1650485801301 < china_day("2022-04-21") + 5 * HOUR


def test_histories_end_before_their_group(tmp_path: Path) -> None:
    """Against a slow oracle, over the whole fixture."""
    write(tmp_path)
    dataset = registry.load_dataset("kuairand-pure")()
    dataset.history = 3  # type: ignore[misc]
    tables = dataset.build(fetch(dataset.sources, tmp_path / "into", tmp_path))
    clicked = sorted(
        (int(r["user_id"]), int(r["time_ms"]), int(r["video_id"]))
        for name in ("4_08_to_4_21", "4_22_to_5_08")
        for r in pl.read_csv(tmp_path / f"log_standard_{name}_pure.csv").rows(named=True)
        if r["is_click"]
    )
    for group in tables.groups.rows(named=True):
        past = [(time, item) for user, time, item in clicked if user == group["user"] and time < group["time"]]
        assert group["history"] == [item for _, item in past][-3:]
        assert group["history_time"] == (past[-1][0] if past else None)


def test_later_lines_change_nothing_before_them(tmp_path: Path) -> None:
    """A log that ends earlier gives the same groups up to there."""
    _, whole = build(tmp_path / "whole")
    _, part = build(tmp_path / "part", logs=(EARLY[:5], LATE[:1], RANDOM[:1]))
    before = whole.groups.filter(pl.col("time") < START + 2 * HOUR).drop("group").sort("user", "time")
    same = part.groups.filter(pl.col("time") < START + 2 * HOUR).drop("group").sort("user", "time")
    assert_frame_equal(before, same)


def test_order_of_lines_does_not_matter(tmp_path: Path) -> None:
    _, one = build(tmp_path / "one")
    _, other = build(tmp_path / "other", logs=(EARLY[::-1], LATE[::-1], RANDOM[::-1]))
    for name in TABLES:
        assert_frame_equal(getattr(one, name), getattr(other, name))


def test_histories_of_nobody_and_of_ties() -> None:
    groups = pl.DataFrame({"user": [7, 9], "time": [5, 5]})
    past = pl.DataFrame({"user": [7, 7, 7, 8], "time": [4, 4, 5, 1], "item": [3, 2, 1, 9]})
    history, last = histories(past, groups, 20)
    assert history.to_list() == [[2, 3], []] and last.to_list() == [4, None]
    history, last = histories(past.clear(), groups, 20)
    assert history.to_list() == [[], []] and last.to_list() == [None, None]


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        text = (folder / name).read_text("utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1), "utf-8")

    return act


def cut(name: str, back: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-back])


LOG = "log_standard_4_08_to_4_21_pure.csv"
USERS, VIDEOS = "user_features_pure.csv", "video_features_basic_pure.csv"


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (replace(LOG, "\n1,10,", "\nx,10,"), f"{LOG}, line 2: user_id 'x' is not a whole number of at least 0"),
        (replace(LOG, "\n1,12,", "\n1,,"), f"{LOG}, line 4: video_id '' is not a whole number"),
        (replace(LOG, ",8000,", ",-1,"), f"{LOG}, line 2: play_time_ms '-1' is not a whole number of at least 0"),
        (replace(LOG, f",{START + 1000},1,", f",{START + 1000},2,"), f"{LOG}, line 2: is_click '2' is not 0 or 1"),
        (replace(LOG, "long_view", "longview"), f"{LOG}, line 1: no column 'long_view'"),
        (replace(LOG, "\n1,11,", "\n9,1,11,"), f"{LOG}, line 3: is_click '{START + 2000}' is not 0 or 1"),
        (replace(LOG, "\n1,11,", '\n"1,11,'), f"{LOG}: cannot be read as a table of text"),
        (cut(LOG, 1), f"{LOG}: ends in the middle of a line"),
        (cut(LOG, 30), f"{LOG}: ends in the middle of a line"),
        (lambda folder: write_csv(folder / LOG, ["user_id"], []), f"{LOG}, line 1: no column 'video_id'"),
        (replace(USERS, "\n3,", "\n2,"), f"{USERS}, line 5: user_id '2' appears twice"),
        (replace(USERS, "\n3,", "\nthree,"), f"{USERS}, line 5: user_id 'three' is not a whole number"),
        (replace(VIDEOS, "\n7,", "\n6,"), f"{VIDEOS}, line 9: video_id '6' appears twice"),
        (replace("kuairand_video_captions.csv", "caption", "text"), "kuairand_video_captions.csv, line 1: no column"),
        (
            lambda folder: write_csv(
                folder / "kuairand_video_categories.csv", ["final_video_id", "first_level_category_name"], [["1x", "a"]]
            ),
            "kuairand_video_categories.csv: no row describes a video of the log",
        ),
    ],
)  # fmt: skip
def test_bad_files_are_named(tmp_path: Path, act: Callable[[Path], None], message: str) -> None:
    write(tmp_path)
    write_logs(tmp_path, "pure", EARLY, LATE, RANDOM)
    act(tmp_path)
    dataset = registry.load_dataset("kuairand-pure")()
    with pytest.raises(BenchError) as caught:
        dataset.build(fetch(dataset.sources, tmp_path / "into", tmp_path))
    assert "\n" not in str(caught.value) and message in str(caught.value)


def test_a_log_without_rows(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"log_random_4_22_to_5_08_pure\.csv: holds no rows"):
        build(tmp_path, logs=(EARLY, LATE, ()))
