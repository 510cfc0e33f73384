"""MovieLens-100K: which film does a user rate next, and how well do they like it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from bench.api import Dataset, Field, Tables, Task
from bench.data.raw.source import Download, Package
from bench.datasets.logs.histories import histories
from bench.datasets.logs.negatives import beside_others
from bench.datasets.logs.read import read_lines, reject, whole
from bench.errors import BenchError

GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
AGE_BANDS = ("under 18", "18-24", "25-34", "35-44", "45-49", "50-55", "56+")  # those of MovieLens-1M
NEGATIVES = 4
SEED = 100_000

RATING_COLUMNS = ("user_id", "item_id", "rating", "timestamp")
USER_COLUMNS = ("user_id", "age", "gender", "occupation", "zip_code")
ITEM_COLUMNS = ("item_id", "title", "release_date", "video_release_date", "url", *GENRES)  # official
RECBOLE_ITEM_COLUMNS = ("item_id", "movie_title", "release_year", "class")


class MovieLens100K(Dataset):
    """One group for each rating: the film the user watched and four that they had not, ordered by film number.

    The four are drawn without replacement with probability proportional to popularity ** 0.75 (popularity: ratings in
    the log strictly before that second) among films that the user has not rated up to then; the seed is fixed.
    Ratings at the start of the log, when fewer than four such films exist, make no group (16 of the 100,000). Films
    rated in the same second are not in each other's history.

    Labels: ``watch`` and ``rec`` 1 for the watched film; ``like`` rating >= 4, on watched rows; ``rank``
    (rating - 1) / 4, 0 for the others; ``interest`` the watched film's first genre in the order of ``GENRES``.
    Reads the official files and RecBole's copy of them; both give the same tables.
    """

    version = 1
    domain = "video"
    sizes = {"": "100,000 ratings"}
    about = (
        "100,000 ratings of 1,682 films by 943 users, September 1997 to April 1998. Each rating counts as a watched "
        "film, shown beside four films not rated so far, drawn by popularity so far (to the power 0.75). 16 ratings at "
        "the start, when fewer than four such films were known, are left out."
    )
    licence = "research use; no redistribution without permission (GroupLens)"
    citation = (
        "F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. "
        "ACM Transactions on Interactive Intelligent Systems 5(4), 19:1-19:19. doi:10.1145/2827872"
    )
    url = "https://grouplens.org/datasets/movielens/100k/"
    tasks = (
        Task("watch", "binary", role="ctr"),
        Task("rec", "softmax", role="rec"),
        Task("like", "binary", role="like", space="watched rows"),
        Task("rank", "regression", role="rank", metric="ndcg@10"),
        Task("interest", "multiclass", scope="user", role="interest", classes=GENRES),
    )
    fields = (
        Field("user", "user", "id"),
        Field("age", "user"),
        Field("gender", "user"),
        Field("occupation", "user"),
        Field("item", "item", "id"),
        Field("year", "item"),
        Field("genre", "item"),
    )
    forbidden = ("rating", "timestamp")
    history = 20
    sources = (
        Download(
            "https://files.grouplens.org/datasets/movielens/ml-100k.zip",
            "md5:0e33842e24a9c977be4e0107933c0723",
            {name: f"ml-100k/{name}" for name in ("u.data", "u.item", "u.user")},
        ),
        Package(
            "recbole",
            "1.2.1",
            "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
            {f"ml-100k.{end}": f"recbole/dataset_example/ml-100k/ml-100k.{end}" for end in ("inter", "item", "user")},
        ),
    )

    def build(self, raw: Mapping[str, Path]) -> Tables:
        """Standard tables from ``u.data``, ``u.item``, ``u.user`` or RecBole's ``ml-100k.inter``, ``.item``, ``.user``.

        Raises BenchError with file and line number for truncated or malformed files.
        """
        official = "u.data" in raw
        names = ("u.data", "u.user", "u.item") if official else ("ml-100k.inter", "ml-100k.user", "ml-100k.item")
        log_file, user_file, item_file = (raw[name] for name in names)
        if official:
            ratings = read_lines(log_file, "\t", "utf-8", RATING_COLUMNS)
            users = read_lines(user_file, "|", "utf-8", USER_COLUMNS)
            films = _official_films(item_file)
        else:
            ratings = read_lines(log_file, "\t", "utf-8", RATING_COLUMNS, header=True)
            users = read_lines(user_file, "\t", "utf-8", USER_COLUMNS, header=True)
            films = _recbole_films(item_file)
        items, people = _items(films, item_file), _users(users, user_file)
        log = _log(ratings, log_file, items, people).sort("time", "user", "item")
        groups, rows = self._impressions(log, items)
        if groups.is_empty():
            raise BenchError(f"{log_file}: too few ratings; none has four other films before it")
        return Tables(groups=groups, rows=rows, items=items, users=people)

    def _impressions(self, log: pl.DataFrame, items: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        watched, rows = beside_others(log, NEGATIVES, (SEED, self.version))
        watch = pl.col("chosen")
        rows = rows.select(
            "group",
            "item",
            watch=watch.cast(pl.Int8),
            rec=watch.cast(pl.Int8),
            like=pl.when(watch).then((pl.col("rating") >= 4).cast(pl.Int8)),
            rank=pl.when(watch).then((pl.col("rating") - 1) / 4).otherwise(0.0),
        )
        groups = watched.hstack(histories(log, watched, self.history))
        groups = groups.join(items.select("item", interest="genre"), on="item", how="left", maintain_order="left")
        return groups.select("group", "user", "time", "history", "history_time", "interest"), rows


def _official_films(path: Path) -> pl.DataFrame:
    """item_id, title ("Name (year)"), genres of ``u.item``, which marks genres by 19 flags."""
    table = read_lines(path, "|", "latin-1", ITEM_COLUMNS)
    for genre in GENRES:
        reject(table, path, genre, ~pl.col(genre).is_in(["0", "1"]), "is not 0 or 1")
    flagged = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in GENRES]
    return table.select("item_id", "title", "line", genres=pl.concat_list(flagged).list.drop_nulls())


def _recbole_films(path: Path) -> pl.DataFrame:
    """item_id, title, genres of RecBole's copy, which cut titles at their last bracket and misspells "unknown"."""
    table = read_lines(path, "\t", "utf-8", RECBOLE_ITEM_COLUMNS, header=True)
    given = pl.col("class").str.split(" ").list.filter(pl.element() != "")
    reject(table, path, "class", given.list.set_difference(list(GENRES)).list.len() > 0, "names an unknown genre")
    title = pl.format("{} ({})", "movie_title", "release_year")
    return table.select(
        "item_id", "line",
        title=pl.when(pl.col("release_year") == "unkonwn").then(pl.lit("unknown")).otherwise(title),
        genres=pl.concat_list(pl.when(given.list.contains(g)).then(pl.lit(g)) for g in GENRES).list.drop_nulls(),
    )  # fmt: skip


def _items(films: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The item table."""
    films = whole(films, path, 1, None, "item_id")
    reject(films, path, "item_id", pl.col("item_id").is_duplicated(), "appears twice")
    genres = pl.when(pl.col("genres").list.len() > 0).then("genres").otherwise(pl.lit([GENRES[0]]))
    title = pl.col("title").str.replace_all(r"\s+", " ").str.strip_chars()
    parts = r"^(.*\S) ?\((\d{4})\)(?: \(V\))?$"  # (V): made for video
    name, year = title.str.extract(parts, 1).fill_null(title), title.str.extract(parts, 2).cast(pl.Int64)
    decade = pl.format("{}s", year // 10 * 10)
    films = films.select("item_id", genres=genres, name=name, year=year, decade=decade)
    band = pl.when(pl.col("year") < 1950).then(pl.lit("before 1950")).when(pl.col("year") < 1990).then("decade")
    dated = pl.format("{} ({})", "name", "year")
    return films.select(
        item="item_id",
        year=band.otherwise(pl.col("year").cast(pl.String)),  # half of the films are of the 1990s: single years there
        genre=pl.col("genres").list.first(),
        text=pl.concat_str(pl.coalesce(dated, "name"), pl.col("genres").list.join(", "), separator=". "),
    ).sort("item")


def _users(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The user table."""
    table = whole(whole(table, path, 1, None, "user_id"), path, 0, 150, "age")
    reject(table, path, "user_id", pl.col("user_id").is_duplicated(), "appears twice")
    place = np.searchsorted([18, 25, 35, 45, 50, 56], table["age"].to_numpy(), side="right")
    band = pl.Series("age", np.array(AGE_BANDS)[place])
    return table.select(pl.col("user_id").alias("user"), band, "gender", "occupation").sort("user")


def _log(table: pl.DataFrame, path: Path, items: pl.DataFrame, users: pl.DataFrame) -> pl.DataFrame:
    """user, item, rating, time (Unix seconds) of every rating, checked against the other two files."""
    table = whole(whole(table, path, 1, 5, "rating"), path, 1, None, "user_id", "item_id", "timestamp")
    reject(table, path, "user_id", ~pl.col("user_id").is_in(users["user"].implode()), "is not in the user file")
    reject(table, path, "item_id", ~pl.col("item_id").is_in(items["item"].implode()), "is not in the item file")
    reject(table, path, "item_id", ~pl.struct("user_id", "item_id").is_first_distinct(), "is rated twice by its user")
    return table.select("rating", user="user_id", item="item_id", time="timestamp")
