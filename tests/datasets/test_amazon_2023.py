"""Amazon Reviews 2023 from hand-made JSON lines, and the helpers that other logs share: negatives and histories."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bench.api import Tables
from bench.data.raw.source import fetch
from bench.datasets.amazon_2023 import CATEGORIES, Amazon2023
from bench.datasets.logs.histories import histories
from bench.datasets.logs.negatives import beside_others
from bench.errors import BenchError
from tests.support.formats.amazon_2023 import NAMES, write

META = (
    {"parent_asin": "A", "title": " Guitar\n string ", "store": "Acme", "categories": ["M", "Guitars", "S", "T", "U"]},
    {"parent_asin": "B", "title": "Drum, \"small\"", "store": None, "categories": ["M", "Drums"]},
    {"parent_asin": "C", "title": None, "store": "Acme", "categories": []},
    {"parent_asin": "D", "title": "Root only", "store": "", "categories": ["M"]},
    {"parent_asin": "A", "title": "Second entry", "store": "Zeta", "categories": ["M", "Drums"]},
    {"parent_asin": "Z", "title": "Never reviewed", "store": "Acme", "categories": ["M", "Drums"]},
)  # fmt: skip
# user, product, rating, time, helpful votes. E has no entry. By time 50 four products other than E were met.
REVIEWS = (
    ("u2", "B", 2.0, 20, 0), ("u1", "A", 5.0, 10, 3), ("u2", "C", 4.0, 20, 1), ("u1", "D", 3.0, 30, 0),
    ("u3", "E", 4.0, 50, 2), ("u3", "A", 1.0, 60, 0), ("u3", "A", 5.0, 61, 9), ("u4", "B", 0.0, 60, -1),
    ("u1", "B", 5.0, 70, 0), ("u5", "F", 5.0, 75, 0), ("u4", "A", 3.0, 80, 0), ("u4", "A", 5.0, 80, 0),
)  # fmt: skip


def dataset(variant: str = "musical-instruments", one_in: int = 1) -> Amazon2023:
    return type("Chosen", (Amazon2023,), {"variant": variant})(one_in=one_in)


def files(folder: Path, reviews: Any = REVIEWS, meta: Any = META) -> dict[str, Path]:
    keys = ("user_id", "parent_asin", "rating", "timestamp", "helpful_vote")
    rows = [{**dict(zip(keys, r, strict=True)), "asin": "X", "text": "nice\u2028one"} for r in reviews]
    return {
        "reviews": lines(folder / "reviews.jsonl", [json.dumps(r, ensure_ascii=False) for r in rows]),
        "meta": lines(folder / "meta.jsonl", [json.dumps({**m, "average_rating": 4.5, "price": None}) for m in meta]),
    }


def lines(path: Path, rows: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), "utf-8", newline="")
    return path


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return dataset().build(files(tmp_path_factory.mktemp("hand")))


def test_items_by_hand(tables: Tables) -> None:
    assert tables.items.select("item", "store", "category", "text").rows() == [
        ("A", "Acme", "Guitars", "Guitar string. Acme. Guitars, S, T"),
        ("B", None, "Drums", 'Drum, "small". Drums'),
        ("C", "Acme", None, "Acme"),
        ("D", None, None, "Root only"),
        ("E", None, None, None),  # no entry
        ("F", None, None, None),
    ]


def test_groups_and_labels_by_hand(tables: Tables) -> None:
    # u3 at 60 and u1 at 70 have only three other products left. u4's first review of A is the one of three stars.
    assert tables.groups.select("group", "user", "time", "history", "history_time", "interest").rows() == [
        (0, "u3", 50, [], None, None),
        (1, "u4", 60, [], None, "Drums"),
        (2, "u5", 75, [], None, None),
        (3, "u4", 80, ["B"], 60, "Guitars"),
    ]
    chosen = tables.rows.filter(pl.col("buy") == 1)
    assert chosen.select("group", "item", "rec", "like", "rank", "helpful").rows() == [
        (0, "E", 1, 1, 0.75, 1),
        (1, "B", 1, 0, 0.0, 0),  # no stars at all count as one
        (2, "F", 1, 1, 1.0, 0),
        (3, "A", 1, 0, 0.5, 0),
    ]
    assert tables.rows.filter(pl.col("group") == 0)["item"].to_list() == ["A", "B", "C", "D", "E"]
    assert tables.rows.filter(pl.col("group") == 3)["item"].to_list() == ["A", "C", "D", "E", "F"]
    others = tables.rows.filter(pl.col("buy") == 0)
    assert others["like"].null_count() == others["helpful"].null_count() == others.height == 16
    assert (others["rank"] == 0).all() and (others["rec"] == 0).all()


def test_interest_needs_two_categories_of_a_hundredth_of_the_catalogue(tmp_path: Path) -> None:
    built = dataset()
    built.build(files(tmp_path))
    assert built.tasks[-1].classes == ("Drums", "Guitars", "other")
    assert Amazon2023.tasks[-1].classes == ()  # the class stays as it was
    many = [{"parent_asin": f"X{n}", "categories": ["M", f"K{min(n // 60, 2)}"]} for n in range(122)]
    many += [{"parent_asin": letter, "categories": ["M", f"rare {letter}"]} for letter in "ABCD"]
    tables = built.build(files(tmp_path, meta=many))  # K0 and K1 hold 60 of 126, K2 two, the others one
    assert built.tasks[-1].classes == ("K0", "K1", "K2", "other")
    assert tables.groups["interest"].to_list() == [None, "other", None, "other"]
    built.build(files(tmp_path, meta=[{"parent_asin": "A", "categories": ["M", "Drums"]}]))
    assert [t.name for t in built.tasks] == ["buy", "rec", "like", "rank", "helpful"]


def test_fields_and_sources() -> None:
    assert CATEGORIES == NAMES and set(Amazon2023.variants) == set(CATEGORIES)
    for variant, name in CATEGORIES.items():
        assert variant == name.lower().replace("_", "-")
        (source,) = dataset(variant).sources
        assert source.published == {"reviews": f"{name}.jsonl", "meta": f"meta_{name}.jsonl"}
        assert name in source.how
    assert not {f.name for f in Amazon2023.fields} & set(Amazon2023.forbidden)


def test_compressed_files_are_read_and_one_in_keeps_users_by_name(tmp_path: Path) -> None:
    write(tmp_path, "video-games")
    for path in list(tmp_path.glob("*.jsonl")):
        path.with_suffix(".jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    chosen = dataset("video-games", one_in=4)
    tables = chosen.build(fetch(chosen.sources, tmp_path / "into", tmp_path))
    assert set(tables.groups["user"]) <= {f"AG{user:026}" for user in range(0, 40, 4)}
    assert tables.groups.height > 20
    with pytest.raises(BenchError, match="one_in must be at least 1"):
        dataset(one_in=0)


@pytest.mark.parametrize(
    ("name", "line", "old", "new", "message"),
    [
        ("reviews", 2, "5.0", '"five"', 'line 2: rating "five" is not a number'),
        ("reviews", 3, '"timestamp": 20', '"timestamp": 20.5', "line 3: timestamp 20.5 is not a whole number"),
        ("reviews", 3, '"user_id": "u2"', '"user": "u2"', "line 3: user_id null is not a text"),
        ("reviews", 4, "}", "", "line 4: not JSON"),
        ("reviews", 4, "{", "[", "line 4: not JSON"),
        ("meta", 2, '["M", "Drums"]', '"M"', 'line 2: categories "M" is not a list'),
        ("meta", 2, '"parent_asin": "B"', '"parent_asin": null', "line 2: parent_asin null is not a text"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, name: str, line: int, old: str, new: str, message: str) -> None:
    raw = files(tmp_path)
    rows = raw[name].read_text("utf-8").split("\n")
    assert old in rows[line - 1]
    rows[line - 1] = rows[line - 1].replace(old, new, 1)
    raw[name].write_text("\n".join(rows), "utf-8")
    with pytest.raises(BenchError) as caught:
        dataset().build(raw)
    assert f"{raw[name]}, {message}" in str(caught.value) and "\n" not in str(caught.value)


def test_too_few_reviews_and_other_objects(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="too few reviews"):
        dataset().build(files(tmp_path, REVIEWS[:4]))
    raw = files(tmp_path)
    raw["meta"].write_text("[1, 2]\n")
    with pytest.raises(BenchError, match="line 1: not a JSON object"):
        dataset().build(raw)
    raw["meta"].unlink()
    with pytest.raises(BenchError, match="no such file"):
        dataset().build(raw)


def random_log(seed: int, ids: str) -> pl.DataFrame:
    """Half of all pairs of 8 users and 9 items at 12 different times, in time order; ids as numbers or as text."""
    rng = np.random.default_rng(seed)
    pairs = [
        (f"{ids}{u}", f"{ids}{i}", int(rng.integers(12))) for u in range(8) for i in range(9) if rng.random() < 0.5
    ]
    log = pl.DataFrame(pairs, schema=["user", "item", "time"], orient="row").sort("time", "user", "item")
    log = log.with_columns(mark=pl.int_range(pl.len()))
    return log if ids else log.with_columns(pl.col("user", "item").cast(pl.Int64))


@pytest.mark.parametrize("ids", ["", "id "])
@pytest.mark.parametrize("seed", range(4))
def test_histories_against_a_plain_loop(seed: int, ids: str) -> None:
    log = random_log(seed, ids)
    at = (
        log.select("user", pl.col("time") + 1).vstack(log.select("user", pl.col("time") - 4)).sample(fraction=1, seed=1)
    )
    stranger = pl.DataFrame({"user": [log["user"].max(), log["user"].min()], "time": [99, -1]})
    at = at.vstack(stranger.cast(dict(at.schema)))
    found = histories(log.sample(fraction=1, shuffle=True, seed=seed), at, 3)
    for (user, time), (history, last) in zip(at.rows(), found.rows(), strict=True):
        past = sorted((t, i) for u, i, t, _ in log.rows() if u == user and t < time)
        assert history == [i for _, i in past][-3:]
        assert last == (past[-1][0] if past else None)


def test_histories_of_nothing() -> None:
    log = random_log(0, "")
    assert histories(log.clear(), log, 3).rows() == [([], None)] * log.height
    assert histories(log, log.clear(), 3).is_empty()


@pytest.mark.parametrize("ids", ["", "id "])
@pytest.mark.parametrize("seed", range(4))
def test_others_are_items_that_the_user_could_have_met(seed: int, ids: str) -> None:
    log = random_log(seed, ids)
    events, rows = beside_others(log, 3, (seed,))
    assert events["group"].to_list() == list(range(events.height))
    expected = []
    for user, item, time, mark in log.rows():
        met = {i for _, i, t, _ in log.rows() if t < time}
        met -= {i for u, i, t, _ in log.rows() if u == user and t <= time}
        if len(met) >= 3:
            expected.append((item, mark, met))
    assert events["mark"].to_list() == [mark for _, mark, _ in expected] and len(expected) > 5
    for group, (item, mark, met) in zip(rows.partition_by("group", maintain_order=True), expected, strict=True):
        assert group["item"].is_sorted() and group["item"].n_unique() == group.height == 4
        assert group.filter("chosen")["item"].to_list() == [item]
        assert set(group.filter(~pl.col("chosen"))["item"]) <= met
        assert group["mark"].to_list() == [mark] * 4
    again = beside_others(log, 3, (seed,))[1]
    assert again.equals(rows)
