"""Does what logs of short videos share: groups by the hour, the next category, Kuaishou's profiles and texts."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl

from bench.api import Task
from bench.datasets.logs.read import read_columns, reject

HOUR = 3_600_000  # milliseconds
PROFILE = (
    "user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author", "follow_user_num_range",
    "fans_user_num_range", "friend_user_num_range", "register_days_range", *(f"onehot_feat{i}" for i in range(18)),
)  # fmt: skip


def china_day(date: str) -> int:
    """Returns the first millisecond of a day in China, counted from 1970."""
    return int(datetime.fromisoformat(f"{date}T00:00:00+08:00").timestamp() * 1000)


def interest(space: str, classes: tuple[str, ...]) -> Task:
    """Returns the task of predicting the category of the next video that the user really watches."""
    return Task("interest", "multiclass", scope="user", role="interest", space=space, classes=classes)


def by_hour(log: pl.DataFrame, *apart: str) -> pl.DataFrame:
    """Numbers groups: the rows of one user within one hour that agree on the columns ``apart``.

    log: user, item, time (ms). Returns it in group order with ``group``. Within a group rows are in item order, which
    tells nothing.
    """
    key = ("user", "hour", *apart)
    log = log.with_columns(hour=pl.col("time") // HOUR).sort(*key, "item", "time", maintain_order=True)
    return log.with_columns(group=pl.struct(key).rle_id().cast(pl.Int64)).drop("hour")


def first_wanted(log: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Returns group, interest: the category of each group's first row; of rows at one time, of the smallest item."""
    first = log.sort("group", "time", "item").unique("group", keep="first", maintain_order=True)
    return first.join(items, on="item", how="left").select("group", interest="category")


def profiles(path: Path, groups: pl.DataFrame) -> pl.DataFrame:
    """Returns the user table: what the feature file says of the groups' users; null for those that it lacks."""
    known = read_columns(path, {"user_id": pl.Int64, **dict.fromkeys(PROFILE, pl.String)})
    reject(known, path, "user_id", ~pl.col("user_id").is_first_distinct(), "appears twice")
    users = groups.select("user").unique().sort("user")
    known = known.drop("line").rename({"user_id": "user"})
    return users.join(known, on="user", how="left", maintain_order="left")


def clean_text(column: str) -> pl.Expr:
    """Returns a text column with white space collapsed; null where it is empty or UNKNOWN."""
    text = pl.col(column).str.replace_all(r"\s+", " ").str.strip_chars()
    return pl.when(~text.is_in(["", "UNKNOWN"])).then(text)


def joined_text(*columns: str) -> pl.Expr:
    """Joins the texts of several columns to one, without those that are missing."""
    return pl.concat_str([clean_text(c) for c in columns], separator=" ", ignore_nulls=True)
