"""Yambda (Yandex Music): sessions of music listening, what was played through, liked and disliked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import polars as pl

from bench.api import Dataset, Field, Tables, Task, Temporal
from bench.data.raw.source import Local
from bench.datasets.logs.histories import around, histories
from bench.datasets.logs.read import Columns, read_parquet
from bench.datasets.logs.user_share import Thinned
from bench.errors import BenchError

GAP = 1800  # seconds without a listen that end a session
HORIZON = 1800  # seconds after a session's last listen in which a like or dislike still counts
PLAYED = 50  # per cent of a track from which a listen counts as Listen+; the publisher's threshold
DAY = 86_400
TEST = 25_913_600  # start of the publisher's test day on the log's own clock [from memory]

REACTION: Columns = {"uid": pl.Int32, "item_id": pl.Int32, "timestamp": pl.Int32}
COLUMNS: dict[str, Columns] = {
    "listens": {**REACTION, "is_organic": pl.Int8, "played_ratio_pct": pl.Int32, "track_length_seconds": pl.Int32},
    "likes": REACTION,
    "dislikes": REACTION,
}


class Yambda(Thinned, Dataset):
    """One group for each session: a user's listens with at most 30 minutes from one to the next; its rows, in order.

    A group's time is that of its first listen, and all that describes the user is from before it. ``known`` is 30
    minutes after its last listen. Sessions not known when the log ends are left out.

    Labels: ``listen_plus`` and ``rec`` 1 if at least half of the track was played; ``rank`` the share that was played,
    at most 1; ``like`` whether the user liked the track between the session's start and ``known``, on tracks that they
    had not liked before the session, and ``dislike`` likewise. A row's own time decides neither: the log does not say
    whether it is the start or the end of the listen. A like that was taken back still counts as one, and likes from
    before the log began are unknown. Histories hold the tracks of earlier Listen+, repeats included. Times are seconds
    in steps of 5 on the log's own clock.

    one_in: keep one user in so many, by number. The 46 million rows of 50m take about 25 GB of memory to prepare.
    """

    version = 1
    domain = "music"
    sizes = {"50m": "50M events"}
    about = (
        "Listening sessions of ten thousand users of Yandex Music over 300 days. Rows are the tracks that were "
        "played, chosen by the user (organic) or by a recommender, so that skips are the negatives and nothing is "
        "sampled. listen_plus is a threshold (half) of rank; rec is the same label, compared within a session. Tracks "
        "have no text. Artists, albums, audio vectors, unlikes and undislikes are not used. Test: the last day, as "
        "the publisher has it; validation: the day before."
    )
    licence = "Apache-2.0"
    citation = "Yambda-5B: A Large-Scale Multi-modal Dataset for Ranking And Retrieval. 2025. arXiv:2505.22238 (Yandex)"
    url = "https://huggingface.co/datasets/yandex/yambda"
    tasks = (
        Task("listen_plus", "binary", role="ctr"),
        Task("rec", "softmax", role="rec"),
        Task("rank", "regression", role="rank", metric="ndcg@10"),
        Task("like", "binary", role="like", space="tracks not liked before the session"),
        Task("dislike", "binary", role="dislike", space="tracks not disliked before the session"),
    )
    fields = (
        Field("user", "user", "id"),
        Field("item", "item", "id"),
        Field("length", "item", "numerical"),
        Field("organic", "pair"),
    )
    forbidden = ("played_ratio_pct", "timestamp")
    history = 20
    split = Temporal(valid=TEST - DAY, test=TEST, absolute=True)
    variants: ClassVar[tuple[str, ...]] = ("50m",)

    @property
    def sources(self) -> tuple[Local, ...]:  # type: ignore[override]
        """The flat files; no checksum is published."""
        files = {name: f"flat/{self.variant}/{name}.parquet" for name in COLUMNS}
        return (Local(files, f"get flat/{self.variant}/*.parquet from {self.url}"),)

    def build(self, raw: Mapping[str, Path]) -> Tables:
        """Standard tables from the three parquet files. Raises BenchError naming file and column on bad input."""
        listens, likes, dislikes = (self._events(raw[name], columns) for name, columns in COLUMNS.items())
        listens = listens.sort("user", "time", maintain_order=True)
        other = (pl.col("user").diff() != 0) | (pl.col("time").diff() > GAP)
        listens = listens.with_columns(group=other.fill_null(False).cum_sum().cast(pl.Int64))
        groups = listens.group_by("group", maintain_order=True).agg(
            pl.col("user").first(), pl.col("time").first(), known=pl.col("time").last() + HORIZON
        )
        groups = groups.filter(pl.col("known") <= listens["time"].max())
        if groups.is_empty():
            raise BenchError(f"{raw['listens']}: no session ends {HORIZON} s before the log does; fetch it again")
        groups = groups.hstack(histories(listens.filter(pl.col("played_ratio_pct") >= PLAYED), groups, self.history))
        items = listens.group_by("item").agg(length=pl.col("track_length_seconds").min().cast(pl.Float64).log1p())
        rows = listens.select("group", "item", "is_organic", "played_ratio_pct").join(
            groups.select("group", "user", "time", "known"), on="group", maintain_order="left"
        )
        rows = rows.with_columns(
            pl.when(~found["before"]).then(found["within"].cast(pl.Int8)).alias(label)
            for label, found in (("like", around(rows, likes)), ("dislike", around(rows, dislikes)))
        )
        played = pl.col("played_ratio_pct")
        rows = rows.select(
            "group", "item", "like", "dislike",
            organic="is_organic",
            listen_plus=(played >= PLAYED).cast(pl.Int8),
            rec=(played >= PLAYED).cast(pl.Int8),
            rank=(played.cast(pl.Float32) / 100).clip(0, 1),
        )  # fmt: skip
        items = items.sort("item").with_columns(text=pl.lit(None, pl.String))
        return Tables(groups, rows, items, groups.select("user").unique().sort("user"))

    def _events(self, path: Path, columns: Columns) -> pl.DataFrame:
        """A file's events of the users kept: user, item, time and its other columns."""
        table = read_parquet(path, columns, required=columns)
        kept = table.filter(pl.col("uid") % self.one_in == 0)
        return kept.rename({"uid": "user", "item_id": "item", "timestamp": "time"})
