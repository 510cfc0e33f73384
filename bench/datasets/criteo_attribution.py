"""Criteo Attribution: banners shown to users, whether they were clicked and whether a conversion followed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from bench.api import Dataset, Field, Tables, Task, Temporal
from bench.data.raw.source import Local
from bench.datasets.logs.histories import histories
from bench.datasets.logs.read import read_table, reject
from bench.datasets.logs.user_share import Thinned
from bench.errors import BenchError

DAY = 86_400
HORIZON = DAY  # seconds after an impression in which a conversion counts
FILE = "criteo_attribution_dataset.tsv"
CONTEXT = tuple(f"cat{n}" for n in range(1, 10))
COLUMNS = dict.fromkeys(
    ("timestamp", "uid", "campaign", "conversion", "conversion_timestamp", "click", "time_since_last_click", *CONTEXT),
    pl.Int64,
)


class CriteoAttribution(Thinned, Dataset):
    """One group of one row for each impression; the item is its campaign.

    Labels: ``click``; ``conversion``, a conversion that the log links to the impression, at most a day later, clicked
    or not; ``ctcvr`` click and conversion; ``cvr`` the conversion on clicked rows. The published flag looks 30 days
    ahead, so that hardly any label of the training part would be known before the next part begins; hence the day.
    ``known`` is a day after the impression; impressions of the log's last day are left out. Clicks have no time of
    their own: they count as made at once. Histories hold the campaigns of earlier impressions. ``since_click`` is
    log(1 + seconds) since the last click as published for the impression, missing if there is none. Times are seconds
    from the log's start.

    one_in: keep one user in so many, by number. The 16 million rows take about 12 GB of memory to prepare.
    """

    version = 1
    domain = "advertising"
    sizes = {"": "30 days, 623 MB"}
    about = (
        "Impressions of banners over 30 days of Criteo traffic and what followed within a day. All rows are banners "
        "that were shown; the publisher sampled them, so that the click rate (36%) is far above a real one. One banner "
        "is shown at a time: there is nothing to rank within a group, hence no rank and rec tasks. ctcvr is click and "
        "conversion, cvr its conversion on clicked rows. cost (set in the auction), cpo, the position and number of "
        "clicks and the attribution come about with or after the outcome and are left out. Campaigns have no text. "
        "Train: days 0-21; validation: days 22-25; test: days 26 to the last but one."
    )
    licence = "CC BY-NC-SA 4.0"
    citation = (
        "Eustache Diemert, Julien Meynet, Pierre Galland and Damien Lefortier. 2017. Attribution Modeling Increases "
        "Efficiency of Bidding in Display Advertising. AdKDD and TargetAd Workshop, KDD 2017. arXiv:1707.06409"
    )
    # The address: [from memory].
    url = "https://ailab.criteo.com/criteo-attribution-modeling-bidding-dataset/"
    tasks = (
        Task("click", "binary", role="ctr"),
        Task("conversion", "binary", role="conversion after impression"),
        Task("ctcvr", "binary", role="conversion"),
        Task("cvr", "binary", role="conversion given click", space="clicked rows"),
    )
    fields = (
        Field("user", "user", "id"),
        Field("item", "item", "id"),
        *(Field(name, "pair") for name in CONTEXT),
        Field("since_click", "pair", "numerical"),
    )
    forbidden = ("conversion_timestamp", "conversion_id", "attribution", "click_pos", "click_nb", "cost", "cpo")
    history = 10
    split = Temporal(valid=22 * DAY, test=26 * DAY, absolute=True)
    sources = (
        Local(
            {FILE: f"criteo_attribution_dataset/{FILE}"},
            "get criteo_attribution_dataset.zip from Criteo AI Lab (Criteo Attribution Modeling for Bidding Dataset)",
        ),
    )

    def build(self, raw: Mapping[str, Path]) -> Tables:
        """Standard tables from the one file. Raises BenchError naming file and line on bad input."""
        log = self._impressions(raw[FILE])
        delay = pl.col("conversion_timestamp") - pl.col("time")
        converted = (pl.col("conversion") == 1) & (delay <= HORIZON)
        clicked = pl.col("click") == 1
        shown = log.filter(pl.col("time") + HORIZON <= log["time"].max()).with_row_index("group")
        if shown.is_empty():
            raise BenchError(f"{raw[FILE]}: no impression is a day older than the last; fetch the file again")
        shown = shown.with_columns(pl.col("group").cast(pl.Int64))
        groups = shown.select("group", "user", "time", known=pl.col("time") + HORIZON)
        groups = groups.hstack(histories(log, shown, self.history))
        since = pl.col("time_since_last_click")
        rows = shown.select(
            "group", "item", *CONTEXT,
            click=clicked.cast(pl.Int8),
            conversion=converted.cast(pl.Int8),
            ctcvr=(clicked & converted).cast(pl.Int8),
            cvr=pl.when(clicked).then(converted.cast(pl.Int8)),
            since_click=pl.when(since >= 0).then(since.cast(pl.Float32).log1p()),
        )  # fmt: skip
        items = log.select("item").unique().sort("item").with_columns(text=pl.lit(None, pl.String))
        return Tables(groups, rows, items, groups.select("user").unique().sort("user"))

    def _impressions(self, path: Path) -> pl.DataFrame:
        """The impressions of the users kept, in time order: user, item, time and the columns read."""
        table = read_table(path, COLUMNS, separator="\t", keep=pl.col("uid") % self.one_in == 0)
        for name in ("click", "conversion"):
            reject(table, path, name, ~pl.col(name).is_in([0, 1]), "is not 0 or 1")
        early = (pl.col("conversion") == 1) & (pl.col("conversion_timestamp") < pl.col("timestamp"))
        reject(table, path, "conversion_timestamp", early, "is before the impression")
        table = table.rename({"uid": "user", "campaign": "item", "timestamp": "time"})
        return table.sort("time", "line").drop("line")
