"""Retailrocket: from the view of a product in a web shop to the cart and the purchase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from bench.api import Dataset, Field, Tables, Task
from bench.data.raw.source import Local
from bench.datasets.logs.histories import around, histories
from bench.datasets.logs.negatives import beside_others
from bench.datasets.logs.read import read_table, reject
from bench.errors import BenchError

HORIZON = 86_400_000  # ms after a view in which a cart or a purchase counts: a day
NEGATIVES = 4
SEED = 2015
PROPERTIES = ("item_properties_part1.csv", "item_properties_part2.csv")
EVENTS = ("view", "addtocart", "transaction")


class Retailrocket(Dataset):
    """One group for each first view of an item by a visitor: the item and four that they had not viewed, by number.

    The log has no impressions. The four are drawn without replacement with probability proportional to
    popularity ** 0.75 (popularity: visitors who viewed the item strictly before that millisecond) among items that the
    visitor has not viewed up to then; the seed is fixed. Views at the start, when fewer than four such items exist,
    make no group, nor do those of the log's last day: what followed them is not in it. Later views of the same item
    add nothing.

    Labels: ``view`` and ``rec`` 1 for the viewed item. On viewed rows, what the visitor did with the item within a day
    (both ends included): ``cart`` put it into the cart, ``buy`` bought it; a purchase without a cart in the log counts
    as one with it. ``buy_given_cart`` the same as ``buy`` on rows with a cart. ``rank`` 0 (not viewed), 1/3 (viewed),
    2/3 (cart) or 1 (bought). ``interest`` the top category of the viewed item; its classes are the roots of the
    category tree. ``category`` of a candidate and its root ``top`` are those last published before the group's time;
    later snapshots are not used, and before the first there are none. Times are Unix milliseconds.
    """

    version = 1
    domain = "e-commerce"
    sizes = {"": "2,756,101 events"}
    about = (
        "Views of items in a web shop, May to September 2015, and the carts and purchases that followed within a day. "
        "The log shows no impressions: each viewed item stands beside four not viewed so far, drawn by popularity so "
        "far (to the power 0.75). cart, buy and rank follow from one another: a purchase implies a cart, rank counts "
        "the steps. Most visitors come once, so that histories are often empty. Items have no text; of their hashed "
        "properties only the category is used, as of the time of the view."
    )
    licence = "CC BY-NC-SA 4.0"
    citation = "Roman Zykov, Artem Noskov and Alexander Anokhin. Retailrocket recommender system dataset. Kaggle, 2022"
    url = "https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset"
    tasks: tuple[Task, ...] = (
        Task("view", "binary", role="ctr"),
        Task("rec", "softmax", role="rec"),
        Task("cart", "binary", role="add to cart", space="viewed rows"),
        Task("buy", "binary", role="conversion", space="viewed rows"),
        Task("buy_given_cart", "binary", role="conversion given cart", space="rows put into the cart"),
        Task("rank", "regression", role="rank", metric="ndcg@10"),
        # Its classes come from the category tree: ``build`` fills them in.
        Task("interest", "multiclass", scope="user", role="interest", space="views of items with a known category"),
    )
    fields = (
        Field("user", "user", "id"),
        Field("item", "item", "id"),
        Field("category", "pair"),
        Field("top", "pair"),
    )
    forbidden = ("event", "transactionid", "timestamp")
    history = 20
    sources = (
        Local(
            {name: name for name in ("events.csv", *PROPERTIES, "category_tree.csv")},
            "get the four csv files of retailrocket/ecommerce-dataset from Kaggle (login needed)",
        ),
    )

    def build(self, raw: Mapping[str, Path]) -> Tables:
        """Standard tables from the four csv files; sets the classes of ``interest``.

        Raises BenchError naming file and line on bad input.
        """
        events = _events(raw["events.csv"])
        top = _tops(raw["category_tree.csv"])
        roots = tuple(str(root) for root in top["top"].unique().sort())
        self.tasks = tuple(replace(t, classes=roots) if t.name == "interest" else t for t in Retailrocket.tasks)
        views = events.filter(pl.col("event") == "view").sort("time", "user", "item")
        views = views.select("user", "item", "time").unique(["user", "item"], keep="first", maintain_order=True)
        covered = pl.col("time") + HORIZON <= events["time"].max()
        log = _outcomes(views.filter(covered), events)
        if log.is_empty():
            raise BenchError(f"{raw['events.csv']}: no view is a day older than the last event; fetch the file again")
        viewed, rows = beside_others(log, NEGATIVES, (SEED, self.version))
        if viewed.is_empty():
            raise BenchError(f"{raw['events.csv']}: too few views; none has {NEGATIVES} other items before it")
        rows = rows.join(viewed.select("group", "time"), on="group", how="left", maintain_order="left")
        rows = _categories(rows, [raw[name] for name in PROPERTIES], top)
        chosen = pl.col("chosen")
        groups = viewed.join(rows.filter(chosen).select("group", "top"), on="group", how="left", maintain_order="left")
        groups = groups.select(
            "group", "user", "time", known=pl.col("time") + HORIZON, interest=pl.col("top").cast(pl.String)
        ).hstack(histories(views, viewed, self.history))
        rows = rows.select(
            "group", "item", "category", "top",
            view=chosen.cast(pl.Int8),
            rec=chosen.cast(pl.Int8),
            cart=pl.when(chosen).then("cart"),
            buy=pl.when(chosen).then("buy"),
            buy_given_cart=pl.when(chosen & (pl.col("cart") == 1)).then("buy"),
            rank=pl.when(chosen).then((1 + pl.col("cart") + pl.col("buy")) / 3).otherwise(0.0),
        )  # fmt: skip
        items = views.select("item").unique().sort("item").with_columns(text=pl.lit(None, pl.String))
        return Tables(groups, rows, items, groups.select("user").unique().sort("user"))


def _events(path: Path) -> pl.DataFrame:
    """user, item, time and event of every line."""
    columns = {"timestamp": pl.Int64, "visitorid": pl.Int64, "event": pl.String, "itemid": pl.Int64}
    table = read_table(path, columns)
    reject(table, path, "event", ~pl.col("event").is_in(EVENTS), f"is not one of {', '.join(EVENTS)}")
    return table.select("event", user="visitorid", item="itemid", time="timestamp")


def _outcomes(views: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """The views with what followed within the horizon: ``cart`` and ``buy``, 0 or 1."""
    known = views.with_columns(known=pl.col("time") + HORIZON)
    bought, put = (
        around(known, events.filter(pl.col("event") == name))["within"].cast(pl.Int8)
        for name in ("transaction", "addtocart")
    )
    return views.with_columns(cart=put | bought, buy=bought)


def _tops(path: Path) -> pl.DataFrame:
    """category and the root of its tree, ``top``. Raises BenchError if a category is its own ancestor."""
    columns = {"categoryid": pl.Int64, "parentid": pl.Int64}
    table = read_table(path, columns, optional=["parentid"])
    reject(table, path, "categoryid", ~pl.col("categoryid").is_first_distinct(), "appears twice")
    parent = dict(table.select("categoryid", "parentid").iter_rows())
    tops = []
    for category in parent:
        top, steps = category, 0
        while parent.get(top) is not None and steps <= len(parent):
            top, steps = parent[top], steps + 1
        if steps > len(parent):
            raise BenchError(f"{path}: categoryid '{category}' is its own ancestor; fetch the file again")
        tops.append(top)
    return pl.DataFrame({"category": list(parent), "top": tops}, schema={"category": pl.Int64, "top": pl.Int64})


def _categories(rows: pl.DataFrame, paths: list[Path], top: pl.DataFrame) -> pl.DataFrame:
    """The rows (item, time) with ``category``, as last published by then, and its ``top``; null where there is none."""
    columns = {"timestamp": pl.Int64, "itemid": pl.Int64, "property": pl.String, "value": pl.String}
    parts = []
    for path in paths:
        table = read_table(path, columns, keep=pl.col("property") == "categoryid")
        value = pl.col("value").cast(pl.Int64, strict=False)
        reject(table, path, "value", value.is_null(), "of a categoryid is not a whole number")
        parts.append(table.select(item="itemid", time="timestamp", category=value))
    published = pl.concat(parts).sort("time", "item", "category")
    order = rows.with_row_index("row").sort("time")
    found = order.join_asof(published, on="time", by="item", strategy="backward", check_sortedness=False)
    return found.join(top, on="category", how="left").sort("row").drop("row")
