"""Small files in the format of KuaiRec 2.0: two matrices, user features, video categories and captions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from tests.support.formats.kuairand import USER, user_row, write_csv

KEYS = {"user_features.csv": "user_id", "item_categories.csv": "video_id", "kuairec_caption_*": "video_id"}
FIRST_COUNTS = ("kuairec_caption_*",)
View = tuple[int, int, int, int, str, str, str, float]
MATRIX = ["user_id", "video_id", "play_duration", "video_duration", "time", "date", "timestamp", "watch_ratio"]
CAPTION = ["video_id", "manual_cover_text", "caption", "topic_tag"] + [
    f"{level}_level_category_{what}" for level in ("first", "second", "third") for what in ("id", "name")
]
VIDEOS = 30


def view(user: int, video: int, played: int, lasts: int, seconds: float | None) -> View:
    """A line of a matrix. seconds: since 1970; None for the rows of the small matrix that lack a time."""
    ratio = played / lasts
    if seconds is None:
        return user, video, played, lasts, "", "", "", ratio
    day = datetime.fromtimestamp(seconds, UTC) + timedelta(hours=8)
    return user, video, played, lasts, f"{day:%Y-%m-%d %H:%M:%S.%f}"[:-3], f"{day:%Y%m%d}", str(seconds), ratio


def write_matrices(folder: Path, big: Sequence[View], small: Sequence[View]) -> None:
    """Both matrices; where times are missing, pandas writes dates as 20200705.0."""
    write_csv(folder / "big_matrix.csv", MATRIX, big)
    dated = [(*v[:5], f"{v[5]}.0" if v[5] else "", *v[6:]) for v in small]
    write_csv(folder / "small_matrix.csv", MATRIX, dated)


def write(folder: Path, variant: str = "") -> None:
    """10 users (4 of them in the small matrix) and 30 videos (20 of them)."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20200705)
    stretches = (
        ("2020-07-05", 8, 80),
        ("2020-08-01", 10, 100),
        ("2020-08-27", 3, 40),
        ("2020-08-30", 3, 80),
        ("2020-09-02", 4, 60),
    )
    big = [v for day, days, count in stretches for v in _views(rng, day, days, count)]
    big += [big[i] for i in rng.integers(len(big), size=9)]  # rows that repeat another
    small = _views(rng, "2020-07-05", 59, 80, 4) + _views(rng, "2020-09-02", 4, 120, 4)
    small = [(*v[:4], "", "", "", v[7]) if i % 20 == 7 else v for i, v in enumerate(small)]
    write_matrices(folder, [big[i] for i in rng.permutation(len(big))], small)
    write_csv(folder / "user_features.csv", USER, [user_row(u) for u in (*range(9), 50)])  # user 9 is unknown
    tags = [[v, f"[{v % 4 + 8}, 9]" if v % 2 else f"[{v % 4 + 8}]"] for v in (*range(VIDEOS - 1), 60)]
    write_csv(folder / "item_categories.csv", ["video_id", "feat"], tags)
    write_texts(folder)


def write_texts(folder: Path) -> None:
    """Captions and categories: quotes, commas, line breaks, UNKNOWN; nothing of the last video."""
    texts: list[list[object]] = []
    for v in range(VIDEOS - 1):
        number, name = ((8, "颜值"), (1, "美食"), (-124, "UNKNOWN"))[v % 3]
        rest = [-124, "UNKNOWN", -124, "UNKNOWN"]
        texts.append([v, "UNKNOWN", f"第{v}个, 视频", "[五爱街,日常]" if v % 2 else "[]", number, name, *rest])
    texts[1][1:3] = ['cover "封面"', "  two\nlines "]
    texts[2][1:4] = ["UNKNOWN", "", "[]"]
    write_csv(folder / "kuairec_caption_category.csv", CAPTION, texts)


def _views(rng: np.random.Generator, first: str, days: int, count: int, users: int = 10) -> list[View]:
    """Views in some hours; in the small matrix of fewer users and videos."""
    start = datetime.fromisoformat(f"{first}T00:00:00+08:00").timestamp()
    found = []
    for _ in range(count // 4):
        user, hour = int(rng.integers(users)), int(rng.integers(days * 24))
        for _ in range(4):
            video = int(rng.integers(20 if users < 10 else VIDEOS))
            lasts = 5_000 + 500 * video
            low, high = ((0, 1), (0, 1), (0, 1), (1, 2), (2, 7))[rng.integers(5)]
            played = int(lasts * rng.uniform(low, high))
            found.append(view(user, video, played, lasts, round(start + hour * 3_600 + rng.uniform(0, 3_600), 3)))
    return found
