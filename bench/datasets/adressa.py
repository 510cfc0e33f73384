"""Adressa: which news of a Norwegian newspaper does a reader open next, and how long do they stay?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from bench.api import Dataset, Field, Tables, Task, Temporal
from bench.data.raw.source import Local
from bench.datasets.logs.classes import OTHER, frequent_classes, with_other
from bench.datasets.logs.histories import histories
from bench.datasets.logs.moments import seconds
from bench.datasets.logs.negatives import beside_others
from bench.datasets.logs.read import read_json_lines
from bench.errors import BenchError

DAYS = tuple(f"2017010{day}" for day in range(1, 8))  # file names in the archive [from memory]
EVENT = {
    "id": pl.String,
    "title": pl.String,
    "category1": pl.String,
    "userId": pl.String,
    "time": pl.Int64,
    "activeTime": pl.Float64,
}
NEGATIVES = 4
SEED = 2017
LONGEST = 1800  # seconds; longer active times count as this
COMMON = 0.001  # share of the training part's labels from which on a category is a class of its own


class Adressa(Dataset):
    """One group for each reader's first view of a news page: that page and four that they had not opened, by number.

    The log has no impressions. The four are drawn without replacement with probability proportional to
    popularity ** 0.75 (popularity: first views in the log strictly before that second) among news that the reader has
    not opened up to then; the seed is fixed. News that nobody has opened yet, hence news that are not published yet,
    are never drawn. Views at the start of the log, when fewer than four such news exist, make no group. News opened in
    the same second are not in each other's history.

    Labels: ``click`` and ``rec`` 1 for the opened news; ``active_time`` log(1 + s) on clicked rows, s the seconds of
    activity on the page, at most 1800, undefined where the log has none; ``interest`` the top category (``category1``
    up to the first bar) of the opened news. Its classes are the categories that make up at least one in a thousand of
    the training part's labels, by name, and ``other``. They come from the files, hence ``build`` sets ``tasks``.

    Page views without ``id`` (front pages and such) or without reader are left out, and so are repeated views of a news
    page by one reader: the first counts, with its own active time. A title and a category are those of the earliest
    view that has them. Items are numbered in the order of their ids.

    Times are Unix seconds. The week is cut by days in Norway: training 1 to 5 January 2017, validation the 6th, test
    the 7th (newsreclib trains on the 6th, with the days before as histories). Labels are ``known`` 1800 s after a view.
    """

    version = 1
    domain = "news"
    sizes = {"": "one week of clicks"}
    about = (
        "Page views of readers of Adresseavisen (Trondheim), 1 to 7 January 2017. There are no impressions: each "
        "reader's first view of a news page counts as a click, shown beside four news that the reader had not opened, "
        "drawn by popularity so far (to the power 0.75). Front pages and repeated views are left out. rec is click as "
        "a choice within the group; both ask opened or drawn, not opened or passed over."
    )
    licence = "research use; the publisher's page has the terms"
    citation = (
        "Jon Atle Gulla, Lemei Zhang, Peng Liu, Özlem Özgöbek, and Xiaomeng Su. 2017. The Adressa Dataset for News "
        "Recommendation. International Conference on Web Intelligence (WI 2017)"
    )
    url = "https://reclab.idi.ntnu.no/dataset/"
    tasks: tuple[Task, ...] = (
        Task("click", "binary", role="ctr"),
        Task("rec", "softmax", role="rec"),
        Task("active_time", "regression", role="reading time", space="clicked rows of known active time"),
        Task(
            "interest",
            "multiclass",
            scope="user",
            role="interest",
            space="views of news that have a category",
            classes=(OTHER,),
        ),
    )
    fields = (
        Field("user", "user", "id"),
        Field("item", "item", "id"),
        Field("category", "item"),
        Field("subcategory", "item"),
    )
    forbidden = ("activeTime", "active_time", "click", "rec", "interest")
    history = 20
    split = Temporal(valid=seconds("2017-01-06T00:00+01:00"), test=seconds("2017-01-07T00:00+01:00"), absolute=True)
    sources = (
        Local(
            {day: f"one_week/{day}" for day in DAYS},
            "get https://reclab.idi.ntnu.no/dataset/one_week.tar.gz and give it, or the folder one_week in it, with "
            "--from",
        ),
    )

    def build(self, raw: Mapping[str, Path]) -> Tables:
        """Standard tables from the daily files, one JSON object a line.

        Raises BenchError with file and line for malformed or truncated files.
        """
        views = pl.concat([_views(raw[day]) for day in sorted(raw)])
        views = views.sort("time", "userId", "id", "activeTime", "title", "category1", nulls_last=True)
        items = _items(views)
        views = views.unique(["userId", "id"], keep="first", maintain_order=True)
        log = views.join(items.select("id", "item", "category"), on="id", how="left", maintain_order="left")
        groups, rows = self._groups(log.select("time", "activeTime", "item", "category", user="userId"))
        if groups.is_empty():
            raise BenchError(f"{raw[min(raw)]}: too few views; none has four other news before it")
        classes = frequent_classes(groups.filter(pl.col("time") < self.split.valid)["category"], COMMON)
        *others, interest = Adressa.tasks
        self.tasks = (*others, replace(interest, classes=classes))
        return Tables(
            groups=groups.select(
                "group",
                "user",
                "time",
                "history",
                "history_time",
                known=pl.col("time") + LONGEST,
                interest=with_other("category", classes),
            ),
            rows=rows,
            items=items.select("item", "category", "subcategory", "text"),
            users=groups.select("user").unique().sort("user"),
        )

    def _groups(self, log: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        views, rows = beside_others(log, NEGATIVES, (SEED, self.version))
        opened = pl.col("chosen")
        rows = rows.select(
            "group",
            "item",
            click=opened.cast(pl.Int8),
            rec=opened.cast(pl.Int8),
            active_time=pl.when(opened).then(pl.col("activeTime").clip(0, LONGEST).log1p()),
        )
        return views.hstack(histories(log, views, self.history)), rows


def _views(path: Path) -> pl.DataFrame:
    """The page views of news in a daily file."""
    events = read_json_lines(path, EVENT, required=()).drop("line").drop_nulls("userId")
    if events.is_empty():
        raise BenchError(f"{path}: no event has a userId; fetch it again")
    views = events.drop_nulls("id")
    if views["time"].null_count():
        user = views.filter(pl.col("time").is_null())["userId"][0]
        raise BenchError(f"{path}: an event of user '{user}' has no time; fetch the file again")
    return views


def _items(views: pl.DataFrame) -> pl.DataFrame:
    """item (a number), id, category, subcategory and text of every news, from views in time order."""
    first = [pl.col(name).str.strip_chars().replace("", None).drop_nulls().first() for name in ("title", "category1")]
    news = views.group_by("id").agg(text=first[0], subcategory=first[1]).sort("id").with_row_index("item")
    top = pl.col("subcategory").str.split("|").list.first()
    return news.with_columns(pl.col("item").cast(pl.Int64), category=top)
