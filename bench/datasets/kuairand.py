"""KuaiRand: short videos shown by a recommender and, as a further test part, at random: six kinds of feedback."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import polars as pl

from bench.api import Dataset, Field, Tables, Task, Temporal
from bench.data.raw.source import Download, Local
from bench.datasets.logs.histories import histories
from bench.datasets.logs.read import Columns, find_rows, read_columns, reject
from bench.datasets.logs.short_video import (
    PROFILE,
    by_hour,
    china_day,
    clean_text,
    first_wanted,
    interest,
    joined_text,
    profiles,
)

STANDARD = ("log_standard_4_08_to_4_21", "log_standard_4_22_to_5_08")
RANDOM = "log_random_4_22_to_5_08"
USERS, VIDEOS = "user_features", "video_features_basic"
CAPTIONS, CATEGORIES = "kuairand_video_captions.csv", "kuairand_video_categories.csv"
ARCHIVES = {  # top folder and checksum of the published archive
    "pure": ("KuaiRand-Pure", "md5:0820331067a3784d9691136f772b35a7"),
    "1k": ("KuaiRand-1K", "md5:6b0b9c8222d67fcd4c676218edca3f1f"),
}
SIZES = {
    "pure": "1,436,609 standard and 1,186,059 random rows of 27,285 users, only those of 7,583 videos",
    "1k": "11,713,045 standard and 43,028 random rows of 1,000 users and 4,369,953 videos",
}

LOG: Columns = {
    "user_id": pl.Int64, "video_id": pl.Int64, "time_ms": pl.Int64, "is_click": pl.Boolean, "is_like": pl.Boolean,
    "is_follow": pl.Boolean, "long_view": pl.Boolean, "play_time_ms": pl.Int64, "duration_ms": pl.Int64,
    "tab": pl.Int64,
}  # fmt: skip
ATTRIBUTES = ("author_id", "video_type", "upload_type", "music_type")


class KuaiRand(Dataset):
    """One group for the rows of one user in one tab of the app within one clock hour; the first row gives its time.

    The log has no request id. Shorter windows would leave most groups of Pure with one row: it has fewer than two rows
    a user and day. Rows of the random log make groups of their own. Histories hold the videos that the user clicked in
    the standard log before the group's first row; what was shown at random is nobody's history.

    Labels: ``click`` and ``rec`` is_click; ``long_view``, ``like``, ``follow`` as logged; ``play_time`` log(1 + seconds
    played); ``rank`` the share of the video that was played, at most 1 (a duration of 0 counts as 1 ms). In the
    single-column tabs is_click and long_view are thresholds of the play time given the duration (long_view in all): 7 s
    and 18 s, or the whole video if it is shorter. With the category file there is ``interest``: the first-level
    category of the first video in the group with a long view; the group ends the search, so that no label reaches into
    a later part. Its classes are those that occur, so that ``build`` sets ``tasks``; without the file there is no such
    task, and without the caption file there are no texts.

    Train: the standard log up to 2022-04-21, validation: 04-22 to 04-28, test: 04-29 to 05-08, days in China. The
    random log of the test days is the further test part ``random``; its earlier rows are left out.
    """

    version = 1
    domain = "video"
    domain_field = "tab"
    sizes = {"pure": "27,285 users, 1.4M standard + 1.2M random rows", "1k": "1,000 users, 11.7M rows"}
    licence = "CC BY-SA 4.0"
    citation = (
        "Chongming Gao, Shijun Li, Yuan Zhang, Jiawei Chen, Biao Li, Wenqiang Lei, Peng Jiang, and Xiangnan He. 2022. "
        "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos. CIKM 2022, 3953-3957. "
        "doi:10.1145/3511808.3557624"
    )
    url = "https://kuairand.com/"
    tasks: tuple[Task, ...] = (
        Task("click", "binary", role="ctr"),
        Task("long_view", "binary", role="long view"),
        Task("like", "binary", role="like"),
        Task("follow", "binary", role="follow"),
        Task("play_time", "regression", role="watch time"),
        Task("rank", "regression", role="rank", metric="ndcg@10"),
        Task("rec", "softmax", role="rec"),
    )
    fields = (
        Field("user", "user", "id"),
        *(Field(name, "user") for name in PROFILE),
        Field("tab", "user"),
        Field("item", "item", "id"),
        *(Field(name, "item") for name in ATTRIBUTES),
        Field("tag", "item"),
        Field("category", "item"),
        Field("duration", "item", "numerical"),
    )
    forbidden = (
        "is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "long_view", "play_time_ms",
        "profile_stay_time", "comment_stay_time", "is_profile_enter",
    )  # fmt: skip
    history = 20
    split = Temporal(valid=china_day("2022-04-22"), test=china_day("2022-04-29"), absolute=True)
    variants: ClassVar[tuple[str, ...]] = ("pure", "1k")

    @property
    def about(self) -> str:  # type: ignore[override]
        """Rows, relations between the labels and what is left out."""
        return (
            "Videos shown to users of Kuaishou from 2022-04-08 to 2022-05-08, every row an exposure: "
            f"{SIZES[self.variant]}. Negatives are what was shown and not clicked. Rows of one user, tab and hour "
            "stand for a request, which the log does not tell. is_click and long_view are thresholds of the play time "
            "given the duration (single-column screens), so that these tasks determine one another. Profiles are a "
            "snapshot of unstated date. Left out: the file of video statistics (averages over the whole month, test "
            "included), random rows before the test, comments, forwards and dislikes."
        )

    @property
    def sources(self) -> tuple[Local | Download, ...]:  # type: ignore[override]
        """The archive; before it, the same with the two text files of 2026 beside the others, for --from alone."""
        top, digest = ARCHIVES[self.variant]
        names = [f"{stem}_{self.variant}.csv" for stem in (*STANDARD, RANDOM, USERS, VIDEOS)]
        files = {name: f"{top}/data/{name}" for name in names}
        texts = {name: f"{top}/data/{name}" for name in (CAPTIONS, CATEGORIES)}
        how = (
            f"for texts and categories, unpack {top}.tar.gz (https://zenodo.org/records/10439422), put {CAPTIONS} and "
            f"{CATEGORIES} (https://zenodo.org/records/18159199) into its folder data, and pass that with --from"
        )
        url = f"https://zenodo.org/records/10439422/files/{top}.tar.gz"
        return Local({**files, **texts}, how), Download(url, digest, files)

    def build(self, raw: Mapping[str, Path]) -> Tables:
        """Standard tables from the logs and features. Raises BenchError naming file, line and column on bad input."""

        def path(stem: str) -> Path:
            return raw[f"{stem}_{self.variant}.csv"]

        shown = pl.concat([_log(path(stem)) for stem in STANDARD]).with_columns(extra=pl.lit(None, pl.String))
        log = pl.concat([shown, _log(path(RANDOM)).with_columns(extra=pl.lit("random"))])
        log = by_hour(log, "tab", "extra")
        items = _items(raw, path(VIDEOS), log["item"].unique().sort())
        classes = tuple(items["category"].drop_nulls().unique().sort())
        if len(classes) > 1:
            self.tasks = (*type(self).tasks, interest("groups with a long view of a video of known category", classes))
        groups = log.group_by("group", maintain_order=True).agg(
            pl.col("user", "tab", "extra").first(), pl.col("time").min()
        )
        clicked = log.filter(pl.col("click") & pl.col("extra").is_null())
        wanted = first_wanted(log.filter("long_view"), items)
        return Tables(
            groups=groups.hstack(histories(clicked, groups, self.history)).join(
                wanted, on="group", how="left", maintain_order="left"
            ),
            rows=log.select(
                "group", "item",
                pl.col("click", "long_view", "like", "follow").cast(pl.Int8),
                rec=pl.col("click").cast(pl.Int8),
                play_time=(pl.col("played") / 1000).log1p(),
                rank=(pl.col("played") / pl.col("lasts").clip(lower_bound=1)).clip(upper_bound=1),
            ),
            items=items,
            users=profiles(path(USERS), groups),
        )  # fmt: skip


def _log(path: Path) -> pl.DataFrame:
    """One log: user, item, time (ms), tab, click, like, follow, long_view, played and lasts (ms)."""
    names = {
        "user_id": "user", "video_id": "item", "time_ms": "time", "is_click": "click", "is_like": "like",
        "is_follow": "follow", "play_time_ms": "played", "duration_ms": "lasts",
    }  # fmt: skip
    return read_columns(path, LOG).drop("line").rename(names)


def _items(raw: Mapping[str, Path], path: Path, videos: pl.Series) -> pl.DataFrame:
    """The item table of the videos in the log; without the text files, texts and categories are null."""
    columns = dict.fromkeys((*ATTRIBUTES, "tag", "video_duration"), pl.String)
    basic = read_columns(path, {"video_id": pl.Int64, **columns})
    reject(basic, path, "video_id", ~pl.col("video_id").is_first_distinct(), "appears twice")
    items = videos.to_frame().join(basic.rename({"video_id": "item"}), on="item", how="left", maintain_order="left")
    category = text = pl.lit(None, pl.String)
    if CAPTIONS in raw:
        texts = find_rows(raw[CAPTIONS], "final_video_id", videos, ("caption", "show_cover_text"))
        names = find_rows(raw[CATEGORIES], "final_video_id", videos, ("first_level_category_name",))
        items = items.join(texts, on="item", how="left").join(names, on="item", how="left").sort("item")
        category, text = clean_text("first_level_category_name"), joined_text("caption", "show_cover_text")
    return items.select(
        "item",
        *ATTRIBUTES,
        category=category,
        text=text,
        tag=pl.col("tag").str.split(",").list.first(),  # the first of its list
        duration=(pl.col("video_duration").cast(pl.Float64, strict=False) / 1000).log1p(),
    )
