"""Yambda from small hand-made parquet files: sessions, reactions within the horizon, histories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from bench.api import Tables
from bench.datasets.logs.histories import around
from bench.datasets.yambda import COLUMNS, Yambda
from bench.errors import BenchError

Listen = tuple[int, int, int, int, int, int]

# user, track, time, organic, played per cent, seconds
LISTENS: tuple[Listen, ...] = (
    (1, 10, 1000, 1, 100, 180), (1, 11, 1005, 0, 49, 200), (1, 10, 2805, 0, 130, 180),  # 30 minutes: one session
    (1, 12, 4610, 1, 50, 60), (1, 11, 4610, 1, 0, 200),  # 30 minutes and 5 seconds: another
    (2, 10, 1000, 0, 51, 180), (2, 13, 9000, 1, 7, 30),
    (1, 12, 10_000, 1, 100, 60),  # the log ends before its known time
)  # fmt: skip
LIKES = ((1, 10, 900), (1, 11, 1000), (1, 12, 6410), (2, 10, 2800), (2, 13, 8995), (1, 13, 4610), (1, 10, 1100))
DISLIKES = ((2, 13, 10_800), (1, 11, 6411), (2, 10, 2801), (3, 99, 5))


def files(
    folder: Path,
    listens: Sequence[Listen] = LISTENS,
    likes: Sequence[Sequence[int]] = LIKES,
    dislikes: Sequence[Sequence[int]] = DISLIKES,
) -> dict[str, Path]:
    raw = {}
    for name, rows in (("listens", listens), ("likes", likes), ("dislikes", dislikes)):
        frame = pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS[name], pl.UInt32), orient="row")
        raw[name] = folder / f"{name}.parquet"
        frame.with_columns(another=pl.lit("x")).write_parquet(raw[name])
    return raw


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return Yambda().build(files(tmp_path_factory.mktemp("hand")))


def test_sessions_and_histories_by_hand(tables: Tables) -> None:
    # The log ends at 10,000: the sessions of user 1 at 10,000 and of user 2 at 9,000 are not known by then.
    assert tables.groups.select("group", "user", "time", "known", "history", "history_time").rows() == [
        (0, 1, 1000, 4605, [], None),
        (1, 1, 4610, 6410, [10, 10], 2805),  # not 11: less than half was played
        (3, 2, 1000, 2800, [], None),
    ]
    assert tables.users.rows() == [(1,), (2,)]


def test_labels_by_hand(tables: Tables) -> None:
    assert tables.rows.select("group", "item", "organic", "listen_plus", "rec", "like", "dislike").rows() == [
        (0, 10, 1, 1, 1, None, 0),  # liked before the session, and again in it
        (0, 11, 0, 0, 0, 1, 0),  # liked at its start; disliked in the second session
        (0, 10, 0, 1, 1, None, 0),
        (1, 12, 1, 1, 1, 1, 0),  # liked at the last moment of the horizon
        (1, 11, 1, 0, 0, None, 0),  # liked in the first session; disliked a second after the horizon
        (3, 10, 0, 1, 1, 1, 0),  # liked at the last moment, disliked a second later
    ]
    assert tables.rows["rank"].to_list() == pytest.approx([1, 0.49, 1, 0.5, 0, 0.51])


def test_tracks_have_a_length_and_no_text(tables: Tables) -> None:
    assert tables.items["item"].to_list() == [10, 11, 12, 13]
    assert tables.items["length"].to_list() == pytest.approx(np.log1p([180, 200, 60, 30]))
    assert tables.items["text"].null_count() == 4


def test_one_in_keeps_users_by_number(tmp_path: Path) -> None:
    listens = [*LISTENS, (2, 10, 20_000, 1, 1, 1)]
    assert Yambda(one_in=2).build(files(tmp_path, listens)).users.rows() == [(2,)]


def random_files(folder: Path, seed: int, until: int = 10**9) -> dict[str, Path]:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, 40_000, 400)) * 5
    listens = [(int(rng.integers(4)), int(rng.integers(6)), int(t), 1, int(rng.integers(140)), 100) for t in times]
    events = [[(int(rng.integers(4)), int(rng.integers(6)), int(t)) for t in times[k::4]] for k in (1, 2)]
    kept = [[row for row in rows if row[2] <= until] for rows in (listens, *events)]
    return files(folder, *kept)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(3))
def test_a_log_cut_off_later_gives_the_same_sessions(tmp_path: Path, seed: int) -> None:
    """Nothing after a session's known time is in its rows, labels or histories."""
    whole = Yambda().build(random_files(tmp_path, seed))
    until = int(whole.groups["known"].sort()[whole.groups.height // 2])
    cut = Yambda().build(random_files(tmp_path, seed, until))
    last = cut.groups["known"].max()
    expected = whole.groups.filter(pl.col("known") <= last)
    key = ["user", "time"]
    assert expected.height == cut.groups.height > 5
    assert_frame_equal(expected.drop("group").sort(key), cut.groups.drop("group").sort(key))
    both = [t.rows.join(t.groups.select("group", *key), on="group", maintain_order="left") for t in (whole, cut)]
    both = [rows.drop("group").sort(key, maintain_order=True) for rows in both]
    assert_frame_equal(both[0].join(expected.select(key), on=key, how="semi", maintain_order="left"), both[1])


@pytest.mark.parametrize("seed", range(4))
def test_around_against_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = pl.DataFrame(rng.integers(0, 4, (60, 2)), schema=["user", "item"]).with_columns(
        time=pl.Series(rng.integers(0, 20, 60)), known=pl.Series(rng.integers(20, 30, 60))
    )
    events = pl.DataFrame(rng.integers(0, 4, (15, 2)), schema=["user", "item"])
    events = events.with_columns(time=pl.Series(rng.integers(0, 40, 15)))
    for (user, item, time, known), found in zip(rows.rows(), around(rows, events).rows(), strict=True):
        own = [t for u, i, t in events.rows() if (u, i) == (user, item)]
        assert found == (any(t < time for t in own), any(time <= t <= known for t in own))


def test_split_is_the_publishers_last_day() -> None:
    assert (Yambda.split.valid, Yambda.split.test) == (26_000_000 - 2 * 86_400, 26_000_000 - 86_400)
    assert not {f.name for f in Yambda.fields} & set(Yambda.forbidden)
    chosen = type("Chosen", (Yambda,), {"variant": "50m"})()
    assert chosen.sources[0].published["likes"] == "flat/50m/likes.parquet"


def test_faults_are_named(tmp_path: Path) -> None:
    raw = files(tmp_path)
    pl.read_parquet(raw["likes"]).drop("uid").write_parquet(raw["likes"])
    with pytest.raises(BenchError, match=r"likes.parquet: no column 'uid'; found item_id"):
        Yambda().build(raw)
    raw = files(tmp_path)
    frame = pl.read_parquet(raw["listens"])
    frame.with_columns(uid=pl.lit("someone")).write_parquet(raw["listens"])
    with pytest.raises(BenchError, match="listens.parquet: column 'uid' is String, not Int32"):
        Yambda().build(raw)
    frame.with_columns(item_id=pl.when(pl.col("item_id") > 10).then("item_id")).write_parquet(raw["listens"])
    with pytest.raises(BenchError, match="listens.parquet: column 'item_id' has 3 nulls"):
        Yambda().build(raw)
    with pytest.raises(BenchError, match="listens.parquet: no session ends 1800 s before the log does"):
        Yambda().build(files(tmp_path, LISTENS[:1]))
