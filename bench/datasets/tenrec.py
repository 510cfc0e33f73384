"""Tenrec: videos shown in a news app (QK-video), with clicks, likes, follows, shares and numbers of views."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import polars as pl

from bench.api import Dataset, Field, Tables, Task
from bench.data.raw.source import Local
from bench.datasets.logs.histories import histories
from bench.datasets.logs.read import parse_table, readable, scan_table
from bench.datasets.logs.user_share import Thinned
from bench.errors import BenchError

WINDOW = 10  # rows of a group
CTR, WHOLE = "ctr_data_1M.csv", "QK-video.csv"
HISTORY = tuple(f"hist_{i}" for i in range(1, 11))
MISSING = r"\N"
LOG: Mapping[str, type[pl.DataType]] = {
    "user_id": pl.Int64, "item_id": pl.Int64, "click": pl.Boolean, "follow": pl.Boolean, "like": pl.Boolean,
    "share": pl.Boolean, "watching_times": pl.Int64,
}  # fmt: skip
HOW = (
    f"agree to the licence of Tenrec on https://static.qblv.qq.com/qblv/h5/algo-frontend/tenrec_dataset.html and put "
    f"{CTR} or {WHOLE} into a folder"
)


class Tenrec(Thinned, Dataset):
    """One group for ten rows of a user that follow one another (fewer at the user's end), from one of two files.

    There is no time and no request id. The order of lines is all there is, and it orders the rows of one user only:
    ``ctr_data_1M.csv`` is laid out user after user, so that line numbers as times would test on other users than those
    in training. So a group's time is its place among the user's groups, from 0 (the first) towards 1, and the split by
    shares of the rows tests on the last tenth of every user and validates on the tenth before. Between users this time
    means nothing: what was popular on the test days is not hidden from training.

    ``ctr_data_1M.csv`` gives a history, ``hist_1`` to ``hist_10`` (0: none), which is taken as it is: the publisher's
    script (Data Processing/gen_ctr.py) takes the user's first ten clicks, or all but the last, out of the rows. It is
    the same for all rows of a user, and rows without a click may have been shown before some of it. Its times are
    unknown (``history_time`` null). With ``QK-video.csv`` a history holds the videos clicked in the user's earlier
    groups.

    Labels, as logged: ``click`` and ``rec``, ``like``, ``follow``, ``share``; ``watching_times`` log(1 + number of
    views). Repeated rows stay: the file has no time that would tell a second exposure from a copy.

    one_in: keep one user in so many, by number. The files are large (120 million rows and more); the tables of each
    million rows need some 0.3 GB of memory while they are made.
    """

    version = 1
    domain = "video"
    sizes = {"qkvideo": "1M users"}
    about = (
        "Exposures of videos in the app QK, every row with click, like, follow and share and how often the user viewed "
        "it; negatives are what was shown and not clicked. ctr_data_1M.csv: 120 million rows of one million users, the "
        "set of the publisher's multi-task benchmark (without its sampling of negatives). QK-video.csv: all users. "
        "There is no time and no text: the order of a user's lines is the only order, and ten of them stand for a "
        "request."
    )
    licence = "CC BY-NC 4.0, after agreeing to the publisher's licence"
    citation = (
        "Guanghu Yuan, Fajie Yuan, Yudong Li, Beibei Kong, Shujie Li, Lei Chen, Min Yang, Chenyun Yu, Bo Hu, Zang Li, "
        "Yu Xu, and Xiaohu Qie. 2022. Tenrec: A Large-scale Multipurpose Benchmark Dataset for Recommender Systems. "
        "NeurIPS 2022 Datasets and Benchmarks Track"
    )
    url = "https://github.com/yuangh-x/2022-NIPS-Tenrec"
    tasks = (
        Task("click", "binary", role="ctr"),
        Task("like", "binary", role="like"),
        Task("follow", "binary", role="follow"),
        Task("share", "binary", role="share"),
        Task("watching_times", "regression", role="number of views"),
        Task("rec", "softmax", role="rec"),
    )
    fields = (
        Field("user", "user", "id"),
        Field("gender", "user"),
        Field("age", "user"),
        Field("item", "item", "id"),
        Field("video_category", "item"),
    )
    forbidden = ("click", "like", "follow", "share", "watching_times")
    history = 20
    variants: ClassVar[tuple[str, ...]] = ("qkvideo",)
    sources = (Local({CTR: CTR}, HOW), Local({WHOLE: WHOLE}, HOW))

    def build(self, raw: Mapping[str, Path]) -> Tables:
        """Standard tables from one of the two files. Raises BenchError naming file, line and column on bad input."""
        (name, path), *_ = raw.items()
        log = parse_table(self._scan(path, *LOG), path, LOG)
        if log.is_empty():
            raise BenchError(f"{path}: holds no rows of a user whose number {self.one_in} divides; fetch it again")
        log = _windows(log.rename({"user_id": "user", "item_id": "item"}))
        groups = log.group_by("group", maintain_order=True).agg(
            pl.col("user", "window", "windows").first(), pl.col("line").min()
        )
        if name == CTR:
            past = self._given(path, groups)
            groups = groups.with_columns(history=past, history_time=pl.lit(None, pl.Float64))
        else:
            clicked = log.filter("click").select("user", "item", time="window")
            groups = groups.hstack(histories(clicked, groups.select("user", time="window"), self.history))
            groups = groups.with_columns(pl.col("history_time") / pl.col("windows"))
        items = self._attributes(path, "item_id", "video_category").rename({"item_id": "item"})
        known = pl.concat([log["item"], groups["history"].explode(empty_as_null=False)]).unique().sort().to_frame()
        rows = log.sort("group", "item", "line").select(
            "group",
            "item",
            pl.col("click", "like", "follow", "share").cast(pl.Int8),
            rec=pl.col("click").cast(pl.Int8),
            watching_times=pl.col("watching_times").log1p(),
        )
        return Tables(
            groups=groups.select("group", "user", "history", "history_time", time=pl.col("window") / pl.col("windows")),
            rows=rows,
            items=known.join(items, on="item", how="left").sort("item").with_columns(text=pl.lit("")),
            users=self._attributes(path, "user_id", "gender", "age").rename({"user_id": "user"}).sort("user"),
        )

    def _scan(self, path: Path, *columns: str) -> pl.LazyFrame:
        """Columns of the users kept, as texts; users without a number are kept, so that reading them fails."""
        table = scan_table(path, ("user_id", *(c for c in columns if c != "user_id")))
        return table.filter((pl.col("user_id").cast(pl.Int64, strict=False) % self.one_in == 0).fill_null(True))

    def _given(self, path: Path, groups: pl.DataFrame) -> pl.Series:
        """The history columns in the first row of each group, in group order."""
        first = groups.lazy().select("group", "line")
        columns = dict.fromkeys(HISTORY, pl.Int64)
        found = parse_table(self._scan(path, *HISTORY).join(first, on="line", how="semi"), path, columns)
        found = groups.select("line").join(found, on="line", how="left", maintain_order="left")
        lists = pl.concat_list(HISTORY).list.eval(pl.element().filter(pl.element() > 0))
        return found.select(history=lists)["history"]

    def _attributes(self, path: Path, key: str, *columns: str) -> pl.DataFrame:
        """What the file says of each user or item, as texts; the smallest value where lines differ."""
        smallest = pl.col(columns).replace(MISSING, None).min()
        table = self._scan(path, key, *columns).group_by(key).agg(smallest)
        with readable(path):
            return table.with_columns(pl.col(key).cast(pl.Int64)).collect(engine="streaming")


def _windows(log: pl.DataFrame) -> pl.DataFrame:
    """The log in user order, with ``window``, ``windows`` (of the user's rows, by tens) and ``group``."""
    log = log.sort("user", "line").with_columns(
        window=pl.int_range(pl.len()).over("user") // WINDOW,
        windows=(pl.len().over("user").cast(pl.Int64) + WINDOW - 1) // WINDOW,
    )
    return log.with_columns(group=pl.struct("user", "window").rle_id().cast(pl.Int64))
