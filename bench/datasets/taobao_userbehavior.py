"""Taobao UserBehavior: which of the items viewed in a visit go into the cart, to the favourites, or are bought."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from bench.api import Dataset, Field, Tables, Task, Temporal
from bench.data.raw.source import Local
from bench.datasets.logs.histories import around, histories
from bench.datasets.logs.read import read_table, reject
from bench.datasets.logs.user_share import Thinned
from bench.errors import BenchError

HOUR, DAY = 3600, 86_400
FIRST = 1_511_539_200  # 2017-11-25 00:00 in China, where the log was made
END = FIRST + 9 * DAY  # 2017-12-04 00:00
SLICE = 128 << 20  # bytes of the file, about, whose users are worked on at a time
GAP = 1800  # seconds without a view that end a visit
HORIZON = 6 * HOUR  # after a view, in which a cart, favourite or purchase counts
COLUMNS = {"user": pl.Int64, "item": pl.Int64, "category": pl.Int64, "behavior": pl.String, "time": pl.Int64}
BEHAVIORS = ("pv", "cart", "fav", "buy")

log = logging.getLogger(__name__)


class TaobaoUserBehavior(Thinned, Dataset):
    """One group for each visit: a user's page views with at most 30 minutes from one to the next.

    Its rows are the items viewed, each once, by first view. A group's time is that of its first view, and all that
    describes the user is from before it. ``known`` is six hours after its last view; visits not known when the log
    ends (4 December 2017, 00:00 in China) are left out.

    Labels, all for the same user and item, within six hours of the item's first view in the visit (both ends
    included): ``cart``, ``fav`` and ``buy``; ``buy_given_cart`` the same as ``buy`` on rows with a cart; ``rec`` the
    same as ``buy``, compared within a visit; ``rank`` 0, 0.5 (cart or favourite) or 1 (bought). Events outside the nine
    published days are dropped; their number is logged. ``category`` of an item is that of its first event. Histories
    hold the items of earlier visits' views. Times are Unix seconds.

    one_in: keep one user in so many, by number. The file is read as a stream and other users' lines are never held.
    With the default, 10, about a tenth of 100 million events is kept, which takes about 5 GB of memory to prepare.
    """

    version = 1
    domain = "e-commerce"
    sizes = {"": "about 100M events"}
    about = (
        "Visits of Taobao users, 25 November to 3 December 2017, one user in one_in of about a million. Rows are items "
        "whose page was viewed: negatives are viewed items that nothing followed, none is sampled, and items never "
        "viewed do not occur. Carts, favourites and purchases of items that were not viewed in the six hours before "
        "are left out, as are events outside the nine days. rec and buy are one label; rank is made of cart, fav and "
        "buy. No interest task: the 9,439 categories have neither names nor a tree. Items have no text. Train: "
        "25 November to 1 December; validation: 2 December; test: 3 December until 18:00."
    )
    licence = "CC BY-NC-SA 4.0 (Tianchi; login needed)"  # [from memory]
    citation = (
        "Han Zhu, Xiang Li, Pengye Zhang, Guozheng Li, Jie He, Han Li and Kun Gai. 2018. Learning Tree-based Deep "
        "Model for Recommender Systems. KDD 2018. doi:10.1145/3219819.3219826"
    )
    url = "https://tianchi.aliyun.com/dataset/649"
    tasks = (
        Task("cart", "binary", role="add to cart"),
        Task("fav", "binary", role="favourite"),
        Task("buy", "binary", role="conversion"),
        Task("buy_given_cart", "binary", role="conversion given cart", space="rows put into the cart"),
        Task("rec", "softmax", role="rec"),
        Task("rank", "regression", role="rank", metric="ndcg@10"),
    )
    fields = (
        Field("user", "user", "id"),
        Field("item", "item", "id"),
        Field("category", "item"),
    )
    forbidden = ("behavior", "timestamp")
    history = 20
    split = Temporal(valid=FIRST + 7 * DAY, test=FIRST + 8 * DAY, absolute=True)
    sources = (
        Local(
            {"UserBehavior.csv": "UserBehavior.csv"},
            "get UserBehavior.csv.zip from https://tianchi.aliyun.com/dataset/649 (login needed)",
        ),
    )

    def __init__(self, *, one_in: int = 10) -> None:
        super().__init__(one_in=one_in)

    def build(self, raw: Mapping[str, Path]) -> Tables:
        """Standard tables from ``UserBehavior.csv``. Raises BenchError naming file and line on bad input."""
        path = raw["UserBehavior.csv"]
        slices = max(1, math.ceil(path.stat().st_size / self.one_in / SLICE))
        groups, rows, viewed, first = [], [], [], []
        visits = 0
        for number in range(slices):
            events = _events(
                path, (pl.col("user") % self.one_in == 0) & (pl.col("user") // self.one_in % slices == number)
            )
            part, its_rows = _visits(events, self.history)
            groups.append(part.with_columns(pl.col("group") + visits))
            rows.append(its_rows.with_columns(pl.col("group") + visits))
            visits += part.height and part["group"].item(-1) + 1
            viewed.append(events.filter(pl.col("behavior") == "pv").select("item").unique())
            first.append(_first(events))
            if self.report_share:
                self.report_share((number + 1) / slices)
        groups_table = pl.concat(groups)
        if groups_table.is_empty():
            raise BenchError(f"{path}: no visit of the users kept; lower one_in ({self.one_in})")
        items = pl.concat(viewed).unique().join(_first(pl.concat(first)), on="item").sort("item")
        items = items.select("item", "category", text=pl.lit(None, pl.String))
        return Tables(groups_table, pl.concat(rows), items, groups_table.select("user").unique().sort("user"))


def _visits(events: pl.DataFrame, history: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The groups (numbered from 0) and rows of some users, from all their events."""
    views = events.filter(pl.col("behavior") == "pv").sort("user", "time", "item")
    other = (pl.col("user").diff() != 0) | (pl.col("time").diff() > GAP)
    views = views.with_columns(group=other.fill_null(False).cum_sum().cast(pl.Int64))
    groups = views.group_by("group", maintain_order=True).agg(
        pl.col("user").first(), pl.col("time").first(), known=pl.col("time").last() + HORIZON
    )
    groups = groups.filter(pl.col("known") <= END)
    views = views.unique(["group", "item"], keep="first", maintain_order=True).select("group", "user", "item", "time")
    groups = groups.hstack(histories(views, groups, history))
    rows = views.join(groups.select("group"), on="group", how="semi", maintain_order="left")
    rows = rows.with_columns(known=pl.col("time") + HORIZON)
    rows = rows.with_columns(
        around(rows, events.filter(pl.col("behavior") == name))["within"].cast(pl.Int8).alias(name)
        for name in BEHAVIORS[1:]
    )
    rows = rows.select(
        "group",
        "item",
        *BEHAVIORS[1:],
        rec="buy",
        buy_given_cart=pl.when(pl.col("cart") == 1).then("buy"),
        rank=pl.max_horizontal("buy", pl.max_horizontal("cart", "fav") / 2).cast(pl.Float32),
    ).sort("group", "item")
    return groups, rows


def _first(events: pl.DataFrame) -> pl.DataFrame:
    """item, category, time, line of the first event of each item."""
    first = events.select("item", "category", "time", "line").sort("time", "line")
    return first.unique("item", keep="first", maintain_order=True)


def _events(path: Path, keep: pl.Expr) -> pl.DataFrame:
    """The lines of the users kept, within the published days."""
    # The last line may lack its end [from memory: not known]; one that is cut off has a time outside the days.
    table = read_table(path, COLUMNS, header=False, keep=keep, ended=False)
    reject(table, path, "behavior", ~pl.col("behavior").is_in(BEHAVIORS), f"is not one of {', '.join(BEHAVIORS)}")
    inside = table.filter(pl.col("time").is_between(FIRST, END, closed="left"))
    log.info("%s: %d of %d events are outside the nine days", path, table.height - inside.height, table.height)
    return inside
