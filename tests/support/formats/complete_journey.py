"""The Complete Journey as the package ships it: seven parquet files, dates in nanoseconds as pandas writes them."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bench.datasets.complete_journey import COLUMNS

KEYS = {
    "products.parquet": "product_id",
    "demographics.parquet": "household_id",
    "campaign_descriptions.parquet": "campaign_id",
}
A, B, C = 10_000_000_001, 10_000_000_002, 10_000_000_003  # coupons

# Campaign 1 and 5 count; 2 is of type A, 3 starts before the log, 4 is not over when the log ends.
CAMPAIGNS = {1: ("Type B", "2017-03-01"), 2: ("Type A", "2017-03-01"), 3: ("Type C", "2016-12-28"),
             4: ("Type B", "2017-04-10"), 5: ("Type C", "2017-03-20")}  # fmt: skip
MAILED = [(1, 1), (1, 2), (2, 1), (3, 1), (4, 3), (5, 1)]  # campaign, household
COUPONS = [(A, 1, 1), (A, 2, 1), (A, 2, 1), (A, 7, 1), (B, 3, 1), (A, 4, 5), (C, 8, 5), (C, 99, 5),
           (B, 5, 2), (B, 5, 3), (B, 5, 4)]  # fmt: skip
PRODUCTS = [  # product, manufacturer, department, brand, category, type, size
    (1, 11, "GROCERY", "National", "SOUP", "RAMEN", "3 OZ"),
    (2, 12, "DELI", "Private", "CHEESE", "BRIE", None),
    (3, 13, "PASTRY", "National", "BREAD", "RYE", "1 LB"),
    (4, 14, "MEAT", "National", "BEEF", "STEAK", None),
    (5, 15, "MISCELLANEOUS", "National", None, None, None),
    (6, 16, "PASTRY", "Private", "CAKE", "CAKE: 8 INCH", "1 CT"),
    (7, 11, "GROCERY", "National", "SOUP", "BROTH", None),
    (8, 17, "PRODUCE", "National", "APPLES", "GALA", "EACH"),
]
LINES = [  # household, basket, product, quantity, sales, time
    (1, 100, 5, 1, 2.00, "2017-01-01 00:00:00"),
    (1, 101, 1, 1, 3.00, "2017-02-28 23:59:59"),
    (1, 101, 3, 0, 0.00, "2017-02-28 23:59:59"),  # quantity 0: not a purchase
    (1, 102, 2, 1, 5.00, "2017-03-01 00:00:00"),  # the first moment of campaign 1
    (1, 102, 6, 1, 3.00, "2017-03-01 00:00:00"),
    (1, 102, 3, 1, 2.50, "2017-03-01 00:00:00"),  # pastry in all: 5.50
    (1, 103, 1, 2, 1.00, "2017-03-19 12:00:00"),
    (1, 104, 7, 1, 1.00, "2017-03-27 00:00:00"),  # the first moment after its horizon; in that of campaign 5
    (1, 105, 4, 1, 9.00, "2017-04-14 23:59:59"),  # the last moment of campaign 5's horizon
    (1, 106, 8, 1, 1.00, "2017-04-15 00:00:00"),
    (3, 107, 1, 1, 1.00, "2017-04-20 00:00:00"),
]
REDEEMED = [(1, A, 1, "2017-03-26"), (2, B, 1, "2017-03-05"), (2, A, 1, "2017-03-27"), (1, C, 1, "2017-03-25")]
PEOPLE = [(1, "45-54", "50-74K", None, "Married", "2", "0")]


def write(folder: Path, variant: str = "") -> None:
    """Five campaigns of four coupons each to 40 households, with some 60 baskets a household in all of 2017."""
    rng = np.random.default_rng(2017)
    begin = datetime(2017, 1, 1)
    lines: list[tuple[Any, ...]] = []
    for basket in range(40 * 60):
        when = begin + timedelta(hours=int(rng.integers(24 * 367)))
        for product in rng.choice(20, 3, replace=False).tolist():
            quantity = int(rng.integers(0, 3))
            lines.append((basket % 40, basket, product + 1, quantity, round(rng.random() * 9, 2), f"{when}"))
    starts = {1: "2017-03-01", 2: "2017-05-01", 3: "2017-07-01", 4: "2017-10-10", 5: "2017-12-06"}
    coupons = [(A + k, k + 5 * n + 1, c) for c in starts for k in range(4) for n in range(3)]
    redeemed = []
    for campaign, start in starts.items():
        for household in range(40):
            for coupon in rng.choice(4, int(rng.integers(3)), replace=False).tolist():
                day = datetime.fromisoformat(start) + timedelta(days=int(rng.integers(30)))
                redeemed.append((household, A + coupon, campaign, f"{day:%Y-%m-%d}"))
    kinds = ("GROCERY", "DELI", "PASTRY", "PRODUCE")
    tables(
        folder,
        campaign_descriptions=[(c, "Type C" if c % 2 else "Type B", start) for c, start in starts.items()],
        campaigns=[(c, h) for c in starts for h in range(40)],
        coupons=coupons,
        coupon_redemptions=redeemed,
        transactions=lines,
        products=[(p, p % 6, kinds[p % 4], "National", f"CATEGORY {p % 7}", f"TYPE {p}", None) for p in range(1, 21)],
        demographics=[(h, "45-54", "50-74K", None, "Married", str(h % 5), "0") for h in range(30)],
    )


def tables(folder: Path, **changed: list[Any]) -> dict[str, Path]:
    """The seven files with pandas' nanosecond dates, as published."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        "campaign_descriptions": [(c, kind, start) for c, (kind, start) in CAMPAIGNS.items()],
        "campaigns": MAILED, "coupons": COUPONS, "coupon_redemptions": REDEEMED, "transactions": LINES,
        "products": PRODUCTS, "demographics": PEOPLE,
    } | changed  # fmt: skip
    names = {name: list(columns) for name, columns in COLUMNS.items()}
    names["products"] = ["product_id", "manufacturer_id", "department", "brand", "product_category", "product_type",
                         "package_size"]  # fmt: skip
    for name, rows in data.items():
        dates = [c for c in names[name] if "date" in c or "timestamp" in c]
        frame = pl.DataFrame(rows, schema=names[name], orient="row")
        frame.with_columns(pl.col(dates).str.to_datetime(time_unit="ns")).write_parquet(folder / f"{name}.parquet")
    return {f"{name}.parquet": folder / f"{name}.parquet" for name in data}
