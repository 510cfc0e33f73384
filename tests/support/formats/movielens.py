"""Files as GroupLens publishes MovieLens-1M ("::", latin-1, no header), -25M and -32M (CSV with header and quotes)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

KEYS = {"movies.*": "movieId", "users.dat": "userId"}
# title, genres as in 1M; the later releases quote titles with commas and name some genres otherwise
FILMS = (
    ("Toy Story (1995)", "Animation|Children's|Comedy"),
    ("American President, The (1995)", "Comedy|Drama|Romance"),
    ("Misérables, Les (1998)", "Drama|Musical"),
    ('Say "No", Please (1990)', "Drama"),
    ("Cité des enfants perdus, La (1995)", "Adventure|Sci-Fi"),
    ("Shall We Dance? (Shall We Dansu?) (1996)", "Comedy"),
    ("Nosferatu (1922) ", "Horror"),
    ("M*A*S*H (1970)", "Comedy|War"),
)
LATER = ("Babylon 5", "(no genres listed)"), ("Dark Knight, The (2008)", "Action|Crime|IMAX"), ("Space (2002)", "IMAX")
USERS, FIRST = 24, 978_300_000


def write(folder: Path, variant: str = "1m") -> None:
    """About 240 ratings of 24 users, in user order as published, times out of order and often equal."""
    rng = np.random.default_rng(1997)
    half = variant != "1m"
    films = [*FILMS * 4, *(LATER if half else ())]
    ratings = []
    for user in range(1, USERS + 1):
        for film in sorted(rng.choice(len(films), 10, replace=False).tolist(), key=lambda f: -f):
            stars = int(rng.integers(1, 11)) / 2 if half else int(rng.integers(1, 6))
            ratings.append((user, film + 1, stars, FIRST + int(rng.integers(4000)) * 60))
    numbered = list(enumerate(films, 1))
    if half:
        lines = [f"{n},{_quoted(t)},{g.replace('Children' + chr(39) + 's', 'Children')}" for n, (t, g) in numbered]
        _write(folder / "movies.csv", ["movieId,title,genres", *lines], "utf-8")
        lines = [f"{u},{f},{s:.1f},{t}" for u, f, s, t in ratings]
        _write(folder / "ratings.csv", ["userId,movieId,rating,timestamp", *lines], "utf-8")
        return
    _write(folder / "movies.dat", [f"{n}::{t}::{g}" for n, (t, g) in numbered], "latin-1")
    _write(folder / "ratings.dat", ["::".join(map(str, r)) for r in ratings], "latin-1")
    ages = (1, 18, 25, 35, 45, 50, 56)
    people = [(u, "FM"[u % 2], ages[u % 7], u % 21, "48067-1234" if u % 5 else "00231") for u in range(1, USERS + 1)]
    _write(folder / "users.dat", ["::".join(map(str, p)) for p in people], "latin-1")


def _quoted(title: str) -> str:
    doubled = title.replace('"', '""')
    return f'"{doubled}"' if "," in title or '"' in title else title


def _write(path: Path, lines: list[str], encoding: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding, newline="")
