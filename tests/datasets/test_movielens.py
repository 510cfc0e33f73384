"""MovieLens-1M, -25M and -32M from hand-made files: names, half stars, genres, and equality with MovieLens-100K."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from bench.api import Tables
from bench.datasets.logs.read import read_table
from bench.datasets.movielens import MD5, MovieLens
from bench.datasets.movielens_100k import GENRES, MovieLens100K
from bench.errors import BenchError
from tests.support.formats.movielens import write

Rating = tuple[int, int, float, int]

MOVIES = (
    'movieId,title,genres',
    '1,Toy Story (1995),Adventure|Animation|Children|Comedy|Fantasy',
    '2,"American President, The (1995)",Comedy|Drama|Romance',
    '3,"Misérables, Les ""The Poor"" (1958)",Drama',
    '6,Babylon 5,(no genres listed)',
    '7,Everest (1998) ,Documentary|IMAX',
    '10,Space Station (2002),IMAX',
    '12,Unseen (2018),Sci-Fi',
)  # fmt: skip
# Seen by then and not rated by the user: four films at time 30, fewer before, four or five after.
RATINGS: tuple[Rating, ...] = ((2, 6, 0.5, 20), (1, 1, 5.0, 10), (1, 2, 3.5, 10), (2, 3, 4.0, 20), (4, 7, 2.0, 30),
                               (3, 10, 0.5, 40), (3, 1, 4.0, 50), (5, 2, 4.5, 50))  # fmt: skip


def dataset(variant: str, one_in: int = 1) -> MovieLens:
    return type("Chosen", (MovieLens,), {"variant": variant})(one_in=one_in)


def lines(path: Path, rows: list[str] | tuple[str, ...], encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding, newline="")
    return path


def later(folder: Path, ratings: tuple[Rating, ...] = RATINGS, movies: tuple[str, ...] = MOVIES) -> dict[str, Path]:
    """The files of 25m."""
    rows = [f"{user},{film},{stars},{time}" for user, film, stars, time in ratings]
    return {
        "ratings.csv": lines(folder / "ratings.csv", ["userId,movieId,rating,timestamp", *rows]),
        "movies.csv": lines(folder / "movies.csv", movies),
    }


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return dataset("25m").build(later(tmp_path_factory.mktemp("hand")))


def test_items_by_hand(tables: Tables) -> None:
    assert tables.items.select("item", "year", "genre", "text").rows() == [
        (1, "1995", "Adventure", "Toy Story (1995). Adventure, Animation, Children's, Comedy, Fantasy"),
        (2, "1995", "Comedy", "American President, The (1995). Comedy, Drama, Romance"),
        (3, "1950s", "Drama", 'Misérables, Les "The Poor" (1958). Drama'),
        (6, None, "unknown", "Babylon 5. unknown"),
        (7, "1998", "Documentary", "Everest (1998). Documentary, IMAX"),
        (10, "2002", "IMAX", "Space Station (2002). IMAX"),
        (12, "2018", "Sci-Fi", "Unseen (2018). Sci-Fi"),
    ]


def test_groups_and_half_stars_by_hand(tables: Tables) -> None:
    # At 30 the films 1, 2, 3 and 6 were met; user 4 rates 7 then, user 3 rates 10 at 40 and 1 at 50, user 5 rates 2.
    assert tables.groups.select("user", "time", "history", "history_time", "interest").rows() == [
        (4, 30, [], None, "Documentary"),
        (3, 40, [], None, "IMAX"),
        (3, 50, [10], 40, "Adventure"),
        (5, 50, [], None, "Comedy"),
    ]
    watched = tables.rows.filter(pl.col("watch") == 1)
    assert watched.select("group", "item", "rec", "like", "rank").rows() == [
        (0, 7, 1, 0, 0.25),
        (1, 10, 1, 0, 0.0),  # half a star: rank is clipped
        (2, 1, 1, 1, 0.75),
        (3, 2, 1, 1, 0.875),
    ]
    for group in (0, 2):  # no other film can be drawn
        assert tables.rows.filter(pl.col("group") == group)["item"].to_list() == [1, 2, 3, 6, 7]
    others = tables.rows.filter(pl.col("watch") == 0)
    assert others["like"].null_count() == others.height == 16 and (others["rank"] == 0).all()
    assert 12 not in tables.rows["item"]  # never rated


def test_only_1m_knows_users(tables: Tables) -> None:
    assert tables.users.rows() == [(n,) for n in range(1, 6)]
    assert [f.name for f in dataset("25m").fields] == ["user", "item", "year", "genre"]
    assert [f.name for f in dataset("1m").fields] == [f.name for f in MovieLens100K.fields]
    assert dataset("1m").tasks[4].classes == GENRES[1:]
    assert dataset("32m").tasks[4].classes == (*GENRES, "IMAX")


def three_ways(folder: Path, seed: int) -> tuple[Tables, Tables, Tables]:
    """The same random log of whole stars as 100k, 1m and 25m."""
    rng = np.random.default_rng(seed)
    pairs = [(u, i) for u in range(1, 13) for i in range(1, 13) if rng.random() < 0.6]
    ratings = [(u, i, int(rng.integers(1, 6)), int(rng.integers(1, 40))) for u, i in pairs]
    genres = [GENRES[int(g)] for g in rng.integers(1, len(GENRES), 12)]
    ages = (1, 18, 25, 35, 45, 50, 56)
    flags = ["|".join(str(int(g == genre)) for g in GENRES) for genre in genres]
    old = {
        "u.data": ["\t".join(map(str, r)) for r in ratings],
        "u.item": [f"{n}|Film {n} (199{n % 9})|||http|{f}" for n, f in enumerate(flags, 1)],
        "u.user": [f"{u}|{ages[u % 7]}|F|{u}|1" for u in range(1, 13)],
    }
    million = {
        "ratings.dat": ["::".join(map(str, r)) for r in ratings],
        "movies.dat": [f"{n}::Film {n} (199{n % 9})::{genre}" for n, genre in enumerate(genres, 1)],
        "users.dat": [f"{u}::F::{ages[u % 7]}::{u}::1" for u in range(1, 13)],
    }
    later_names = [genre.replace("Children's", "Children") for genre in genres]
    movies = [f"{n},Film {n} (199{n % 9}),{genre}" for n, genre in enumerate(later_names, 1)]
    return (
        MovieLens100K().build({n: lines(folder / n, rows) for n, rows in old.items()}),
        dataset("1m").build({n: lines(folder / n, rows) for n, rows in million.items()}),
        dataset("25m").build(later(folder, tuple(ratings), ("movieId,title,genres", *movies))),
    )


@pytest.mark.parametrize("seed", range(3))
def test_all_releases_give_the_tables_of_100k(tmp_path: Path, seed: int) -> None:
    first, *others = three_ways(tmp_path, seed)
    assert first.groups.height > 20
    for other in others:
        for name in ("groups", "rows", "items"):
            assert_frame_equal(getattr(first, name), getattr(other, name))
    assert_frame_equal(first.users, others[0].users)
    assert_frame_equal(first.users.select("user"), others[1].users)


@pytest.mark.parametrize("variant", ["1m", "32m"])
def test_one_in_keeps_users_by_number(tmp_path: Path, variant: str) -> None:
    write(tmp_path, variant)
    raw = {name: tmp_path / name for name in dataset(variant).sources[0].published}
    built = dataset(variant, one_in=3).build(raw)
    assert set(built.groups["user"]) <= set(range(3, 25, 3)) and built.groups.height > 20
    whole = dataset(variant).build(raw)
    assert_frame_equal(whole.items, built.items)
    with pytest.raises(BenchError, match="one_in must be at least 1"):
        dataset(variant, one_in=0)


def test_order_of_lines_does_not_matter(tmp_path: Path, tables: Tables) -> None:
    other = dataset("25m").build(later(tmp_path, RATINGS[::-1]))
    for name in ("groups", "rows", "items", "users"):
        assert_frame_equal(getattr(tables, name), getattr(other, name))


def test_sources_name_archive_files_and_checksum() -> None:
    for variant, digest in MD5.items():
        (source,) = dataset(variant).sources
        assert source.url.endswith(f"/ml-{variant}.zip") and source.hash == f"md5:{digest}"
        assert {path.split("/")[0] for path in source.published.values()} == {f"ml-{variant}"}
        assert dataset(variant).about.startswith(variant.removesuffix("m"))


@pytest.mark.parametrize(
    ("name", "line", "old", "new", "message"),
    [
        ("ratings.csv", 3, ",10", ",1x", "line 3: timestamp '1x' is not a whole number"),
        ("ratings.csv", 3, "1,1", "one,1", "line 3: userId 'one' is not a whole number"),
        ("ratings.csv", 3, ",5.0,10", ",5.0", "line 3: 3 columns instead of 4"),
        ("ratings.csv", 3, ",5.0,", ",,", "line 3: rating '' is not a number"),
        ("ratings.csv", 3, ",5.0,", ",4.7,", "line 3: rating '4.7' is not a number of half stars"),
        ("ratings.csv", 3, ",5.0,", ",5.5,", "line 3: rating '5.5' is not a number of half stars"),
        ("ratings.csv", 3, ",10", ",0", "line 3: timestamp '0' is not a whole number of at least 1"),
        ("ratings.csv", 6, ",7,", ",8,", "line 6: movieId '8' is not in movies.csv"),
        ("ratings.csv", 4, "1,2", "1,1", "line 4: movieId '1' is rated twice by its user"),
        ("ratings.csv", 1, "rating", "score", "line 1: no column 'rating'; found userId, movieId, score, timestamp"),
        ("movies.csv", 2, "1,", "2,", "line 2: item_id '2' appears twice"),
        ("movies.csv", 4, "Drama", "Dramma", "line 4: genres 'Dramma' names an unknown genre"),
        ("movies.csv", 4, "3,", "x3,", "line 4: item_id 'x3' is not a whole number"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, name: str, line: int, old: str, new: str, message: str) -> None:
    raw = later(tmp_path)
    rows = raw[name].read_text("utf-8").split("\n")
    assert old in rows[line - 1]
    rows[line - 1] = rows[line - 1].replace(old, new, 1)
    raw[name].write_text("\n".join(rows), "utf-8")
    with pytest.raises(BenchError) as caught:
        dataset("25m").build(raw)
    assert f"{raw[name]}, {message}" in str(caught.value) and "\n" not in str(caught.value)


def test_cut_files_and_too_few_ratings(tmp_path: Path) -> None:
    raw = later(tmp_path)
    whole = raw["ratings.csv"].read_bytes()
    raw["ratings.csv"].write_bytes(whole[:-2])  # "5" is still a time
    with pytest.raises(BenchError, match="ends in the middle of a line"):
        dataset("25m").build(raw)
    raw["ratings.csv"].write_bytes(whole.split(b"\n")[0] + b"\n")
    with pytest.raises(BenchError, match="holds no rows"):
        dataset("25m").build(raw)
    with pytest.raises(BenchError, match="too few ratings"):
        dataset("25m").build(later(tmp_path, RATINGS[:4]))
    with pytest.raises(BenchError, match="too few ratings"):
        dataset("25m", one_in=4).build(later(tmp_path))


def test_a_table_is_read_as_it_is_written(tmp_path: Path) -> None:
    """Byte order mark, other line ends, quotes over lines, optional values, rows that are not kept."""
    text = '\ufeffa,b,c\r\n1,"x, ""y""",\r\n2,"two\nlines",5\r\nx,,\r\n'
    (tmp_path / "t.csv").write_bytes(text.encode())
    columns = {"a": pl.Int64, "b": pl.String, "c": pl.Int64}
    with pytest.raises(BenchError, match="line 5: a 'x' is not a whole number"):
        read_table(tmp_path / "t.csv", columns, optional=["c"])
    (tmp_path / "t.csv").write_bytes(text.replace("x,,", "3,,").encode())
    with pytest.raises(BenchError, match="line 5: b '' is not text"):
        read_table(tmp_path / "t.csv", columns, optional=["c"])
    kept = read_table(tmp_path / "t.csv", columns, optional=["c"], keep=pl.col("a") < 3)
    assert kept.select("a", "b", "c").rows() == [(1, 'x, "y"', None), (2, "two\nlines", 5)]
