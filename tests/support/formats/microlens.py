"""Small files in the format of MicroLens: pairs, titles and, for 100k, categories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.support.formats.kuairand import write_csv

KEYS = {"*_title*": "item", "tags_to_summary.csv": "item"}
PAIRS = ["user", "item", "timestamp"]
START = 1_600_000_000_000
VIDEOS = 50


def write(folder: Path, variant: str = "100k") -> None:
    """About 300 comments of 40 users on 50 videos, user after user, so that times are out of order."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20230927)
    weight = 1 / np.arange(1, VIDEOS + 1) ** 0.8
    pairs = []
    for user in range(1, 41):
        liked = rng.choice(np.arange(1, VIDEOS + 1), size=8, replace=False, p=weight / weight.sum())
        times = START + rng.integers(0, 200_000, size=8) * 1000  # some of them at once
        pairs += [(user, int(v), int(t)) for v, t in zip(liked, times, strict=True)]
    pairs += [(u, v, t + 5000) for u, v, t in pairs[::40]]  # later comments on the same video
    write_pairs(folder, variant, pairs)
    titles = [f"Video number {v}, with a comma" for v in range(1, VIDEOS + 1)]
    titles[1], titles[2], titles[3] = '  "Quoted", she said', "", "Ünïcode; and\ttabs"
    write_titles(folder, variant, [(v, t) for v, t in enumerate(titles, 1) if v != VIDEOS] + [(999, "of no pair")])
    if variant == "100k":
        categories = ("Food", "Pets & Animals", "Music, Dance")
        write_lines(folder / "tags_to_summary.csv", [(v, categories[v % 3]) for v in range(1, VIDEOS)])


def write_pairs(folder: Path, variant: str, pairs: Sequence[tuple[int, int, int]]) -> None:
    """user, item and time in milliseconds."""
    write_csv(folder / f"MicroLens-{variant}_pairs.csv", PAIRS, pairs)


def write_titles(folder: Path, variant: str, titles: Sequence[tuple[int, str]]) -> None:
    """50k: with a header and quotes; 100k: bare lines, where commas within titles are quoted on some lines only."""
    if variant == "50k":
        write_csv(folder / "MicroLens-50k_titles.csv", ["item", "title"], titles)
    else:
        write_lines(folder / "MicroLens-100k_title_en.csv", titles)


def write_lines(path: Path, rows: Sequence[tuple[int, str]]) -> None:
    """Lines ``item,text``; every other text in quotes."""
    texts = ['"' + text.replace('"', '""') + '"' if item % 2 and text else text for item, text in rows]
    path.write_text("".join(f"{row[0]},{text}\n" for row, text in zip(rows, texts, strict=True)), "utf-8")
