"""Small files in the format of KuaiRand: three logs, user and video features and, for Pure, the texts of 2026."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

KEYS = {"user_features_*": "user_id", "video_features_*": "video_id", "kuairand_video_*": "final_video_id"}
FIRST_COUNTS = ("kuairand_video_*",)
Row = tuple[int, ...]
LOG = (
    "user_id", "video_id", "date", "hourmin", "time_ms", "is_click", "is_like", "is_follow", "is_comment", "is_forward",
    "is_hate", "long_view", "play_time_ms", "duration_ms", "profile_stay_time", "comment_stay_time", "is_profile_enter",
    "is_rand", "tab",
)  # fmt: skip
USER = (
    "user_id", "user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author", "follow_user_num",
    "follow_user_num_range", "fans_user_num", "fans_user_num_range", "friend_user_num", "friend_user_num_range",
    "register_days", "register_days_range", *(f"onehot_feat{i}" for i in range(18)),
)  # fmt: skip
VIDEO = (
    "video_id", "author_id", "video_type", "upload_dt", "upload_type", "visible_status", "video_duration",
    "server_width", "server_height", "music_id", "music_type", "tag",
)  # fmt: skip
CAPTION = ["final_video_id", "caption", "show_cover_text", "duration"]
LEVELS = [
    f"{level}_level_category_{what}"
    for level in ("first", "second", "third", "fourth")
    for what in ("id", "name", "prob")
]
TOPICS = ((7, "运动"), (12, "美食"), (-124, "UNKNOWN"))
VIDEOS = 40
CHINA = timedelta(hours=8)


def log_row(
    user: int, video: int, time: int, *, click: int = 0, like: int = 0, follow: int = 0, long: int = 0,
    played: int = 0, lasts: int = 10_000, random: int = 0, tab: int = 1,
) -> Row:  # fmt: skip
    """A line of a log. ``time`` in milliseconds."""
    day = datetime.fromtimestamp(time / 1000, UTC) + CHINA
    return (
        user, video, int(f"{day:%Y%m%d}"), day.hour * 100, time, click, like, follow, 0, 0, 0, long, played, lasts,
        0, 0, 0, random, tab,
    )  # fmt: skip


def user_row(user: int) -> list[object]:
    """A profile; some of the encrypted features are missing, as published."""
    onehot = ["" if i in (4, 12) and user % 3 == 0 else f"{(user + i) % 3}.0" for i in range(18)]
    degree = ("full_active", "high_active", "UNKNOWN")[user % 3]
    return [user, degree, 0, user % 2, 1, 5, "(0,10]", 12, "[10,100)", 0, "0", 400, "366-730", *onehot]


def video_row(video: int) -> list[object]:
    """Basic features; a tag is a list in quotes."""
    tag = ("12,65", "39", "", "3,5,8")[video % 4]
    kind = "AD" if video % 9 == 0 else "NORMAL"
    lasts = "" if video % 10 == 3 else 5000.0 + 1000 * video
    music = "" if video % 6 == 5 else 4.0
    return [video, video % 5, kind, "2022-04-01", "ShortImport", 1, lasts, 720, 1280, 99, music, tag]


def category_row(video: int) -> list[object]:
    """Four levels, the last three unknown."""
    number, name = TOPICS[video % 3]
    return [video, float(number), name, 0.99, *(-124.0, "UNKNOWN", 0.0) * 3]


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]], bom: bool = False) -> None:
    """A file as pandas writes it."""
    with path.open("w", encoding="utf-8-sig" if bom else "utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_logs(folder: Path, variant: str, early: Sequence[Row], late: Sequence[Row], random: Sequence[Row]) -> None:
    """The three logs."""
    for name, rows in (
        ("standard_4_08_to_4_21", early), ("standard_4_22_to_5_08", late), ("random_4_22_to_5_08", random),
    ):  # fmt: skip
        write_csv(folder / f"log_{name}_{variant}.csv", LOG, rows)


def write(folder: Path, variant: str = "pure") -> None:
    """A month of 12 users and 40 videos; the files of 1K without texts, those of Pure with them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20220408)
    early = _rows(rng, "2022-04-08", 13, 220)
    late = [*_rows(rng, "2022-04-22", 6, 90), *_rows(rng, "2022-04-29", 9, 110)]
    random = [*_rows(rng, "2022-04-22", 6, 40, 1), *_rows(rng, "2022-04-29", 9, 80, 1)]
    write_logs(folder, variant, early, late, random)
    # User 11 and video 39 are unknown to the feature files; 50 and 60 never occur in the logs.
    write_csv(folder / f"user_features_{variant}.csv", USER, [user_row(u) for u in (*range(11), 50)])
    basic = [video_row(v) for v in (*range(VIDEOS - 1), 60)]
    write_csv(folder / f"video_features_basic_{variant}.csv", VIDEO, basic)
    if variant == "pure":
        captions: list[list[object]] = [[v, f"#话题{v % 7} 第{v}个视频, 很好", "", 5000.0] for v in range(VIDEOS)]
        captions[1] = [1, 'says "好",\nover two lines', "封面", 6000.0]
        captions[2] = [2, "", "UNKNOWN", ""]
        captions += [[1, "a second row of the same video", "", 1.0], [99_999_999, "of another version", "", 1.0]]
        write_csv(folder / "kuairand_video_captions.csv", CAPTION, captions, bom=True)
        names = [category_row(v) for v in (*range(VIDEOS), 99_999_999)]
        write_csv(folder / "kuairand_video_categories.csv", ["final_video_id", *LEVELS], names)


def _rows(rng: np.random.Generator, first: str, days: int, count: int, random: int = 0) -> list[Row]:
    """Rows of some hours of each user, in no order."""
    start = int(datetime.fromisoformat(f"{first}T00:00:00+08:00").timestamp() * 1000)
    found = []
    for _ in range(count // 4):
        user, hour = int(rng.integers(12)), int(rng.integers(days * 24))
        for _ in range(4):
            time = start + hour * 3_600_000 + int(rng.integers(3_600_000))
            video, lasts = int(rng.integers(VIDEOS)), int(rng.integers(3_000, 40_000))
            watched = (user + video) % 3 == 0
            played = int(lasts * rng.uniform(0.6, 2)) if watched or rng.random() < 0.2 else int(rng.integers(3_000))
            found.append(log_row(
                user, video, time, click=int(played >= min(lasts, 7_000)), long=int(played >= min(lasts, 18_000)),
                like=int(rng.random() < 0.3), follow=int(rng.random() < 0.15), played=played, lasts=lasts,
                random=random, tab=int(rng.choice([1, 1, 1, 4])),
            ))  # fmt: skip
    return [found[i] for i in rng.permutation(len(found))]
