"""MovieLens-100K from hand-made files in both published layouts, and its negative sampling."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy.stats import chisquare

from bench.api import Tables
from bench.datasets.logs.negatives import popular_negatives
from bench.datasets.movielens_100k import MovieLens100K
from bench.errors import BenchError
from tests.support.formats.movielens_100k import RATINGS, Rating, official, recbole

TABLES = ("groups", "rows", "items", "users")


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return MovieLens100K().build(official(tmp_path))


def test_groups_by_hand(tables: Tables) -> None:
    groups = tables.groups.select("user", "time", "history", "history_time", "interest").rows()
    assert groups == [
        (3, 40, [], None, "Animation"),
        (2, 70, [3, 4], 20, "unknown"),
        (2, 80, [3, 4, 7], 70, "Western"),
    ]


def test_rows_by_hand(tables: Tables) -> None:
    assert tables.rows["group"].to_list() == [0] * 5 + [1] * 5 + [2] * 5
    assert tables.rows["item"].to_list() == [1, 2, 3, 4, 5, 1, 2, 5, 6, 7, 1, 2, 5, 6, 8]
    watch = [1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    assert tables.rows["watch"].to_list() == tables.rows["rec"].to_list() == watch
    watched = tables.rows.filter(pl.col("watch") == 1)
    assert watched["like"].to_list() == [1, 0, 1]
    assert watched["rank"].to_list() == [0.75, 0.25, 1.0]
    others = tables.rows.filter(pl.col("watch") == 0)
    assert others["like"].null_count() == others.height and (others["rank"] == 0).all()


def test_items_and_users_by_hand(tables: Tables) -> None:
    assert tables.items.select("item", "year", "genre", "text").rows() == [
        (1, "1995", "Animation", "Toy Story (1995). Animation, Children's, Comedy"),
        (2, "1990", "Drama", 'Say "No", Please; or Not (1990). Drama'),
        (3, "before 1950", "Drama", "Misérables, Les (The 'Poor') (1949). Drama, Musical"),
        (4, None, "unknown", "unknown. unknown"),
        (5, "1995", "Animation", "Land Before Time III (1995). Animation"),
        (6, "1980s", "Crime", "Cyclo (1989). Crime, Film-Noir"),
        (7, "1970s", "unknown", "Good Morning (1971). unknown"),
        (8, "1998", "Western", "Late, The (1998). Western"),
    ]
    assert tables.users.select("user", "age", "gender", "occupation").rows() == [
        (1, "under 18", "M", "none"), (2, "56+", "F", "writer"), (3, "18-24", "F", "other"),
    ]  # fmt: skip


def test_both_layouts_and_any_order_of_lines_give_equal_tables(tmp_path: Path, tables: Tables) -> None:
    other = MovieLens100K().build(recbole(tmp_path / "recbole", RATINGS[::-1]))
    for name in TABLES:
        assert_frame_equal(getattr(tables, name), getattr(other, name))


def test_columns_keep_the_contract(tables: Tables) -> None:
    dataset = MovieLens100K()
    sides = {"user": [*tables.groups.columns, *tables.users.columns], "item": tables.items.columns}
    for field in dataset.fields:
        assert field.name in sides[field.side] and field.name not in dataset.forbidden
    for task in dataset.tasks:
        assert task.name in (tables.groups if task.scope == "user" else tables.rows).columns
    assert tables.groups["interest"].is_in(dataset.tasks[4].classes).all()
    assert [set(source.published) for source in dataset.sources] == [
        {"u.data", "u.item", "u.user"}, {"ml-100k.inter", "ml-100k.item", "ml-100k.user"},
    ]  # fmt: skip


def random_log(seed: int) -> tuple[Rating, ...]:
    """Half of all pairs of 8 users and 8 films, at 12 different times: many ties."""
    rng = np.random.default_rng(seed)
    pairs = [(u, i) for u in range(1, 9) for i in range(1, 9) if rng.random() < 0.5]
    return tuple((u, i, int(rng.integers(1, 6)), int(rng.integers(1, 13))) for u, i in pairs)


@pytest.mark.parametrize("seed", range(8))
def test_nothing_of_the_future_is_in_a_group(tmp_path: Path, seed: int) -> None:
    log = random_log(seed)
    dataset = MovieLens100K()
    dataset.history = 3  # type: ignore[misc]
    built = dataset.build(official(tmp_path, log))
    candidates = built.rows.group_by("group", maintain_order=True).agg("item", "watch")
    groups = built.groups.join(candidates, on="group", maintain_order="left")
    expected = []
    for user, item, _, time in sorted(log, key=lambda r: (r[3], r[0], r[1])):
        met = {i for _, i, _, t in log if t < time} - {i for u, i, _, t in log if u == user and t <= time}
        if len(met) >= 4:
            expected.append((user, item, time, met))
    assert groups.height == len(expected) > 5
    for row, (user, item, time, met) in zip(groups.iter_rows(named=True), expected, strict=True):
        assert (row["user"], row["time"]) == (user, time)
        negatives = [i for i, w in zip(row["item"], row["watch"], strict=True) if not w]
        assert sorted({*negatives, item}) == row["item"] and len(row["item"]) == 5  # distinct; order tells nothing
        assert set(negatives) <= met
        past = sorted((t, i) for u, i, _, t in log if u == user and t < time)
        assert row["history"] == [i for _, i in past][-3:]
        assert row["history_time"] == (past[-1][0] if past else None)


def successive(weights: np.ndarray) -> np.ndarray:
    """Exact probabilities of ordered pairs drawn one after the other without replacement."""
    p = weights / weights.sum()
    pairs = p[:, None] * p[None, :] / (1 - p[:, None])
    np.fill_diagonal(pairs, 0)
    return pairs


@pytest.mark.parametrize("power", [0.0, 0.75, 1.0])
def test_negatives_follow_past_popularity(power: float) -> None:
    popularity = [9, 4, 2, 1]
    past = np.repeat([0, 1, 2, 3], popularity)
    probes, future = 4000, 300
    # Each probe is a new user's event at one time; item 4 occurs then, item 5 only later, and much more often.
    item = np.concatenate([past, np.full(probes, 4), np.full(future, 5)])
    time = np.concatenate([np.arange(16), np.full(probes, 100), np.full(future, 200)])
    user = np.arange(len(item))
    drawn = popular_negatives(user, item, time, 2, np.random.default_rng(5), power)[16 : 16 + probes]
    assert drawn.max() == 3 and drawn.min() == 0
    exact = successive(np.array(popularity, dtype=float) ** power)
    counts = Counter(map(tuple, drawn.tolist()))
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    test = chisquare([counts[p] for p in pairs], [exact[p] * probes for p in pairs])
    assert test.pvalue > 0.01


def test_negatives_need_enough_items_and_repeat_with_the_seed() -> None:
    user, item, time = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 2, 3, 0]), np.array([1, 2, 2, 3, 3])
    # At time 3 user 2 rates 3 and 0; items 0, 1 and 2 were met before, so that only 1 and 2 may be drawn.
    three = popular_negatives(user, item, time, 3, np.random.default_rng(1))
    assert (three == -1).all()
    two = popular_negatives(user, item, time, 2, np.random.default_rng(1))
    assert (two[:3] == -1).all() and np.sort(two[3:]).tolist() == [[1, 2], [1, 2]]
    assert (popular_negatives(user, item, time, 2, np.random.default_rng(1)) == two).all()


def edit(path: Path, line: int, old: str, new: str, encoding: str = "utf-8") -> None:
    lines = path.read_text(encoding).split("\n")
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    path.write_text("\n".join(lines), encoding)


@pytest.mark.parametrize(
    ("name", "line", "old", "new", "message"),
    [
        ("u.data", 2, "1\t1\t5\t10", "1\t1\t5", "line 2: 3 columns instead of 4"),
        ("u.data", 3, "\t3\t", "\tgood\t", "line 3: rating 'good' is not a whole number from 1 to 5"),
        ("u.data", 3, "\t3\t", "\t6\t", "line 3: rating '6'"),
        ("u.data", 5, "\t30", "\t3x", "line 5: timestamp '3x' is not a whole number of at least 1"),
        ("u.data", 1, "2\t4", "9\t4", "line 1: user_id '9' is not in the user file"),
        ("u.data", 4, "2\t3", "2\t99", "line 4: item_id '99' is not in the item file"),
        ("u.data", 3, "1\t2\t3", "1\t1\t3", "line 3: item_id '1' is rated twice"),
        ("u.item", 2, "Please", "Pl|ease", "line 2: 25 columns instead of 24"),
        ("u.item", 1, "|1|1|1|", "|1|2|1|", "line 1: Children's '2' is not 0 or 1"),
        ("u.item", 3, "3|", "1|", "item_id '1' appears twice"),
        ("u.user", 3, "24", "young", "line 3: age 'young' is not a whole number from 0 to 150"),
        ("u.user", 2, "2|", "1|", "user_id '1' appears twice"),
        ("ml-100k.inter", 1, "rating:float", "score:float", "line 1: no column 'rating'"),
        ("ml-100k.item", 1, "class:token_seq", "genre:token_seq", "line 1: no column 'class'"),
        ("ml-100k.item", 4, "Drama", "Dramma", "line 4: class 'Dramma Musical' names an unknown genre"),
        ("ml-100k.item", 5, "\tunknown", "", "line 5: 3 columns instead of 4"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, name: str, line: int, old: str, new: str, message: str) -> None:
    raw = official(tmp_path) if name.startswith("u.") else recbole(tmp_path)
    edit(raw[name], line, old, new, "latin-1" if name == "u.item" else "utf-8")
    fails(raw, str(raw[name]), message)


@pytest.mark.parametrize("name", ["u.data", "u.item", "u.user", "ml-100k.inter", "ml-100k.item", "ml-100k.user"])
def test_truncated_and_empty_files(tmp_path: Path, name: str) -> None:
    raw = official(tmp_path) if name.startswith("u.") else recbole(tmp_path)
    whole = raw[name].read_bytes()
    raw[name].write_bytes(whole[:-2])
    count = whole.count(b"\n")
    fails(raw, f"{raw[name]}, line {count}: the file ends in the middle of a line")
    raw[name].write_bytes(b"")
    fails(raw, str(raw[name]), "no column" if name.startswith("ml") else "holds no rows")
    raw[name].unlink()
    fails(raw, str(raw[name]), "cannot be read")


def test_other_encodings_and_too_few_ratings(tmp_path: Path) -> None:
    raw = recbole(tmp_path)
    raw["ml-100k.item"].write_bytes(raw["ml-100k.item"].read_text("utf-8").encode("latin-1"))
    fails(raw, "ml-100k.item", "cannot be read as utf-8 text")
    fails(official(tmp_path, RATINGS[:4]), "u.data: too few ratings")


def fails(raw: dict[str, Path], *parts: str) -> None:
    with pytest.raises(BenchError) as caught:
        MovieLens100K().build(raw)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)
