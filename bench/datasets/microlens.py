"""MicroLens: which short video a user comments on next, with English titles."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import polars as pl

from bench.api import Dataset, Field, Tables, Task
from bench.data.raw.source import Local
from bench.datasets.logs.histories import histories
from bench.datasets.logs.negatives import beside_others
from bench.datasets.logs.read import read_columns, reject
from bench.datasets.logs.short_video import first_wanted, interest
from bench.errors import BenchError

NEGATIVES = 4
SEED = 2309_15379
CATEGORIES = "tags_to_summary.csv"
SIZES = {"50k": "Comments of 50,000 users", "100k": "719,405 comments of 100,000 users on 19,738 videos"}

log = logging.getLogger(__name__)


class MicroLens(Dataset):
    """One group for each comment: the video the user commented on and four others, ordered by video number.

    The four are drawn without replacement with probability proportional to popularity ** 0.75 (popularity: comments
    in the log strictly before that millisecond) among videos on which the user has not commented up to then; the seed
    is fixed. Comments at the start of the log, when fewer than four such videos exist, make no group. Of several
    comments of a user on one video the first counts. Histories hold the videos commented on strictly before.

    Labels: ``click`` and ``rec`` 1 for the video commented on. With ``tags_to_summary.csv`` (100k only; 50k numbers
    its videos anew) ``interest``: that video's category. The classes are those that occur, so that ``build`` sets
    ``tasks``; without the file there is no such task.

    Likes and views (``likes_and_views.txt``) are neither labels nor features: they are totals at some later day, the
    same for every user, so that they would tell of the test days and of nobody's choice.
    """

    version = 1
    domain = "video"
    sizes = {"50k": "50,000 users", "100k": "100,000 users"}
    licence = "not stated: published for research without a licence file; the publisher asks not to redistribute it"
    citation = (
        "Yongxin Ni, Yu Cheng, Xiangyan Liu, Junchen Fu, Youhua Li, Xiangnan He, Yongfeng Zhang, and Fajie Yuan. 2023. "
        "A Content-Driven Micro-Video Recommendation Dataset at Scale. arXiv:2309.15379"
    )
    tasks: tuple[Task, ...] = (Task("click", "binary", role="ctr"), Task("rec", "softmax", role="rec"))
    fields = (Field("user", "user", "id"), Field("item", "item", "id"), Field("category", "item"))
    forbidden = ("timestamp", "likes", "views")
    history = 20
    variants: ClassVar[tuple[str, ...]] = ("50k", "100k")

    @property
    def about(self) -> str:  # type: ignore[override]
        """Rows, negatives and what is left out."""
        return (
            f"{SIZES[self.variant]}. A comment stands for a choice: nothing else was recorded, neither what was shown "
            "nor what was only watched. Each is shown beside four videos without a comment of the user so far, drawn "
            "by popularity so far (to the power 0.75); click and rec are the same label for two kinds of learning. "
            "Comments at the start, when fewer than four such videos were known, and later comments on the same video "
            "are left out, and so are likes and views, which are totals at some later day."
        )

    @property
    def url(self) -> str:  # type: ignore[override]
        """The publisher's folder."""
        return f"https://recsys.westlake.edu.cn/MicroLens-{self.variant}-Dataset/"

    @property
    def sources(self) -> tuple[Local, ...]:  # type: ignore[override]
        """Files by hand, for no checksum is published; with the categories, or else without."""
        titles = "titles.csv" if self.variant == "50k" else "title_en.csv"
        names = [f"MicroLens-{self.variant}_{end}" for end in ("pairs.csv", titles)]
        if self.variant == "50k":
            return (Local({name: name for name in names}, f"download {' and '.join(names)} from {self.url}"),)
        how = f"download {' and '.join(names)}, and {CATEGORIES} for the task interest, from {self.url}"
        return tuple(Local({name: name for name in files}, how) for files in ([*names, CATEGORIES], names))

    def build(self, raw: Mapping[str, Path]) -> Tables:
        """Standard tables from pairs, titles and categories. Raises BenchError naming file and line on bad input."""
        comments = _comments(raw[f"MicroLens-{self.variant}_pairs.csv"])
        if self.variant == "50k":
            titles = _with_header(raw["MicroLens-50k_titles.csv"])
        else:
            titles = _without_header(raw["MicroLens-100k_title_en.csv"])
        items = comments.select("item").unique().join(titles, on="item", how="left").sort("item")
        if CATEGORIES in raw:
            names = _without_header(raw[CATEGORIES]).rename({"text": "category"})
            items = items.join(names, on="item", how="left", maintain_order="left")
        else:
            items = items.with_columns(category=pl.lit(None, pl.String))
        classes = tuple(items["category"].drop_nulls().unique().sort())
        if len(classes) > 1:
            self.tasks = (*type(self).tasks, interest("groups whose video has a category", classes))
        commented, rows = beside_others(comments, NEGATIVES, (SEED, self.version))
        if commented.is_empty():
            raise BenchError(f"{next(iter(raw.values()))}: too few comments; none has four other videos before it")
        groups = commented.hstack(histories(comments, commented, self.history))
        click = pl.col("chosen").cast(pl.Int8)
        return Tables(
            groups=groups.join(first_wanted(groups, items), on="group", how="left", maintain_order="left").drop("item"),
            rows=rows.select("group", "item", click=click, rec=click),
            items=items,
            users=groups.select("user").unique().sort("user"),
        )


def _comments(path: Path) -> pl.DataFrame:
    """user, item, time (ms) of the first comment of each user on each video, in time order."""
    table = read_columns(path, dict.fromkeys(("user", "item", "timestamp"), pl.Int64))
    table = table.select("user", "item", time="timestamp").sort("time", "user", "item")
    first = table.unique(["user", "item"], keep="first", maintain_order=True)
    log.info("%s: left out %d later comments on the same video", path, table.height - first.height)
    return first


def _with_header(path: Path) -> pl.DataFrame:
    """item, text of a comma-separated file with a header."""
    table = read_columns(path, {"item": pl.Int64, "title": pl.String})
    reject(table, path, "item", ~pl.col("item").is_first_distinct(), "appears twice")
    return table.select("item", text=_clean("title"))


def _without_header(path: Path) -> pl.DataFrame:
    """item, text of a file of lines ``item,text``, in which texts hold commas, quoted or not."""
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path}: cannot be read as utf-8 text ({error}); fetch it again") from error
    table = pl.DataFrame({"line": [line.rstrip("\r") for line in lines]}).with_row_index("number", offset=1)
    table = table.filter(pl.col("line").str.strip_chars() != "").with_columns(
        item=pl.col("line").str.extract(r"^\s*(\d{1,18})\s*,").cast(pl.Int64),
        title=pl.col("line").str.extract(r"^[^,]*,(.*)$"),
    )
    if table.is_empty():
        raise BenchError(f"{path}: holds no rows; fetch it again")
    known = pl.col("item").is_first_distinct()
    for bad, why in ((pl.col("item").is_null(), "has no video number"), (~known, "names a video again")):
        wrong = table.filter(bad)
        if wrong.height:
            number, line = wrong.select("number", "line").row(0)
            raise BenchError(f"{path}, line {number}: '{line[:60]}' {why}; fetch the file again")
    return table.select("item", text=_clean("title"))


def _clean(column: str) -> pl.Expr:
    """A title without quotes around it and with its white space collapsed; null if it is empty."""
    text = pl.col(column).str.strip_chars()
    quoted = text.str.extract(r'^"(.*)"$').str.replace_all('""', '"', literal=True)
    text = pl.coalesce(quoted, text).str.replace_all(r"\s+", " ").str.strip_chars()
    return pl.when(text != "").then(text)
