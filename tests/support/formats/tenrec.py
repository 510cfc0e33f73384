"""Small files in the format of Tenrec: ctr_data_1M.csv, and QK-video.csv for the tests of that file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.support.formats.kuairand import write_csv

LOG = ["user_id", "item_id", "click", "follow", "like", "share", "video_category", "watching_times", "gender", "age"]
HISTORY = [f"hist_{i}" for i in range(1, 11)]
ITEMS = 60


def write(folder: Path, variant: str = "qkvideo", name: str = "ctr_data_1M.csv") -> None:
    """About 540 rows of 6 users, user after user; missing categories as \\N; repeated rows; items told twice."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(2022)
    rows: list[list[object]] = []
    for user, count in zip((3, 4, 8, 15, 16, 23), (75, 83, 91, 99, 105, 88), strict=True):
        gender, age = user % 3, user % 8
        past = [int(v) for v in rng.integers(200, 230, size=min(10, user))]  # taken out of the rows
        history = past + [0] * (10 - len(past))
        for _ in range(count):
            item = int(rng.integers(1, ITEMS))
            click = int(rng.random() < (0.6 if (item + user) % 3 == 0 else 0.2))
            follow, like, share = (int(rng.random() < p) for p in (0.1, 0.2, 0.1))
            category = r"\N" if item % 7 == 0 else item % 5
            seen = click * int(rng.integers(1, 6))
            rows.append([user, item, click, follow, like, share, category, seen, gender, age, *history])
        rows.append(rows[-1])
    header = [*LOG, *HISTORY]
    if name == "QK-video.csv":
        header, rows = LOG, [row[: len(LOG)] for row in rows]
    write_csv(folder / name, header, rows)
