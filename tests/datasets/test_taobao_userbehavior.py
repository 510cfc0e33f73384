"""Taobao UserBehavior from hand-made lines: visits, the six hours after a view, times outside the nine days."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from bench.api import Tables
from bench.datasets import taobao_userbehavior
from bench.datasets.taobao_userbehavior import DAY, END, FIRST, HORIZON, TaobaoUserBehavior
from bench.errors import BenchError
from tests.support.formats.taobao_userbehavior import write

Event = tuple[int, int, int, str, int]
A, B = FIRST + 1000, FIRST + DAY

# user, item, category, behavior, time
EVENTS: tuple[Event, ...] = (
    (10, 2, 72, "pv", A + 1800), (10, 1, 71, "pv", A), (10, 1, 71, "pv", A + 60),  # one visit, out of order
    (10, 3, 73, "pv", A + 3601),  # a second too late: another
    (10, 1, 79, "cart", A), (10, 1, 71, "buy", A + HORIZON), (10, 1, 71, "fav", A - 1),
    (10, 2, 72, "buy", A + 1800 + HORIZON + 1), (10, 2, 72, "fav", A + 1900), (10, 3, 73, "buy", A + 3601),
    (10, 4, 74, "buy", A),  # never viewed
    (20, 1, 71, "pv", B), (20, 1, 71, "pv", B),  # the same line twice
    (20, 1, 71, "pv", END - HORIZON), (20, 2, 72, "pv", END - HORIZON + 1801),  # known when the log ends; after
    (20, 1, 71, "pv", FIRST - 1), (20, 1, 71, "buy", END), (20, 9, 99, "pv", 12),  # outside the nine days
    (25, 1, 71, "pv", A),  # not one in ten
)  # fmt: skip


def file(folder: Path, events: Sequence[Sequence[object]] = EVENTS, end: str = "\n") -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "UserBehavior.csv"
    path.write_text("\n".join(",".join(map(str, row)) for row in events) + end)
    return {"UserBehavior.csv": path}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return TaobaoUserBehavior().build(file(tmp_path_factory.mktemp("hand")))


def test_visits_and_histories_by_hand(tables: Tables) -> None:
    found = tables.groups.select("user", "time", "known", "history", "history_time").rows()
    assert found == [
        (10, A, A + 1800 + HORIZON, [], None),
        (10, A + 3601, A + 3601 + HORIZON, [1, 2], A + 1800),  # item 1 once, by its first view
        (20, B, B + HORIZON, [], None),
        (20, END - HORIZON, END, [1], B),
    ]
    assert tables.users.rows() == [(10,), (20,)]


def test_labels_by_hand(tables: Tables) -> None:
    labels = ["item", "cart", "fav", "buy", "buy_given_cart", "rec", "rank"]
    assert tables.rows.select(labels).rows() == [
        (1, 1, 0, 1, 1, 1, 1.0),  # bought at the last moment; favourite a second before the view
        (2, 0, 1, 0, None, 0, 0.5),  # bought a second after the last moment
        (3, 0, 0, 1, None, 1, 1.0),
        (1, 0, 0, 0, None, 0, 0.0),
        (1, 0, 0, 0, None, 0, 0.0),
    ]


def test_items_are_the_viewed_ones_in_the_category_of_their_first_event(tables: Tables) -> None:
    # Item 1: the favourite a second before the first view. Item 4 was never viewed, item 9 not in these days.
    assert tables.items.select("item", "category").rows() == [(1, 71), (2, 72), (3, 73)]
    assert tables.items["text"].null_count() == 3


def test_what_is_dropped_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        TaobaoUserBehavior().build(file(tmp_path))
    assert "3 of 18 events are outside the nine days" in caplog.text


def test_one_in_keeps_users_by_number(tmp_path: Path) -> None:
    assert TaobaoUserBehavior(one_in=5).build(file(tmp_path)).users.rows() == [(10,), (20,), (25,)]
    with pytest.raises(BenchError, match="holds no rows to use"):
        TaobaoUserBehavior(one_in=30).build(file(tmp_path))
    with pytest.raises(BenchError, match="one_in must be at least 1"):
        TaobaoUserBehavior(one_in=0)


def test_a_log_without_the_last_days_gives_the_same_visits(tmp_path: Path) -> None:
    """Nothing after a visit's known time is in its rows, labels or histories."""
    write(tmp_path)
    path = tmp_path / "UserBehavior.csv"
    whole = TaobaoUserBehavior().build({"UserBehavior.csv": path})
    until = FIRST + 5 * DAY
    kept = [line for line in path.read_text().splitlines() if int(line.split(",")[4]) <= until]
    cut = TaobaoUserBehavior().build(file(tmp_path / "cut", [[line] for line in kept]))
    key, wanted = ["user", "time"], pl.col("known") <= until
    early = [t.groups.filter(wanted).sort(key) for t in (whole, cut)]
    assert early[0].height > 40
    assert_frame_equal(early[0].drop("group"), early[1].drop("group"))
    rows = [
        t.rows.join(g.select("group", *key), on="group").drop("group").sort(*key, "item")
        for t, g in zip((whole, cut), early, strict=True)
    ]
    assert_frame_equal(*rows)


def test_split_follows_the_days_of_china() -> None:
    assert FIRST == 1_511_568_000 - 8 * 3600  # midnight UTC, eight hours earlier
    split = TaobaoUserBehavior.split
    assert split.absolute and (split.valid, split.test) == (END - 2 * DAY, END - DAY)
    assert not {f.name for f in TaobaoUserBehavior.fields} & set(TaobaoUserBehavior.forbidden)


@pytest.mark.parametrize(
    ("line", "old", "new", "message"),
    [
        (2, "10,1", "ten,1", "line 2: user 'ten' is not a whole number"),
        (2, ",pv,", ",click,", "line 2: behavior 'click' is not one of pv, cart, fav, buy"),
        (2, ",71,pv", "", "line 2: 3 columns instead of 5"),
        (2, ",71,", ",,", "line 2: category '' is not a whole number"),
        (2, ",pv,", ",pv,1,", "line 2: 6 columns instead of 5"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, line: int, old: str, new: str, message: str) -> None:
    raw = file(tmp_path)
    path = raw["UserBehavior.csv"]
    rows = path.read_text().split("\n")
    assert old in rows[line - 1]
    rows[line - 1] = rows[line - 1].replace(old, new, 1)
    path.write_text("\n".join(rows))
    with pytest.raises(BenchError) as caught:
        TaobaoUserBehavior().build(raw)
    assert f"{path}, {message}" in str(caught.value) and "\n" not in str(caught.value)


def test_ends_of_the_file(tmp_path: Path, tables: Tables) -> None:
    """The end of the last line may be missing; a last line that is cut off is refused or has an impossible time."""
    whole = TaobaoUserBehavior().build(file(tmp_path, end=""))
    assert_frame_equal(whole.rows, tables.rows)
    cut = file(tmp_path, [*EVENTS, (10, 1, 71, "pv", str(A)[:-1])], end="")
    assert_frame_equal(TaobaoUserBehavior().build(cut).rows, tables.rows)
    with pytest.raises(BenchError, match="line 20: 4 columns instead of 5"):
        TaobaoUserBehavior().build(file(tmp_path, [*EVENTS, (10, 1, 71, "p")], end=""))


def test_pieces_tell_the_share_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file read in several pieces gives the same rows, and each piece tells how far the work is."""
    raw, shares = file(tmp_path), []
    whole = TaobaoUserBehavior(one_in=1).build(raw)
    monkeypatch.setattr(taobao_userbehavior, "SLICE", raw["UserBehavior.csv"].stat().st_size / 2)
    dataset = TaobaoUserBehavior(one_in=1)
    dataset.report_share = shares.append
    pieces = dataset.build(raw)
    assert shares == [0.5, 1.0]
    for name in ("rows", "groups"):
        one, other = (getattr(t, name).drop("group") for t in (whole, pieces))
        assert_frame_equal(one, other, check_row_order=False)
