"""Files as MIND publishes them: two folders with behaviors.tsv and news.tsv, tab-separated, no header, no quoting."""

from __future__ import annotations

from pathlib import Path

import numpy as np

KEYS = {"news.tsv": "news_id", "behaviors.tsv": "impression_id"}
FIRST_COUNTS = ("news.tsv",)
CATEGORIES = ("news", "sports", "finance", "a category of tomorrow")
TITLES = (
    'The "Best" 5\'2" Player, Ever',
    " Leading space; semicolon | pipe",
    "Ünïcode — für alle?",
    'One " lonely quote',
    "Plain title",
)
ENTITIES = (
    "[]",
    "",
    '[{"Label": "The \\"Big, One\\"", "Type": "P", "WikidataId": "Q80976", "Confidence": 1.0, '
    '"OccurrenceOffsets": [48], "SurfaceForms": ["Prince Philip"]}]',
)
DAYS = {"train": (9, 10, 11, 12, 13, 14), "dev": (15,)}
IMPRESSIONS = {"train": 84, "dev": 30}
UNKNOWN = 99  # clicked, shown and in histories, but in no news.tsv


def write(folder: Path, variant: str = "") -> None:
    """About 570 candidates in 114 impressions of 30 users, of which every sixth has no history."""
    rng = np.random.default_rng(2019)
    for part, days in DAYS.items():
        target = folder / f"MIND{variant or 'small'}_{part}"
        target.mkdir(parents=True, exist_ok=True)
        known = range(1, 41) if part == "train" else range(20, 56)  # the two files overlap
        news = [_news(n) for n in known]
        log = [_impression(n, days[n % len(days)], rng, max(known)) for n in range(1, IMPRESSIONS[part] + 1)]
        log.append(log[4])  # the same impression again
        order = rng.permutation(len(log))
        _write(target / "news.tsv", [*news, news[0]])
        _write(target / "behaviors.tsv", [log[n] for n in order])


def _news(number: int) -> list[str]:
    category = CATEGORIES[number % len(CATEGORIES)]
    abstract = "" if number % 7 == 0 else f'Abstract {number}, "quoted" and, with commas.'
    return [
        f"N{number}",
        category,
        f"{category}-{number % 2}",
        TITLES[number % len(TITLES)],
        abstract,
        f"https://assets.msn.com/labs/mind/{number}.html",
        ENTITIES[number % 3],
        ENTITIES[number % 2],
    ]


def _impression(number: int, day: int, rng: np.random.Generator, last: int) -> list[str]:
    user = int(rng.integers(30))
    history = "" if user % 6 == 0 else " ".join(f"N{n}" for n in (*range(1, 2 + user % 5), UNKNOWN))
    shown = rng.choice(np.append(np.arange(1, last), UNKNOWN), 5, replace=False)
    clicked = {int(shown[number % 5])} | ({int(shown[0])} if number % 9 == 0 else set())
    hour = int(rng.integers(24))
    time = f"11/{day}/2019 {(hour - 1) % 12 + 1}:{rng.integers(60):02}:{rng.integers(60):02} {'AP'[hour // 12]}M"
    listed = " ".join(f"N{n}-{int(n in clicked)}" for n in shown.tolist())
    return [str(number), f"U{user}", time, history, listed]


def _write(path: Path, rows: list[list[str]]) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), "utf-8", newline="")
