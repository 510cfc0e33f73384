"""Files as Yambda publishes its flat tables: parquet of small unsigned integers, sorted by user and time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

LAST, DAY = 26_000_000, 86_400
USERS, TRACKS = 12, 25


def write(folder: Path, variant: str = "50m") -> None:
    """About 600 listens of 12 users over the last six days, some looped, some past their end; likes and dislikes."""
    rng = np.random.default_rng(5)
    listens: dict[str, list[int]] = {name: [] for name in (*EVENT, "played_ratio_pct", "track_length_seconds")}
    likes: dict[str, list[int]] = {name: [] for name in EVENT}
    dislikes: dict[str, list[int]] = {name: [] for name in EVENT}
    for user in range(100, 100 + USERS):
        for day in range(6):
            time = LAST - (6 - day) * DAY + int(rng.integers(2, 8000)) * 5
            for _ in range(int(rng.integers(6, 11))):
                track = int(rng.integers(TRACKS))
                ratio = int(rng.choice([0, 3, 40, 50, 100, 100, 130]))
                _add(listens, user, track, time, rng, played_ratio_pct=ratio, track_length_seconds=90 + 10 * track)
                for events, chance in ((likes, 0.25), (dislikes, 0.15)):
                    if rng.random() < chance:
                        _add(events, user, track, time + 5 * int(rng.integers(0, 12)), rng)
                time += 5 * int(rng.integers(1, 60))
    _add(listens, 100, 1, LAST, rng, played_ratio_pct=100, track_length_seconds=100)
    place = folder / "flat" / variant
    place.mkdir(parents=True, exist_ok=True)
    for name, columns in {"listens": listens, "likes": likes, "dislikes": dislikes}.items():
        types = {"is_organic": pl.UInt8, "played_ratio_pct": pl.UInt16}
        table = pl.DataFrame(columns, schema={c: types.get(c, pl.UInt32) for c in columns})
        table.sort("uid", "timestamp", maintain_order=True).write_parquet(place / f"{name}.parquet")


EVENT = ("uid", "item_id", "timestamp", "is_organic")


def _add(
    table: dict[str, list[int]], user: int, track: int, time: int, rng: np.random.Generator, **more: int
) -> None:  # fmt: skip
    for name, value in zip(EVENT, (user, track, time, int(rng.integers(2))), strict=True):
        table[name].append(value)
    for name, value in more.items():
        table[name].append(value)
