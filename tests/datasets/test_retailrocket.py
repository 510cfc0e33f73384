"""Retailrocket from hand-made files: the funnel within a day, categories as of the view, negatives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from bench.api import Tables
from bench.datasets.retailrocket import HORIZON, PROPERTIES, Retailrocket
from bench.errors import BenchError
from tests.support.formats.retailrocket import write

H = 3_600_000
Event = tuple[int, int, str, int, str]

# Visitors 1 to 3 view five items first; from time 10 on others have four items to choose from.
EVENTS: tuple[Event, ...] = (
    (30, 4, "view", 5, ""), (20, 3, "view", 4, ""),  # out of order
    (10, 1, "view", 1, ""), (10, 1, "view", 2, ""), (11, 2, "view", 3, ""), (12, 2, "view", 1, ""),
    (40, 4, "view", 6, ""), (45, 4, "view", 6, ""), (45, 4, "addtocart", 6, ""), (30, 4, "addtocart", 5, ""),
    (40 + HORIZON, 4, "transaction", 6, "7"), (31 + HORIZON, 4, "transaction", 5, "8"),
    (50, 5, "view", 1, ""), (60, 5, "transaction", 1, "9"), (49, 5, "addtocart", 2, ""), (70, 5, "view", 3, ""),
    (80 + HORIZON, 6, "view", 1, ""),  # the last event
    (81, 6, "view", 2, ""),  # its day is not over
)  # fmt: skip
SHOWN = (
    (0, 6, "categoryid", "11"), (60, 3, "categoryid", "2"), (71, 3, "categoryid", "11"), (50, 1, "categoryid", "1"),
    (0, 6, "790", "n12.000 77"), (0, 4, "categoryid", "999"), (45, 1, "categoryid", "2"),
)  # fmt: skip
TREE = ((1, ""), (11, 1), (111, 11), (2, ""), (5, 999))


def files(
    folder: Path,
    events: Sequence[Sequence[object]] = EVENTS,
    shown: Sequence[Sequence[object]] = SHOWN,
    tree: Sequence[Sequence[object]] = TREE,
) -> dict[str, Path]:
    contents = {
        "events.csv": ("timestamp,visitorid,event,itemid,transactionid", events),
        PROPERTIES[0]: ("timestamp,itemid,property,value", shown[:3]),
        PROPERTIES[1]: ("timestamp,itemid,property,value", shown[3:]),
        "category_tree.csv": ("categoryid,parentid", tree),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, (header, rows) in contents.items():
        lines = [header, *(",".join(map(str, row)) for row in rows)]
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    return {name: folder / name for name in contents}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return Retailrocket().build(files(tmp_path_factory.mktemp("hand")))


def test_groups_by_hand(tables: Tables) -> None:
    # At 30 the items 1-4 were met. The view at 81 is less than a day before the last event.
    assert tables.groups.select("user", "time", "history", "history_time", "interest").rows() == [
        (4, 30, [], None, None),
        (4, 40, [5], 30, "1"),  # category 11, below 1
        (5, 50, [], None, "1"),
        (5, 70, [1], 50, "2"),
    ]
    assert (tables.groups["known"] - tables.groups["time"]).unique().to_list() == [HORIZON]
    assert tables.rows.filter(pl.col("group") == 0)["item"].to_list() == [1, 2, 3, 4, 5]


def test_funnel_by_hand(tables: Tables) -> None:
    labels = ["item", "rec", "cart", "buy", "buy_given_cart", "rank"]
    viewed = tables.rows.filter(pl.col("view") == 1)
    assert viewed.select(labels).rows() == [
        (5, 1, 1, 0, 0, pytest.approx(2 / 3)),  # bought a millisecond after the horizon
        (6, 1, 1, 1, 1, 1.0),  # bought at its last moment; the second view adds nothing
        (1, 1, 1, 1, 1, 1.0),  # bought without a cart in the log
        (3, 1, 0, 0, None, pytest.approx(1 / 3)),
    ]
    others = tables.rows.filter(pl.col("view") == 0)
    assert others.select(pl.col("cart", "buy", "buy_given_cart").null_count()).row(0) == (16, 16, 16)
    assert (others["rank"] == 0).all() and (others["rec"] == 0).all()


def test_categories_are_those_published_by_then(tables: Tables) -> None:
    found = tables.rows.join(tables.groups.select("group", "time"), on="group")
    shown = {(t, i): (c, top) for t, i, c, top in found.select("time", "item", "category", "top").iter_rows()}
    known = {
        1: lambda t: (1, 1) if t >= 50 else (2, 2) if t >= 45 else (None, None),
        3: lambda t: (2, 2) if t >= 60 else (None, None),
        4: lambda t: (999, None),  # in no tree
        6: lambda t: (11, 1),
    }
    for (time, item), pair in shown.items():
        assert pair == known.get(item, lambda t: (None, None))(time), (time, item)
    assert {item for _, item in shown} == {1, 2, 3, 4, 5, 6}


def test_interest_has_the_roots_as_classes(tmp_path: Path) -> None:
    dataset = Retailrocket()
    dataset.build(files(tmp_path))
    assert dataset.tasks[-1].classes == ("1", "2", "999")
    assert Retailrocket.tasks[-1].classes == ()
    assert not {f.name for f in dataset.fields} & set(dataset.forbidden)


def test_later_events_and_categories_change_nothing_before(tmp_path: Path) -> None:
    write(tmp_path)
    raw = {name: tmp_path / name for name in ("events.csv", *PROPERTIES, "category_tree.csv")}
    whole = Retailrocket().build(raw)
    until = int(whole.groups["time"].sort()[whole.groups.height // 2])
    for name, path in raw.items():
        if name != "category_tree.csv":
            header, *lines = path.read_text().splitlines()
            kept = [line for line in lines if int(line.split(",")[0]) <= until + HORIZON]
            path.write_text("\n".join([header, *kept]) + "\n")
    cut = Retailrocket().build(raw)
    key = ["user", "time", "item"]
    viewed = [
        t.rows.filter(pl.col("view") == 1).join(t.groups, on="group").sort(key).drop("group") for t in (whole, cut)
    ]
    assert_frame_equal(viewed[0].filter(pl.col("time") <= cut.groups["time"].max()), viewed[1])
    assert viewed[1].height > 100


@pytest.mark.parametrize(
    ("name", "line", "old", "new", "message"),
    [
        ("events.csv", 3, "20,", "2o,", "line 3: timestamp '2o' is not a whole number"),
        ("events.csv", 3, "view", "look", "line 3: event 'look' is not one of view, addtocart, transaction"),
        ("events.csv", 3, ",4,", ",", "line 3: 4 columns instead of 5"),
        ("events.csv", 3, ",4,", ",,", "line 3: itemid '' is not a whole number"),
        ("events.csv", 1, "visitorid", "visitor", "line 1: no column 'visitorid'"),
        (PROPERTIES[0], 2, ",11", ",n11.000", "line 2: value 'n11.000' of a categoryid is not a whole number"),
        (PROPERTIES[1], 3, "0,6", "0,six", "line 3: itemid 'six' is not a whole number"),
        ("category_tree.csv", 3, "11,1", "11,one", "line 3: parentid 'one' is not a whole number"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, name: str, line: int, old: str, new: str, message: str) -> None:
    raw = files(tmp_path)
    rows = raw[name].read_text().split("\n")
    assert old in rows[line - 1]
    rows[line - 1] = rows[line - 1].replace(old, new, 1)
    raw[name].write_text("\n".join(rows))
    with pytest.raises(BenchError) as caught:
        Retailrocket().build(raw)
    assert f"{raw[name]}, {message}" in str(caught.value) and "\n" not in str(caught.value)


def test_other_faults(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="categoryid '1' is its own ancestor"):
        Retailrocket().build(files(tmp_path, tree=((1, 11), (11, 1), (2, ""))))
    with pytest.raises(BenchError, match="no view is a day older than the last event"):
        Retailrocket().build(files(tmp_path, EVENTS[:6]))
    with pytest.raises(BenchError, match="too few views"):
        Retailrocket().build(files(tmp_path, [*EVENTS[2:6], EVENTS[-2]]))
    raw = files(tmp_path)
    raw["events.csv"].write_bytes(raw["events.csv"].read_bytes()[:-1])
    with pytest.raises(BenchError, match="events.csv: ends in the middle of a line"):
        Retailrocket().build(raw)
