"""The Complete Journey from small hand-made parquet files."""

from __future__ import annotations

from datetime import datetime, timedelta
from math import log1p
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from bench.api import Tables
from bench.datasets.complete_journey import DEMOGRAPHICS, DEPARTMENTS, CompleteJourney
from bench.errors import BenchError
from tests.support.formats.complete_journey import COUPONS, LINES, MAILED, PEOPLE, PRODUCTS, A, B, C
from tests.support.formats.complete_journey import tables as write

DAY = 86_400


def seconds(text: str) -> int:
    return int((datetime.fromisoformat(text) - datetime(1970, 1, 1)).total_seconds())


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return CompleteJourney().build(write(tmp_path))


def test_mailings_and_histories_by_hand(tables: Tables) -> None:
    groups = tables.groups.select("group", "user", "time", "known", "campaign_type", "history", "history_time").rows()
    first, later = seconds("2017-03-01"), seconds("2017-03-20")
    assert groups == [
        (0, 1, first, first + 26 * DAY, "Type B", [5, 1], first - 1),
        (1, 2, first, first + 26 * DAY, "Type B", [], None),
        (2, 1, later, later + 26 * DAY, "Type C", [5, 2, 3, 6, 1], seconds("2017-03-19 12:00:00")),
    ]


def test_activity_by_hand(tables: Tables) -> None:
    # Basket 100 is 59 days before campaign 1: outside the 56 days of activity, inside the history.
    assert tables.groups["recent_baskets"].to_list() == pytest.approx([log1p(1), 0, log1p(3)])
    assert tables.groups["recent_spend"].to_list() == pytest.approx([log1p(3), 0, log1p(14.5)])
    assert tables.groups["days_since_basket"].to_list() == pytest.approx([log1p(1 / DAY), log1p(400), log1p(0.5)])


def test_labels_by_hand(tables: Tables) -> None:
    labels = tables.rows.select("group", "item", "buy", "redeem", "redeem_given_buy", "rank", "rec").rows()
    assert labels == [
        (0, A, 1, 1, 1, 1.0, 1),
        (0, B, 1, 0, 0, 0.5, 1),
        (1, A, 0, 0, None, 0.0, 0),  # redeemed one day too late
        (1, B, 1, 1, 1, 1.0, 1),  # redeemed without a purchase in the log
        (2, A, 1, 0, 0, 0.5, 1),
        (2, C, 0, 0, None, 0.0, 0),  # bought at the end of the horizon; redeemed in another campaign
    ]
    assert tables.groups["interest"].to_list() == ["OTHER", None, "GROCERY"]  # pastry is not among the classes


def test_pair_features_by_hand(tables: Tables) -> None:
    rows = {(g, i): f for g, i, *f in tables.rows.select(
        "group", "item", "times_bought", "days_since_bought", "category_bought").rows()}  # fmt: skip
    never = log1p(400)
    assert rows[0, A] == pytest.approx([log1p(1), log1p(1 / DAY), log1p(1)])  # soup: most of the coupon's products
    assert rows[0, B] == pytest.approx([0, never, 0])
    assert rows[1, A] == pytest.approx([0, never, 0])
    # In campaign 5 coupon A stands for product 4, never bought before; its category stays that of its first mailing.
    assert rows[2, A] == pytest.approx([0, never, log1p(2)])
    assert rows[2, C] == pytest.approx([0, never, 0])


def test_items_by_hand(tables: Tables) -> None:
    items = {row[0]: row[1:] for row in tables.items.rows()}
    assert sorted(items) == [1, 2, 3, 5, 6, A, B, C]  # products 4, 7 and 8 are in no history
    assert items[1] == ("product", "GROCERY", "SOUP", "11", "National", "grocery; soup; ramen; national brand; 3 oz")
    assert items[5] == ("product", "MISCELLANEOUS", None, "15", "National", "miscellaneous; national brand")
    text = "coupon: soup; types brie, broth, ramen; national brand"
    assert items[A] == ("coupon", "GROCERY", "SOUP", "11", "National", text)
    assert items[C] == ("coupon", "PRODUCE", "APPLES", "17", "National", "coupon: apples; types gala; national brand")


def test_users_by_hand(tables: Tables) -> None:
    assert tables.users.select("user", *DEMOGRAPHICS).rows() == [
        (1, "45-54", "50-74K", None, "Married", "2", "0"), (2, *[None] * 6),
    ]  # fmt: skip


def test_a_coupon_text_names_six_types_at_most(tmp_path: Path) -> None:
    goods = [(n, 1, "DELI", "Private", "CHEESE", f"TYPE {n % 8}", None) for n in range(1, 12)]
    raw = write(tmp_path, products=goods, coupons=[(A, n, 1) for n in range(1, 12)])
    text = CompleteJourney().build(raw).items.filter(kind="coupon")["text"][0]
    assert text == "coupon: cheese; types type 1, type 2, type 3, type 0, type 4, type 5 and others; private brand"


def test_unknown_products_stay_in_histories(tmp_path: Path) -> None:
    built = CompleteJourney().build(write(tmp_path, products=PRODUCTS[1:]))
    lost = built.items.filter(item=1)
    assert lost["text"].to_list() == ["unknown product"] and lost["department"].to_list() == [None]


def test_interest_takes_the_next_basket_and_breaks_ties_by_name(tmp_path: Path) -> None:
    late = [(2, 108, 2, 1, 4.0, "2017-03-02 10:00:00"), (2, 108, 1, 1, 2.0, "2017-03-02 10:00:00"),
            (2, 108, 7, 1, 2.0, "2017-03-02 10:00:00"), (2, 109, 4, 9, 90.0, "2017-03-03 10:00:00")]  # fmt: skip
    built = CompleteJourney().build(write(tmp_path, transactions=LINES + late))
    assert built.groups["interest"].to_list()[1] == "DELI"  # 4.00 in each of two departments


def test_columns_keep_the_contract(tables: Tables) -> None:
    dataset = CompleteJourney()
    sides = {"user": [*tables.groups.columns, *tables.users.columns], "item": tables.items.columns,
             "pair": tables.rows.columns}  # fmt: skip
    for field in dataset.fields:
        assert field.name in sides[field.side] and field.name not in dataset.forbidden
    for task in dataset.tasks:
        assert task.name in (tables.groups if task.scope == "user" else tables.rows).columns
    assert not set(dataset.forbidden) & {c for t in vars(tables).values() for c in t.columns}
    assert [t.role for t in dataset.tasks[:2]] == ["ctr", "conversion"] and dataset.tasks[5].classes == DEPARTMENTS
    assert (dataset.split.valid, dataset.split.test) == (seconds("2017-10-04"), seconds("2017-12-06"))
    for words in ("calls them simulated", "real household transactions"):
        assert words in dataset.about


@pytest.mark.parametrize("seed", range(3))
def test_against_a_plain_loop_over_random_data(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    begin = datetime(2017, 1, 1)
    moments = sorted(begin + timedelta(hours=int(h)) for h in rng.integers(0, 24 * 150, 400))
    lines: list[tuple[Any, ...]] = []
    for basket, moment in enumerate(moments):
        lines += [
            (basket % 5, basket, int(product), int(rng.integers(0, 3)), 1.0, moment.isoformat(" "))
            for product in rng.choice(12, 3, replace=False)
        ]
    campaigns = {1: ("Type B", "2017-02-10"), 2: ("Type C", "2017-03-05"), 3: ("Type B", "2017-03-20")}
    coupons = [(A + int(k), int(p), c) for c in campaigns for k in range(4) for p in rng.choice(12, 2, replace=False)]
    redeemed = [(int(rng.integers(5)), A + int(rng.integers(4)), int(rng.integers(1, 4)),
                 f"2017-03-{int(rng.integers(1, 31)):02d}") for _ in range(15)]  # fmt: skip
    goods = [(p, 1, "DELI", "Private", f"CAT {p % 3}", "T", None) for p in range(12)]
    built = CompleteJourney().build(write(
        tmp_path, transactions=lines, coupons=coupons, coupon_redemptions=redeemed, products=goods, demographics=PEOPLE,
        campaigns=[(c, h) for c in campaigns for h in range(5)],
        campaign_descriptions=[(c, kind, start) for c, (kind, start) in campaigns.items()],
    ))  # fmt: skip
    assert built.groups.height == 15 and built.rows.height == 60
    of_time = {seconds(start): c for c, (_, start) in campaigns.items()}
    group = {row["group"]: row for row in built.groups.iter_rows(named=True)}
    bought = [(h, b, p, seconds(t)) for h, b, p, q, _, t in lines if q > 0]
    for group_row in group.values():
        start = group_row["time"]
        assert group_row["history_time"] < start
        last = {p: max(t for h, _, q, t in bought if h == group_row["user"] and q == p and t < start)
                for h, _, p, t in bought if h == group_row["user"] and t < start}  # fmt: skip
        assert group_row["history"] == sorted(last, key=lambda p: (last[p], p))
    for row in built.rows.iter_rows(named=True):
        user, start = group[row["group"]]["user"], group[row["group"]]["time"]
        products = {p for k, p, c in coupons if k == row["item"] and c == of_time[start]}
        mine = [(b, t) for h, b, p, t in bought if h == user and p in products]
        past = [(b, t) for b, t in mine if t < start]
        redeem = any(h == user and k == row["item"] and c == of_time[start] and 0 <= seconds(d) - start < 26 * DAY
                     for h, k, c, d in redeemed)  # fmt: skip
        assert row["redeem"] == redeem
        assert row["buy"] == (redeem or any(start <= t < start + 26 * DAY for _, t in mine))
        assert row["times_bought"] == pytest.approx(log1p(len({b for b, _ in past})))
        since = (start - max(t for _, t in past)) / DAY if past else 400
        assert row["days_since_bought"] == pytest.approx(log1p(since))


def test_the_order_of_lines_does_not_matter(tmp_path: Path, tables: Tables) -> None:
    given = {"transactions": LINES, "coupons": COUPONS, "campaigns": MAILED, "products": PRODUCTS}
    turned = {name: rows[::-1] for name, rows in given.items()}
    (tmp_path / "turned").mkdir()
    other = CompleteJourney().build(write(tmp_path / "turned", **turned))
    for name in ("groups", "rows", "items", "users"):
        assert_frame_equal(getattr(tables, name), getattr(other, name))


def fails(raw: dict[str, Path], *parts: str) -> None:
    with pytest.raises(BenchError) as caught:
        CompleteJourney().build(raw)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_faults_name_file_and_column(tmp_path: Path) -> None:
    raw = write(tmp_path)
    path = raw["transactions.parquet"]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    fails(raw, str(path), "not a readable parquet file")
    path.unlink()
    fails(raw, str(path), "not a readable parquet file")
    path.write_bytes(whole)
    frame = pl.read_parquet(path)
    frame.drop("basket_id").write_parquet(path)
    fails(raw, f"{path}: no column 'basket_id'; found household_id, product_id")
    frame.with_columns(product_id=pl.lit("milk")).write_parquet(path)
    fails(raw, f"{path}: column 'product_id' is String, not Int64")


@pytest.mark.parametrize(
    "changed", [{"transactions": LINES[2:3]}, {"campaigns": [(2, 1), (4, 3)]}, {"coupons": [(A, 1, 2)]}]
)
def test_no_usable_mailing(tmp_path: Path, changed: dict[str, list[Any]]) -> None:
    fails(write(tmp_path, **changed), "campaigns.parquet: no mailing of type B or C")


def test_one_number_for_a_coupon_and_a_product(tmp_path: Path) -> None:
    fails(write(tmp_path, coupons=[(1, 1, 1)]), "a coupon_upc is also a product_id")
