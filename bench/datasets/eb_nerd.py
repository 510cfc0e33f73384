"""EB-NeRD: which of the articles on a Danish news page does a user click, and how long and how far do they read?"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import polars as pl

from bench.api import Dataset, Field, Tables, Task, Temporal
from bench.data.raw.source import Local
from bench.datasets.logs.classes import OTHER, frequent_classes, with_other
from bench.datasets.logs.moments import seconds
from bench.datasets.logs.read import not_empty, once, read_parquet
from bench.errors import BenchError

PARTS = ("train", "validation")
LONGEST = 1800  # seconds; the publisher counts no longer reading time
DEVICES = {0: "unknown", 1: "desktop", 2: "mobile", 3: "tablet"}
PROFILE = ("is_sso_user", "gender", "postcode", "age")
COMMON = 0.001  # share of the training part's labels from which on a category is a class of its own

Columns = Mapping[str, type[pl.DataType] | pl.DataType]
BEHAVIORS: Columns = {
    "impression_id": pl.Int64,
    "article_id": pl.Int32,
    "impression_time": pl.Datetime("us"),
    "device_type": pl.Int8,
    "article_ids_inview": pl.List(pl.Int32),
    "article_ids_clicked": pl.List(pl.Int32),
    "user_id": pl.Int64,
    **dict.fromkeys(PROFILE, pl.Int8),
    "next_read_time": pl.Float64,
    "next_scroll_percentage": pl.Float64,
}
HISTORY: Columns = {
    "user_id": pl.Int64,
    "impression_time_fixed": pl.List(pl.Datetime("us")),
    "article_id_fixed": pl.List(pl.Int32),
}
ARTICLES: Columns = {
    "article_id": pl.Int32,
    "title": pl.String,
    "subtitle": pl.String,
    "category_str": pl.String,
    "article_type": pl.String,
    "premium": pl.Int8,
    "published_time": pl.Datetime("us"),
}


class EBNeRD(Dataset):
    """One group for each impression, one row for each article in view, in the order of the log (shuffled there).

    Labels: ``click`` and ``rec`` whether the article was clicked; ``read_time`` log(1 + s), s the seconds read, and
    ``scroll`` the share of the article scrolled through, both on clicked rows; ``rank`` log(1 + s) / log(1 + 1800),
    at most 1, and 0 for rows without a click; ``interest`` the category of the clicked article. The log has one reading
    time and one scroll depth for each impression: with several clicks it is not said whose they are, so that all three
    are undefined there. ``interest`` then takes the first in the log's order. A clicked article that was not in view
    has no row.

    Classes of ``interest``: the categories that make up at least one in a thousand of the training part's labels, by
    name, and ``other``. They come from the files, hence ``build`` sets ``tasks``.

    Histories are the published ones: clicks in the 21 days before the file's week, fixed throughout it. Times are
    seconds since 1970 on the log's own clock. The split keeps the official training week (from 2023-05-18 07:00) and
    halves the official validation week (from 2023-05-25 07:00) at its middle, 2023-05-28 19:00. A page is read for at
    most half an hour and so is the article clicked on it: all labels are ``known`` after an hour.

    Not used: ``is_subscriber``, which was set when the data were made, later than the log; read time and scroll depth
    of the page itself, known only when it is left; totals of articles, which count a week after publication.
    Articles that are missing in ``articles.parquet`` are items without text and attributes; those that are neither in
    view nor in a history are left out. Of a repeated impression id the first row counts; it is refused with another
    user or time, as are articles and users with two different rows.
    """

    version = 1
    domain = "news"
    domain_field = "device"
    sizes = {
        "demo": "1,590 users, 50k impressions",
        "small": "see the publisher",
        "large": "over 1M users, 37M impressions",
    }
    about = (
        "Impressions of the Danish newspaper Ekstra Bladet, 18 May to 1 June 2023; a row is an article in view, "
        "clicked or not. Variants: demo, small and large (all users). The official test part has no labels and is not "
        "used: the second half of the validation week is the test. rec is click as a choice within the impression; "
        "rank is a function of click and read_time. Reading time and scroll depth of impressions with several clicks "
        "are left out, since the log does not say whose they are. Texts are titles and subtitles as last edited."
    )
    licence = "research use under the terms at recsys.eb.dk (registration); the publisher's code is MIT"
    citation = (
        "Johannes Kruse et al. 2024. EB-NeRD: A Large-Scale Dataset for News Recommendation. RecSys Challenge 2024"
    )
    url = "https://recsys.eb.dk"
    tasks: tuple[Task, ...] = (
        Task("click", "binary", role="ctr"),
        Task("rec", "softmax", role="rec"),
        Task("read_time", "regression", role="reading time", space="clicked rows of known reading time"),
        Task("scroll", "regression", role="scroll depth", space="clicked rows of known scroll depth"),
        Task(
            "rank",
            "regression",
            role="rank",
            space="all rows but clicked ones of unknown reading time",
            metric="ndcg@10",
        ),
        Task(
            "interest",
            "multiclass",
            scope="user",
            role="interest",
            space="impressions whose first clicked article has a category",
            classes=(OTHER,),
        ),
    )
    fields = (
        Field("user", "user", "id"),
        Field("device", "user"),
        Field("page", "user"),
        *(Field(name, "user") for name in PROFILE),
        Field("item", "item", "id"),
        Field("category", "item"),
        Field("article_type", "item"),
        Field("premium", "item"),
        Field("hours_old", "pair", "numerical"),
    )
    forbidden = (
        "next_read_time",
        "next_scroll_percentage",
        "article_ids_clicked",
        "total_inviews",
        "total_pageviews",
        "total_read_time",
        "read_time",
        "scroll_percentage",
        "is_subscriber",
    )
    history = 20
    split = Temporal(valid=seconds("2023-05-25T07:00"), test=seconds("2023-05-28T19:00"), absolute=True)
    variants: ClassVar[tuple[str, ...]] = ("demo", "small", "large")
    sources = (
        Local(
            {
                name: name
                for name in (
                    *(f"{part}/{table}.parquet" for part in PARTS for table in ("behaviors", "history")),
                    "articles.parquet",
                )
            },
            "get the bundle of this size from https://recsys.eb.dk (registration), unpack it, and give the folder that "
            "holds train, validation and articles.parquet with --from",
        ),
    )

    def build(self, raw: Mapping[str, Path]) -> Tables:
        """Standard tables from both parts' ``behaviors`` and ``history`` and, where there is one, ``articles``.

        Raises BenchError naming file and column on bad input.
        """
        log = pl.concat(_impressions(raw, part, self.history) for part in PARTS).with_row_index("group")
        log = log.with_columns(pl.col("group").cast(pl.Int64))
        articles = pl.DataFrame([], ARTICLES)
        if "articles.parquet" in raw:
            articles = once(_read(raw["articles.parquet"], ARTICLES), raw["articles.parquet"], "article_id")
        rows = _rows(log, articles)
        items = _items(log, rows, articles)
        groups = log.join(_interest(log, items), on="group", how="left", maintain_order="left")
        classes = frequent_classes(groups.filter(pl.col("time") < self.split.valid)["interest"], COMMON)
        *others, interest = EBNeRD.tasks
        self.tasks = (*others, replace(interest, classes=classes))
        return Tables(
            groups=groups.select(
                "group", "time", "device", "page", *PROFILE, "history", "history_time",
                user="user_id",
                known=pl.col("time") + 2 * LONGEST,
                interest=with_other("interest", classes),
            ),
            rows=rows,
            items=items,
            users=groups.select(user="user_id").unique().sort("user"),
        )  # fmt: skip


def _read(path: Path, columns: Columns, required: Collection[str] = ()) -> pl.DataFrame:
    """The named columns of a parquet file that holds rows, as the types wanted."""
    return not_empty(read_parquet(path, columns, required), path)


def _impressions(raw: Mapping[str, Path], part: str, length: int) -> pl.DataFrame:
    """The impressions of one part with time, context and history."""
    path = raw[f"{part}/behaviors.parquet"]
    log = _read(path, BEHAVIORS, ("impression_id", "user_id", "impression_time", "article_ids_inview"))
    log = once(log, path, "impression_id", "user_id", "impression_time")
    log = log.join(_histories(raw[f"{part}/history.parquet"], length), on="user_id", how="left", maintain_order="left")
    front = pl.col("article_id").is_null()
    return log.select(
        "user_id", "article_ids_inview", "history_time", "next_read_time", "next_scroll_percentage", *PROFILE,
        time=pl.col("impression_time").dt.epoch("s"),
        clicked=pl.col("article_ids_clicked").list.drop_nulls(),
        history=pl.col("history").fill_null([]),
        device=pl.col("device_type").replace_strict(DEVICES, default=None, return_dtype=pl.String),
        page=pl.when(front).then(pl.lit("front")).otherwise(pl.lit("article")),
    )  # fmt: skip


def _histories(path: Path, length: int) -> pl.DataFrame:
    """user_id, history (the last ``length`` articles by click time) and history_time of every user."""
    table = _read(path, HISTORY, required=HISTORY)
    times, articles = pl.col("impression_time_fixed"), pl.col("article_id_fixed")
    uneven = table.filter(times.list.len() != articles.list.len())
    if uneven.height:
        user = uneven["user_id"][0]
        raise BenchError(f"{path}: user {user} has another number of times than of articles; fetch the file again")
    # A microsecond for each place keeps clicks of one second in the given order.
    order = times.list.eval((pl.element().to_physical() + pl.int_range(pl.len())).arg_sort())
    clicks = once(table, path, "user_id").select(
        "user_id", history=articles.list.gather(order).list.drop_nulls().list.tail(length), last=times.list.max()
    )
    some = pl.col("history").list.len() > 0
    return clicks.select("user_id", "history", history_time=pl.when(some).then(pl.col("last").dt.epoch("s")))


def _rows(log: pl.DataFrame, articles: pl.DataFrame) -> pl.DataFrame:
    """The articles in view with their labels and their age at the impression."""
    alone = pl.col("clicked").list.len() == 1
    seconds, scrolled = pl.col("next_read_time").fill_nan(None), pl.col("next_scroll_percentage").fill_nan(None)
    clicks = log.select(
        "group",
        item="clicked",
        click=pl.lit(1, pl.Int8),
        read_time=pl.when(alone).then(seconds.log1p()),
        scroll=pl.when(alone).then(scrolled / 100),
    )
    clicks = clicks.explode("item", empty_as_null=False).unique(["group", "item"])
    rows = log.select("group", "time", item="article_ids_inview").explode("item", empty_as_null=False).drop_nulls()
    rows = rows.join(clicks, on=["group", "item"], how="left", maintain_order="left")
    published = articles.select(item="article_id", published=pl.col("published_time").dt.epoch("s"))
    rows = rows.join(published, on="item", how="left", maintain_order="left")
    click = pl.col("click").fill_null(0)
    weight = (pl.col("read_time") / math.log1p(LONGEST)).clip(upper_bound=1)
    return rows.select(
        "group", "item", "read_time", "scroll",
        click=click,
        rec=click,
        rank=pl.when(click == 1).then(weight).otherwise(0.0),
        hours_old=((pl.col("time") - pl.col("published")) / 3600).clip(lower_bound=0).log1p(),
    )  # fmt: skip


def _items(log: pl.DataFrame, rows: pl.DataFrame, articles: pl.DataFrame) -> pl.DataFrame:
    """Attributes and text of every article that was in view or is in a history."""
    parts = [pl.col(name).str.strip_chars().replace("", None) for name in ("title", "subtitle")]
    parts[0] = parts[0].str.replace(r"([^.!?])$", "${1}.")
    described = articles.select(
        "article_type", "premium",
        item="article_id",
        category="category_str",
        text=pl.concat_str(parts, separator=" ", ignore_nulls=True),
    )  # fmt: skip
    past = log["history"].explode(empty_as_null=False).alias("item")
    met = pl.concat([rows["item"].unique(), past.unique()]).unique().sort()
    return met.to_frame().join(described, on="item", how="left", maintain_order="left")


def _interest(log: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """The category of each impression's first clicked article, where it has one."""
    first = log.select("group", item=pl.col("clicked").list.first()).drop_nulls()
    return first.join(items.drop_nulls("category"), on="item").select("group", interest="category")
