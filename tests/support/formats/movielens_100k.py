"""MovieLens-100K as GroupLens publishes it (tabs, bars, latin-1, no header), or as RecBole's copy (tabs, header)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.datasets.movielens_100k import GENRES

KEYS = {"u.item": "item_id", "u.user": "user_id"}
Rating = tuple[int, int, int, int]

# number, title, year, genres; year None: the film without data, "V": made for video in 1995
FILMS = (
    (1, "Toy Story", "1995", ("Animation", "Children's", "Comedy")),
    (2, 'Say "No", Please; or Not', "1990", ("Drama",)),
    (3, "Misérables, Les (The 'Poor')", "1949", ("Drama", "Musical")),
    (4, "unknown", None, ("unknown",)),
    (5, "Land Before Time III", "V", ("Animation",)),
    (6, "Cyclo", "1989", ("Crime", "Film-Noir")),
    (7, "Good Morning", "1971", ("unknown",)),
    (8, "Late, The", "1998", ("Western",)),
)
USERS = ((1, 17, "M", "none"), (2, 56, "F", "writer"), (3, 24, "F", "other"))
# Seen by then and not rated by the user: exactly four films at times 40, 70 and 80, fewer everywhere else.
RATINGS: tuple[Rating, ...] = (
    (2, 4, 1, 20), (1, 1, 5, 10), (1, 2, 3, 10), (2, 3, 4, 20), (1, 5, 2, 30), (3, 1, 4, 40),
    (3, 6, 3, 50), (3, 2, 4, 50), (1, 6, 1, 60), (2, 7, 2, 70), (2, 8, 5, 80),
)  # fmt: skip


def write(folder: Path, variant: str = "") -> None:
    """240 ratings: each of 60 users rates four of the eight films, a minute after the other."""
    rng = np.random.default_rng(1998)
    ratings = []
    for user in range(1, 61):
        for place, film in enumerate(rng.choice(np.arange(1, 9), 4, replace=False).tolist()):
            ratings.append((user, film, int(rng.integers(1, 6)), user * 300 + place * 60))
    official(folder, tuple(ratings[i] for i in rng.permutation(len(ratings))))


def official(folder: Path, ratings: tuple[Rating, ...] = RATINGS) -> dict[str, Path]:
    def film(number: int, title: str, year: str | None, genres: tuple[str, ...]) -> str:
        flags = "|".join(str(int(g in genres)) for g in GENRES)
        if year is None:
            return f"{number}|{title}||||{flags}"
        full = f"{title} (1995) (V)" if year == "V" else f"{title} ({year}) "  # some titles end with a space
        return f"{number}|{full}|01-Jan-1995||http://us.imdb.com/M/title-exact?{number}|{flags}"

    more = tuple((n, 30, "F", "other") for n in range(len(USERS) + 1, max(r[0] for r in ratings) + 1))
    return _write(folder, {
        "u.data": ["\t".join(map(str, r)) for r in ratings],
        "u.item": [film(*f) for f in FILMS],
        "u.user": ["|".join(map(str, (*u, "85711"))) for u in USERS + more],
    }, {"u.item": "latin-1"})  # fmt: skip


def recbole(folder: Path, ratings: tuple[Rating, ...] = RATINGS) -> dict[str, Path]:
    def film(number: int, title: str, year: str | None, genres: tuple[str, ...]) -> str:
        if year is None:
            title, year = "unkonwn", "unkonwn"
        return "\t".join([str(number), f"{title} (1995)" if year == "V" else title, year, " ".join(genres)])

    users = "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token"
    return _write(folder, {
        "ml-100k.inter": ["user_id:token\titem_id:token\trating:float\ttimestamp:float",
                          *("\t".join(map(str, r)) for r in ratings)],
        "ml-100k.item": ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq",
                         *(film(*f) for f in FILMS)],
        "ml-100k.user": [users, *("\t".join(map(str, (*u, "85711"))) for u in USERS)],
    }, {})  # fmt: skip


def _write(folder: Path, files: dict[str, list[str]], encodings: dict[str, str]) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        text = "".join(line + "\n" for line in lines)
        (folder / name).write_bytes(text.encode(encodings.get(name, "utf-8")))
    return {name: folder / name for name in files}
