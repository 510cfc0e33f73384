"""MicroLens from hand-made comments: histories, negatives, titles in both layouts, categories."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from bench import registry
from bench.api import Dataset, Tables
from bench.data.raw.source import Local, fetch
from bench.errors import BenchError
from tests.support.formats.microlens import write, write_lines, write_pairs, write_titles

# user, item, milliseconds. From 15 on four videos are known that the user has not commented on.
PAIRS = (
    (9, 5, 12), (9, 6, 13), (8, 7, 14), (8, 8, 14), (7, 9, 15),
    (1, 1, 50), (1, 2, 60), (1, 3, 60), (1, 4, 70), (1, 1, 80), (2, 4, 90),
)  # fmt: skip
TITLES = (
    (1, "Cats, dogs and others"), (2, "Plain"), (3, '"Why?", she asked'), (4, ""), (5, "  wide   spaces "), (6, "Ünï"),
    (7, 'half "quoted'), (8, "x"),
)  # fmt: skip
CATEGORIES = ((1, "Pets"), (2, "Food"), (3, "Music, Dance"), (4, "Food"), (5, "Food"))
TABLES = ("groups", "rows", "items", "users")
Pairs = Sequence[tuple[int, int, int]]


def build(folder: Path, variant: str = "100k", pairs: Pairs = PAIRS) -> tuple[Dataset, Tables]:
    """The tables of the given comments."""
    folder.mkdir(exist_ok=True)
    write_pairs(folder, variant, pairs)
    write_titles(folder, variant, TITLES)
    if variant == "100k":
        write_lines(folder / "tags_to_summary.csv", CATEGORIES)
    dataset = registry.load_dataset(f"microlens-{variant}")()
    return dataset, dataset.build(fetch(dataset.sources, folder / "into", folder))


def joined(tables: Tables) -> list[dict[str, Any]]:
    """Groups with their rows."""
    rows = tables.rows.group_by("group", maintain_order=True).agg(pl.all())
    return tables.groups.join(rows, on="group", maintain_order="left").rows(named=True)


def test_groups_and_histories_by_hand(tmp_path: Path) -> None:
    _, tables = build(tmp_path)
    found = joined(tables)
    assert [(g["user"], g["time"], g["history"], g["history_time"], g["interest"]) for g in found] == [
        (7, 15, [], None, None),
        (1, 50, [], None, "Pets"),
        (1, 60, [1], 50, "Food"),
        (1, 60, [1], 50, "Music, Dance"),  # what happens at once is in neither history
        (1, 70, [1, 2, 3], 60, "Food"),
        (2, 90, [], None, "Food"),  # 80 was a second comment on video 1
    ]
    assert [g["item"][g["click"].index(1)] for g in found] == [9, 1, 2, 3, 4, 4]
    assert all(sorted(g["click"]) == [0, 0, 0, 0, 1] for g in found)


def test_negatives_are_videos_of_earlier_comments_that_the_user_did_not_comment_on(tmp_path: Path) -> None:
    write(tmp_path)
    dataset = registry.load_dataset("microlens-100k")()
    tables = dataset.build(fetch(dataset.sources, tmp_path / "into", tmp_path))
    log = pl.read_csv(tmp_path / "MicroLens-100k_pairs.csv").sort("timestamp")
    pairs = log.unique(["user", "item"], keep="first", maintain_order=True).rows()
    assert log.height > len(pairs) and len(joined(tables)) > 250
    for group in joined(tables):
        chosen = {i for u, i, t in pairs if u == group["user"] and t <= group["time"]}
        known = {i for _, i, t in pairs if t < group["time"]}
        assert group["item"] == sorted(set(group["item"])) and len(group["item"]) == 5
        assert group["click"] == group["rec"]
        (positive,) = (i for i, c in zip(group["item"], group["click"], strict=True) if c)
        assert positive in chosen and set(group["item"]) - {positive} <= known - chosen
        past = sorted((t, i) for u, i, t in pairs if u == group["user"] and t < group["time"])
        assert group["history"] == [i for _, i in past][-20:]


def test_later_comments_change_nothing_before_them(tmp_path: Path) -> None:
    """Comments after a time leave every earlier group as it was; negatives too follow the past alone."""
    write(tmp_path)
    pairs = sorted(pl.read_csv(tmp_path / "MicroLens-100k_pairs.csv").rows(), key=lambda p: p[2])
    cut = pairs[len(pairs) // 2][2]
    _, whole = build(tmp_path / "whole", pairs=pairs)
    _, part = build(tmp_path / "part", pairs=[p for p in pairs if p[2] < cut])
    early = whole.groups.filter(pl.col("time") < cut)
    assert_frame_equal(early, part.groups)


def test_titles_in_both_layouts(tmp_path: Path) -> None:
    texts = {
        1: "Cats, dogs and others", 2: "Plain", 3: '"Why?", she asked', 4: None, 5: "wide spaces", 6: "Ünï",
        7: 'half "quoted', 8: "x", 9: None,
    }  # fmt: skip
    for variant in ("50k", "100k"):
        _, tables = build(tmp_path / variant, variant)
        assert dict(tables.items.select("item", "text").rows()) == texts


def test_categories_are_of_100k_and_may_be_missing(tmp_path: Path) -> None:
    dataset, tables = build(tmp_path / "a")
    assert [t.name for t in dataset.tasks] == ["click", "rec", "interest"]
    assert dataset.tasks[2].classes == ("Food", "Music, Dance", "Pets")
    assert tables.items["category"].to_list() == ["Pets", "Food", "Music, Dance", "Food", "Food", *[None] * 4]
    small, without = build(tmp_path / "b", "50k")
    assert [t.name for t in small.tasks] == ["click", "rec"] and without.items["category"].null_count() == 9
    (tmp_path / "a" / "tags_to_summary.csv").unlink()
    again = type(dataset)()
    assert_frame_equal(again.build(fetch(again.sources, tmp_path / "into", tmp_path / "a")).rows, tables.rows)
    assert again.tasks == small.tasks
    assert all(isinstance(s, Local) for s in (*dataset.sources, *small.sources))
    assert not any("likes" in name for s in (*dataset.sources, *small.sources) for name in s.published)


def test_order_of_lines_does_not_matter_and_later_comments_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="bench.datasets.microlens"):
        _, one = build(tmp_path / "one")
    assert [r.getMessage().split(": ")[1] for r in caplog.records] == ["left out 1 later comments on the same video"]
    _, other = build(tmp_path / "other", pairs=PAIRS[::-1])
    for name in TABLES:
        assert_frame_equal(getattr(one, name), getattr(other, name))


def test_columns_keep_the_contract(tmp_path: Path) -> None:
    dataset, tables = build(tmp_path)
    sides = {"user": [*tables.groups.columns, *tables.users.columns], "item": tables.items.columns}
    assert all(f.name in sides[f.side] and f.name not in dataset.forbidden for f in dataset.fields)
    assert "item" not in tables.groups.columns  # the choice itself


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        text = (folder / name).read_text("utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1), "utf-8")

    return act


PAIR_FILE, TITLE_FILE = "MicroLens-100k_pairs.csv", "MicroLens-100k_title_en.csv"


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (replace(PAIR_FILE, "\n9,6,", "\nu9,6,"), f"{PAIR_FILE}, line 3: user 'u9' is not a whole number"),
        (replace(PAIR_FILE, "timestamp", "time"), f"{PAIR_FILE}, line 1: no column 'timestamp'"),
        (replace(PAIR_FILE, "\n1,4,70", "\n1,4,"), f"{PAIR_FILE}, line 10: timestamp '' is not a whole number"),
        (replace(TITLE_FILE, "2,Plain", "Plain"), f"{TITLE_FILE}, line 2: 'Plain' has no video number"),
        (replace(TITLE_FILE, "2,Plain", "1,Plain"), f"{TITLE_FILE}, line 2: '1,Plain' names a video again"),
        (replace("tags_to_summary.csv", "4,", "four,"), "tags_to_summary.csv, line 4: 'four,Food' has no video number"),
        (lambda folder: (folder / TITLE_FILE).write_bytes(b""), f"{TITLE_FILE}: holds no rows"),
        (lambda folder: (folder / TITLE_FILE).write_bytes(b"1,\xff\n"), f"{TITLE_FILE}: cannot be read as utf-8 text"),
    ],
)  # fmt: skip
def test_bad_files_are_named(tmp_path: Path, act: Callable[[Path], None], message: str) -> None:
    dataset, _ = build(tmp_path)
    act(tmp_path)
    with pytest.raises(BenchError) as caught:
        dataset.build(fetch(dataset.sources, tmp_path / "into", tmp_path))
    assert "\n" not in str(caught.value) and message in str(caught.value)


def test_titles_of_50k_may_not_repeat_and_logs_may_not_be_too_short(tmp_path: Path) -> None:
    dataset, _ = build(tmp_path, "50k")
    replace("MicroLens-50k_titles.csv", "\n2,", "\n1,")(tmp_path)
    with pytest.raises(BenchError, match=r"MicroLens-50k_titles\.csv, line 3: item '1' appears twice"):
        dataset.build(fetch(dataset.sources, tmp_path / "into", tmp_path))
    with pytest.raises(BenchError, match=r"MicroLens-100k_pairs\.csv: too few comments"):
        build(tmp_path / "short", pairs=PAIRS[:4])
