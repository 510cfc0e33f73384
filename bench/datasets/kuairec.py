"""KuaiRec: how much of a short video users watch, tested on a matrix in which (nearly) everyone saw everything."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from bench.api import Dataset, Field, Tables, Task, Temporal
from bench.data.raw.source import Download
from bench.datasets.logs.histories import histories
from bench.datasets.logs.read import find_rows, read_columns, reject
from bench.datasets.logs.short_video import (
    PROFILE,
    by_hour,
    china_day,
    clean_text,
    first_wanted,
    interest,
    joined_text,
    profiles,
)
from bench.errors import BenchError

BIG, SMALL = "big_matrix.csv", "small_matrix.csv"
USERS, TAGS, TEXTS = "user_features.csv", "item_categories.csv", "kuairec_caption_category.csv"
MOST = 5.0  # watch ratios above it count as it: the convention of the publisher's own code; the highest are loops
LIKED = 2.0  # the publisher's suggestion
SPOKEN = ("caption", "manual_cover_text", "topics")

log = logging.getLogger(__name__)


class KuaiRec(Dataset):
    """One group for the rows of one user within one clock hour; the first row gives its time. There is no request id.

    The big matrix is a usual log, the small one holds (nearly) every pair of 1,411 users and 3,327 videos. Both cover
    2020-07-05 to 2020-09-05, the big one in three stretches (to 07-12, 08-01 to 08-10, from 08-27). To keep the order
    of time, the big matrix trains up to 08-29 and validates on 08-30 to 09-01, and the small one tests from 09-02 on,
    days in China. What the big matrix holds of the test days and the small one of earlier days is left out: the one
    would be a biased test, the other is neither trained nor selected on. Histories hold the videos that the user
    finished in the big matrix (in full: it is known by then) before the group's first row.

    Labels: ``watch_ratio`` play time over duration, at most 5; ``finish`` and ``rec`` watch ratio >= 1; ``like`` watch
    ratio > 2; ``rank`` half of the watch ratio, at most 1; ``interest`` the first-level category of the first video in
    the group that the user finishes; the group ends the search, so that no label reaches into a later part. Its classes
    are those that occur, so that ``build`` sets ``tasks``.
    """

    version = 1
    domain = "video"
    sizes = {"": "7,176 users, 12.5M + 4.7M rows"}
    about = (
        "12,530,806 views of 10,728 videos by 7,176 users of Kuaishou, and 4,676,570 views by 1,411 of them, 99.6% of "
        "all their pairs with 3,327 videos. Every row is a view; negatives are videos not watched to the end. All "
        "labels come from one number, the watch ratio: finish and like are thresholds of it and rank is half of it, so "
        "that the tasks determine one another. Rows that repeat another in full (issue 2 of the publisher's "
        "repository) and rows without a time (181,992, all in the small matrix) are left out; the log counts them "
        "(level info). The daily video statistics (counts of the same day) and the social network are not used. "
        "Profiles are a snapshot of unstated date."
    )
    licence = "CC BY-SA 4.0"
    citation = (
        "Chongming Gao, Shijun Li, Wenqiang Lei, Jiawei Chen, Biao Li, Peng Jiang, Xiangnan He, Jiaxin Mao, and "
        "Tat-Seng Chua. 2022. KuaiRec: A Fully-observed Dataset and Insights for Evaluating Recommender Systems. "
        "CIKM 2022, 540-550. doi:10.1145/3511808.3557220"
    )
    url = "https://kuairec.com/"
    tasks: tuple[Task, ...] = (
        Task("watch_ratio", "regression", role="watch time"),
        Task("finish", "binary", role="ctr"),
        Task("like", "binary", role="like"),
        Task("rank", "regression", role="rank", metric="ndcg@10"),
        Task("rec", "softmax", role="rec"),
    )
    fields = (
        Field("user", "user", "id"),
        *(Field(name, "user") for name in PROFILE),
        Field("item", "item", "id"),
        Field("tag", "item"),
        Field("category", "item"),
        Field("duration", "item", "numerical"),
    )
    forbidden = ("play_duration", "watch_ratio")
    history = 20
    split = Temporal(valid=china_day("2020-08-30"), test=china_day("2020-09-02"), absolute=True)
    sources = (
        Download(
            "https://zenodo.org/records/18164998/files/KuaiRec.zip",
            "md5:261550d472c48eff4990fb13c0e5bcf7",
            {name: f"KuaiRec 2.0/data/{name}" for name in (BIG, SMALL, USERS, TAGS, TEXTS)},
        ),
    )

    def build(self, raw: Mapping[str, Path]) -> Tables:
        """Standard tables from matrices and features. Raises BenchError naming file, line and column on bad input."""
        big, small = _matrix(raw[BIG]), _matrix(raw[SMALL])
        test = self.split.test
        views = pl.concat([big.filter(pl.col("time") < test), small.filter(pl.col("time") >= test)])
        if views.is_empty():
            raise BenchError(f"{raw[BIG]}: holds no view before the test days; fetch it again")
        views = by_hour(views)
        finished = pl.col("ratio") >= 1
        items = _items(raw, pl.concat([views.drop("group"), big]))
        classes = tuple(items["category"].drop_nulls().unique().sort())
        if len(classes) > 1:
            self.tasks = (*type(self).tasks, interest("groups with a finished video of known category", classes))
        groups = views.group_by("group", maintain_order=True).agg(pl.col("user").first(), pl.col("time").min())
        wanted = first_wanted(views.filter(finished), items)
        return Tables(
            groups=groups.hstack(histories(big.filter(finished), groups, self.history)).join(
                wanted, on="group", how="left", maintain_order="left"
            ),
            rows=views.select(
                "group", "item",
                watch_ratio=pl.col("ratio").clip(upper_bound=MOST),
                finish=finished.cast(pl.Int8),
                like=(pl.col("ratio") > LIKED).cast(pl.Int8),
                rank=(pl.col("ratio") / LIKED).clip(upper_bound=1),
                rec=finished.cast(pl.Int8),
            ),
            items=items,
            users=profiles(raw[USERS], groups),
        )  # fmt: skip


def _matrix(path: Path) -> pl.DataFrame:
    """user, item, lasts (ms), ratio, time (ms) of one matrix, without duplicates and rows without a time."""
    columns = {"user_id": pl.Int64, "video_id": pl.Int64, "video_duration": pl.Int64, "watch_ratio": pl.Float64}
    table = read_columns(path, {**columns, "timestamp": pl.String})
    seconds = pl.col("timestamp").cast(pl.Float64, strict=False)
    wrong = pl.col("timestamp").is_not_null() & ~(seconds.is_finite() & (seconds >= 0)).fill_null(False)
    reject(table, path, "timestamp", wrong, "is not a number of seconds")
    views = table.select(
        user="user_id",
        item="video_id",
        lasts="video_duration",
        ratio="watch_ratio",
        time=(seconds * 1000).round().cast(pl.Int64),
    ).unique(maintain_order=True)
    timed = views.drop_nulls("time")
    repeated, timeless = table.height - views.height, views.height - timed.height
    log.info("%s: left out %d rows that repeat another and %d without a time", path, repeated, timeless)
    return timed


def _items(raw: Mapping[str, Path], views: pl.DataFrame) -> pl.DataFrame:
    """The item table of the videos in the views."""
    videos = views.group_by("item").agg(pl.col("lasts").min()).sort("item")
    tags = read_columns(raw[TAGS], {"video_id": pl.Int64, "feat": pl.String})
    reject(tags, raw[TAGS], "video_id", ~pl.col("video_id").is_first_distinct(), "appears twice")
    columns = ("manual_cover_text", "caption", "topic_tag", "first_level_category_name")
    texts = find_rows(raw[TEXTS], "video_id", videos["item"], columns)
    items = videos.join(tags.rename({"video_id": "item"}), on="item", how="left").join(texts, on="item", how="left")
    return items.with_columns(topics=pl.col("topic_tag").str.strip_chars("[]")).sort("item").select(
        "item",
        category=clean_text("first_level_category_name"),
        text=joined_text(*SPOKEN),
        tag=pl.col("feat").str.extract(r"(\d+)"),  # the first of "[27, 9]"
        duration=(pl.col("lasts") / 1000).log1p(),
    )  # fmt: skip
