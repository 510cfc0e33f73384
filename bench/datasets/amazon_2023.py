"""Amazon Reviews 2023, one category each: which product does a user review next, how well do they like it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import polars as pl

from bench.api import Dataset, Field, Tables, Task
from bench.data.raw.source import Local
from bench.datasets.logs.classes import frequent_classes, with_other
from bench.datasets.logs.histories import histories
from bench.datasets.logs.negatives import beside_others
from bench.datasets.logs.read import Nested, read_json_lines
from bench.datasets.logs.user_share import Thinned
from bench.errors import BenchError

CATEGORIES = {  # variant -> name in the official list of categories
    "all-beauty": "All_Beauty",
    "books": "Books",
    "electronics": "Electronics",
    "movies-and-tv": "Movies_and_TV",
    "musical-instruments": "Musical_Instruments",
    "video-games": "Video_Games",
}
NEGATIVES = 4
SEED = 2023
CLASS_SHARE = 0.01  # of the catalogue that a category needs to be a class of its own
LEVELS_IN_TEXT = 3  # of categories, below the root

REVIEW: Nested = {
    "rating": pl.Float64,
    "parent_asin": pl.String,
    "user_id": pl.String,
    "timestamp": pl.Int64,
    "helpful_vote": pl.Int64,
}
META: Nested = {
    "parent_asin": pl.String,
    "title": pl.String,
    "store": pl.String,
    "categories": pl.List(pl.String),
}


class Amazon2023(Thinned, Dataset):
    """One group for each review: the product the user reviewed and four that they had not, ordered by ``parent_asin``.

    A review stands for a purchase or use of the product. The four are drawn without replacement with probability
    proportional to popularity ** 0.75 (popularity: reviews strictly before that millisecond) among products that the
    user has not reviewed up to then; the seed is fixed. Reviews at the start, when fewer than four such products
    exist, make no group. Of several reviews of a product by a user the first counts. No k-core filter is applied:
    most users and products have few reviews.

    Labels: ``buy`` and ``rec`` 1 for the reviewed product; ``like`` rating >= 4 and ``helpful`` at least one helpful
    vote, on reviewed rows; ``rank`` (rating - 1) / 4, 0 for the others; ``interest`` the reviewed product's main
    category: the first of ``categories`` below the root. Its classes are those of at least one product in a hundred of
    the catalogue, all others are "other". Where the catalogue has no two classes, as in a file without categories,
    there is no ``interest``.

    one_in: keep one user in so many, in the order of their names. A million reviews take about 1.5 GB of memory and
    half a minute to prepare; books and electronics have tens of millions.
    """

    version = 1
    domain = "e-commerce"
    licence = "none stated; published for research by McAuley Lab, UC San Diego"
    citation = (
        "Yupeng Hou, Jiacheng Li, Zhankui He, An Yan, Xiusi Chen and Julian McAuley. 2024. Bridging Language and Items "
        "for Retrieval and Recommendation. arXiv:2403.03952"
    )
    url = "https://amazon-reviews-2023.github.io/"
    tasks: tuple[Task, ...] = (
        Task("buy", "binary", role="ctr"),
        Task("rec", "softmax", role="rec"),
        Task("like", "binary", role="like", space="reviewed rows"),
        Task("rank", "regression", role="rank", metric="ndcg@10"),
        Task("helpful", "binary", role="helpful", space="reviewed rows"),
        # Its classes come from the catalogue: ``build`` fills them in.
        Task("interest", "multiclass", scope="user", role="interest", space="reviews of products with a category"),
    )
    fields = (
        Field("user", "user", "id"),
        Field("item", "item", "id"),
        Field("store", "item"),
        Field("category", "item"),
    )
    forbidden = ("rating", "timestamp", "helpful_vote", "verified_purchase", "average_rating", "rating_number")
    history = 20
    variants: ClassVar[tuple[str, ...]] = (
        "all-beauty",
        "books",
        "electronics",
        "movies-and-tv",
        "musical-instruments",
        "video-games",
    )

    @property
    def about(self) -> str:  # type: ignore[override]
        """Rows, negatives and what is left out."""
        return (
            f"Reviews of {CATEGORIES[self.variant].replace('_', ' ')} on Amazon, May 1996 to September 2023. Each "
            "review counts as a purchase, shown beside four products not reviewed so far, drawn by popularity so far "
            "(to the power 0.75). Ratings of a product as a whole (average_rating, rating_number) look ahead and are "
            "left out, as are prices, which are those of 2023. Titles, stores and categories are as collected in 2023. "
            "So are helpful votes: older reviews had longer to earn them, and a vote may come after the test part "
            "begins. like is a threshold of rank on reviewed rows. Review texts and pictures are not used."
        )

    @property
    def sources(self) -> tuple[Local, ...]:  # type: ignore[override]
        """The two files of the category; no checksum is published."""
        name = CATEGORIES[self.variant]
        files = {"reviews": f"{name}.jsonl", "meta": f"meta_{name}.jsonl"}
        how = f"get {name}.jsonl.gz and meta_{name}.jsonl.gz (review and meta of {name}) from {self.url}"
        return (Local(files, how),)

    def build(self, raw: Mapping[str, Path]) -> Tables:
        """Standard tables from ``reviews`` and ``meta``; sets the classes of ``interest``.

        Raises BenchError naming file and line on bad input.
        """
        log = self._log(raw["reviews"])
        catalogue = _catalogue(raw["meta"])
        classes = frequent_classes(catalogue["category"], CLASS_SHARE)
        if len(classes) < 3:  # no two categories to tell apart
            classes = ()
        *others, interest = Amazon2023.tasks
        self.tasks = (*others, *([replace(interest, classes=classes)] if classes else ()))
        items = log.select("item").unique().sort("item").join(catalogue, on="item", how="left", maintain_order="left")
        events, rows = beside_others(log, NEGATIVES, (SEED, self.version))
        if events.is_empty():
            raise BenchError(f"{raw['reviews']}: too few reviews; none has {NEGATIVES} other products before it")
        groups = events.join(items, on="item", how="left", maintain_order="left").with_columns(
            interest=with_other("category", classes)
        )
        groups = groups.select("group", "user", "time", "interest").hstack(histories(log, events, self.history))
        reviewed = pl.col("chosen")
        rows = rows.select(
            "group",
            "item",
            buy=reviewed.cast(pl.Int8),
            rec=reviewed.cast(pl.Int8),
            like=pl.when(reviewed).then((pl.col("rating") >= 4).cast(pl.Int8)),
            rank=pl.when(reviewed).then(((pl.col("rating") - 1) / 4).clip(0, 1)).otherwise(0.0),
            helpful=pl.when(reviewed).then((pl.col("helpful_vote") > 0).cast(pl.Int8)),
        )
        return Tables(groups, rows, items, groups.select("user").unique().sort("user"))

    def _log(self, path: Path) -> pl.DataFrame:
        """user, item, time, rating, helpful_vote of the first review of each user and product, in time order."""
        log = read_json_lines(path, REVIEW, required=tuple(REVIEW))
        if self.one_in > 1:
            users = log.select(pl.col("user_id").unique().sort().gather_every(self.one_in))
            log = log.join(users, on="user_id", how="semi", maintain_order="left")
        log = log.rename({"user_id": "user", "parent_asin": "item", "timestamp": "time"})
        first = log.sort("time", "line").unique(["user", "item"], keep="first", maintain_order=True)
        return first.drop("line").sort("time", "user", "item")


def _catalogue(path: Path) -> pl.DataFrame:
    """item, store, category (the first below the root) and text of every product; of several entries the first."""
    meta = read_json_lines(path, META, required=("parent_asin",))
    meta = meta.unique("parent_asin", keep="first", maintain_order=True)
    below = pl.col("categories").list.slice(1, LEVELS_IN_TEXT)
    clean = [
        part.str.replace_all(r"\s+", " ").str.strip_chars().replace("", None)
        for part in (pl.col("title"), pl.col("store"), below.list.join(", "))
    ]
    return meta.select(
        item="parent_asin",
        store=clean[1],
        category=below.list.get(0, null_on_oob=True),
        text=pl.concat_str(clean, separator=". ", ignore_nulls=True),
    )
