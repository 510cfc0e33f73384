"""MovieLens-1M, -25M and -32M: which film does a user rate next, and how well do they like it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import polars as pl

from bench.api import Field, Tables, Task
from bench.data.raw.source import Download
from bench.datasets.logs.read import read_lines, read_table, reject
from bench.datasets.logs.user_share import Thinned
from bench.datasets.movielens_100k import GENRES, RATING_COLUMNS, MovieLens100K, _items, _log, _users
from bench.errors import BenchError

# Of the archives as published by GroupLens.
MD5 = {
    "1m": "c4d9eecfca2ab87c1945afe126590906",
    "25m": "6b51fb2759a8657d3bfcbfc42b592ada",
    "32m": "d472be332d4daa821edc399621853b57",
}
COUNTS = {  # 1m and 25m: [from memory]
    "1m": "1,000,209 ratings of 3,883 films by 6,040 users, 2000 to 2003",
    "25m": "25,000,095 ratings of 62,423 films by 162,541 users, 1995 to 2019",
    "32m": "32,000,204 ratings of 87,585 films by 200,948 users, 1995 to 2023",
}
PROFILE = ("age", "gender", "occupation")  # of users; 1m only
RENAMED = {"Children": "Children's", "(no genres listed)": "unknown"}  # later names of genres of MovieLens-100K


class MovieLens(Thinned, MovieLens100K):
    """Groups, negatives, histories and labels as in ``movielens-100k``; see there.

    Half stars (25m, 32m): ``like`` is rating >= 4, ``rank`` is (rating - 1) / 4, 0 for a rating of 0.5. ``genre`` and
    ``interest`` are a film's first genre in the order of MovieLens-100K's list, with IMAX after it; films without a
    genre count as "unknown". 25m and 32m say nothing about users. Occupations (1m) are the published codes.

    one_in: keep one user in so many, by number; all films stay. Every rating makes a group of five rows with a
    history of its own: a million ratings take about 1.7 GB of memory and half a minute to prepare, 25m and 32m as a
    whole about 45 and 55 GB.
    """

    version = 1
    domain = "video"
    sizes = {"1m": "1M ratings", "25m": "25M ratings", "32m": "32,000,204 ratings"}
    licence = "research use; no redistribution without permission (GroupLens)"
    variants: ClassVar[tuple[str, ...]] = ("1m", "25m", "32m")
    forbidden = ("rating", "timestamp")

    @property
    def about(self) -> str:  # type: ignore[override]
        """Rows, negatives and what is left out."""
        return (
            f"{COUNTS[self.variant]}. Each rating counts as a watched film, shown beside four films not rated so far, "
            "drawn by popularity so far (to the power 0.75). Ratings at the start, when fewer than four such films "
            "were known, are left out. Tags and links are not used."
        )

    @property
    def url(self) -> str:  # type: ignore[override]
        """The publisher's page."""
        return f"https://grouplens.org/datasets/movielens/{self.variant}/"

    @property
    def genres(self) -> tuple[str, ...]:
        """The genres in the order that decides which of a film's is its first."""
        return GENRES[1:] if self.variant == "1m" else (*GENRES, "IMAX")

    @cached_property
    def tasks(self) -> tuple[Task, ...]:  # type: ignore[override]
        """As in MovieLens-100K, over the variant's own genres."""
        return (
            Task("watch", "binary", role="ctr"),
            Task("rec", "softmax", role="rec"),
            Task("like", "binary", role="like", space="watched rows"),
            Task("rank", "regression", role="rank", metric="ndcg@10"),
            Task("interest", "multiclass", scope="user", role="interest", classes=self.genres),
        )

    @property
    def fields(self) -> tuple[Field, ...]:  # type: ignore[override]
        """As in MovieLens-100K; without the profile where none is published."""
        return tuple(f for f in MovieLens100K.fields if self.variant == "1m" or f.name not in PROFILE)

    @property
    def sources(self) -> tuple[Download, ...]:  # type: ignore[override]
        """GroupLens' archive."""
        top = f"ml-{self.variant}"
        names = ("ratings.dat", "users.dat", "movies.dat") if self.variant == "1m" else ("ratings.csv", "movies.csv")
        url = f"https://files.grouplens.org/datasets/movielens/{top}.zip"
        return (Download(url, f"md5:{MD5[self.variant]}", {name: f"{top}/{name}" for name in names}),)

    def build(self, raw: Mapping[str, Path]) -> Tables:
        """Standard tables from ``ratings``, ``movies`` and, for 1m, ``users``. Raises BenchError with file and line."""
        if self.variant == "1m":
            path = raw["movies.dat"]
            films = read_lines(path, "::", "latin-1", ("item_id", "title", "genres"))
            items = _items(self._ordered_genres(films, path), path)
            columns = ("user_id", "gender", "age", "occupation", "zip_code")
            users = _users(read_lines(raw["users.dat"], "::", "latin-1", columns), raw["users.dat"])
            ratings = read_lines(raw["ratings.dat"], "::", "latin-1", RATING_COLUMNS)
            log = _log(ratings, raw["ratings.dat"], items, users)
            log = log.filter(pl.col("user") % self.one_in == 0)
        else:
            path = raw["movies.csv"]
            films = read_table(path, dict.fromkeys(("movieId", "title", "genres"), pl.String))
            films = films.rename({"movieId": "item_id"})
            items = _items(self._ordered_genres(films, path), path)
            log = self._ratings(raw["ratings.csv"], items)
            users = log.select("user").unique().sort("user")
        # From 1 on (rating - 1) / 4 is in [0, 1]; half a star is no more a like than one.
        log = log.with_columns(pl.col("rating").clip(lower_bound=1)).sort("time", "user", "item")
        groups, rows = self._impressions(log, items) if log.height else (log, log)
        if groups.is_empty():
            raise BenchError(f"{next(iter(raw.values()))}: too few ratings; none has four other films before it")
        return Tables(groups=groups, rows=rows, items=items, users=users)

    def _ordered_genres(self, films: pl.DataFrame, path: Path) -> pl.DataFrame:
        """The film table with ``genres`` as a list in the order of ``self.genres``."""
        given = pl.col("genres").str.split("|").list.eval(pl.element().replace(RENAMED))
        known = list(self.genres)
        reject(films, path, "genres", given.list.set_difference(known).list.len() > 0, "names an unknown genre")
        flagged = [pl.when(given.list.contains(g)).then(pl.lit(g)) for g in known]
        return films.with_columns(genres=pl.concat_list(flagged).list.drop_nulls())

    def _ratings(self, path: Path, items: pl.DataFrame) -> pl.DataFrame:
        """user, item, rating, time of every rating of the users kept, checked against the films."""
        columns = {"userId": pl.Int64, "movieId": pl.Int64, "rating": pl.Float64, "timestamp": pl.Int64}
        log = read_table(path, columns, keep=pl.col("userId") % self.one_in == 0)
        stars = (pl.col("rating") * 2).is_between(1, 10) & (pl.col("rating") * 2 % 1 == 0)
        pair = pl.col("userId") * 2**32 + pl.col("movieId")  # one number is cheaper to compare than two columns
        reject(log, path, "rating", ~stars, "is not a number of half stars from 0.5 to 5")
        reject(log, path, "timestamp", pl.col("timestamp") < 1, "is not a whole number of at least 1")
        reject(log, path, "movieId", ~pl.col("movieId").is_in(items["item"].implode()), "is not in movies.csv")
        reject(log, path, "movieId", ~pair.is_first_distinct(), "is rated twice by its user")
        return log.select("rating", user="userId", item="movieId", time="timestamp")
