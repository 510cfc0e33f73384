"""KuaiRand: short videos shown by a recommender and, as a further test part, at random: six kinds of feedback."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
import pyarrow as pa

from bench.api import Dataset, Field, Tables, Task, Temporal
from bench.data.source import Download, Local
from bench.errors import BenchError

HOUR = 3_600_000  # milliseconds
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

Columns = Mapping[str, type[pl.DataType]]
LOG: Columns = {
    "user_id": pl.Int64, "video_id": pl.Int64, "time_ms": pl.Int64, "is_click": pl.Boolean, "is_like": pl.Boolean,
    "is_follow": pl.Boolean, "long_view": pl.Boolean, "play_time_ms": pl.Int64, "duration_ms": pl.Int64,
    "tab": pl.Int64,
}  # fmt: skip
PROFILE = (
    "user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author", "follow_user_num_range",
    "fans_user_num_range", "friend_user_num_range", "register_days_range", *(f"onehot_feat{i}" for i in range(18)),
)  # fmt: skip
ATTRIBUTES = ("author_id", "video_type", "upload_type", "music_type")
KINDS = {pl.Int64: "a whole number of at least 0", pl.Float64: "a number of at least 0", pl.Boolean: "0 or 1"}


def china_day(date: str) -> int:
    """The first millisecond of a day in China, since 1970."""
    return int(datetime.fromisoformat(f"{date}T00:00:00+08:00").timestamp() * 1000)


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
            groups=groups.with_columns(histories(clicked, groups, self.history)).join(
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
    return read_table(path, LOG).drop("row").rename(names)


def _items(raw: Mapping[str, Path], path: Path, videos: pl.Series) -> pl.DataFrame:
    """The item table of the videos in the log; without the text files, texts and categories are null."""
    columns = dict.fromkeys((*ATTRIBUTES, "tag", "video_duration"), pl.String)
    basic = read_table(path, {"video_id": pl.Int64, **columns})
    reject(basic, path, "video_id", ~pl.col("video_id").is_first_distinct(), "appears twice")
    items = videos.to_frame().join(basic.rename({"video_id": "item"}), on="item", how="left", maintain_order="left")
    category = text = pl.lit(None, pl.String)
    if CAPTIONS in raw:
        texts = find_rows(raw[CAPTIONS], "final_video_id", videos, ("caption", "show_cover_text"))
        names = find_rows(raw[CATEGORIES], "final_video_id", videos, ("first_level_category_name",))
        items = items.join(texts, on="item", how="left").join(names, on="item", how="left").sort("item")
        category, text = told("first_level_category_name"), sentence("caption", "show_cover_text")
    return items.select(
        "item",
        *ATTRIBUTES,
        category=category,
        text=text,
        tag=pl.col("tag").str.split(",").list.first(),  # the first of its list
        duration=(pl.col("video_duration").cast(pl.Float64, strict=False) / 1000).log1p(),
    )


# What follows also serves the other short-video logs.


def interest(space: str, classes: tuple[str, ...]) -> Task:
    """The task of predicting the category of the next video that the user really watches."""
    return Task("interest", "multiclass", scope="user", role="interest", space=space, classes=classes)


def by_hour(log: pl.DataFrame, *apart: str) -> pl.DataFrame:
    """The log in group order, with ``group``: the rows of one user within one hour that agree on ``apart``.

    log: user, item, time (ms). Within a group rows are in item order, which tells nothing.
    """
    key = ("user", "hour", *apart)
    log = log.with_columns(hour=pl.col("time") // HOUR).sort(*key, "item", "time", maintain_order=True)
    return log.with_columns(group=pl.struct(key).rle_id().cast(pl.Int64)).drop("hour")


def first_wanted(log: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """group, interest: the category of the first row of each group; of rows at one time, of the smallest item."""
    first = log.sort("group", "time", "item").unique("group", keep="first", maintain_order=True)
    return first.join(items, on="item", how="left").select("group", interest="category")


def profiles(path: Path, groups: pl.DataFrame) -> pl.DataFrame:
    """The user table: what the feature file says of the users of the groups; null for those that it lacks."""
    known = read_table(path, {"user_id": pl.Int64, **dict.fromkeys(PROFILE, pl.String)})
    reject(known, path, "user_id", ~pl.col("user_id").is_first_distinct(), "appears twice")
    users = groups.select("user").unique().sort("user")
    known = known.drop("row").rename({"user_id": "user"})
    return users.join(known, on="user", how="left", maintain_order="left")


def histories(past: pl.DataFrame, groups: pl.DataFrame, length: int) -> list[pl.Series]:
    """``history`` and ``history_time`` of each group.

    past: user, item and time (whole numbers) of the events that count. groups: user, time. A history holds the user's
    last ``length`` events strictly before the group's time, oldest first; events at one time are in item order.
    """
    past = past.select("user", "time", "item").sort("user", "time", "item")
    known = past.height
    both = pl.concat([past.select("user", "time"), groups.select("user", "time")])
    user = np.unique(both["user"].to_numpy(), return_inverse=True)[1]
    time = both["time"].to_numpy() - both["time"].min()
    begin = user * (time.max(initial=0) + 1)  # so that user and time are one number in the order of both
    end = np.searchsorted((begin + time)[:known], (begin + time)[known:])
    start = np.maximum(np.searchsorted((begin + time)[:known], begin[known:]), end - length)
    bounds = np.concatenate([[0], np.cumsum(end - start)])
    events = np.arange(bounds[-1]) + np.repeat(start - bounds[:-1], end - start)
    lists = pa.LargeListArray.from_arrays(pa.array(bounds), pa.array(past["item"].to_numpy()[events]))
    last = pl.Series("history_time", np.append(past["time"].to_numpy(), 0)[end - 1])
    return [pl.Series("history", lists), last.set(pl.Series(end == start), None)]


def told(column: str) -> pl.Expr:
    """A text with its white space collapsed; null where it is empty or UNKNOWN."""
    text = pl.col(column).str.replace_all(r"\s+", " ").str.strip_chars()
    return pl.when(~text.is_in(["", "UNKNOWN"])).then(text)


def sentence(*columns: str) -> pl.Expr:
    """The texts of several columns as one, without those that are missing."""
    return pl.concat_str([told(c) for c in columns], separator=" ", ignore_nulls=True)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what goes wrong while a file is read into a BenchError."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = " ".join(str(error).split("\n\n")[0].split())[:200]
        raise BenchError(f"{path}: cannot be read as a table of text ({reason}); fetch it again") from error


def scan_table(path: Path, columns: Iterable[str]) -> pl.LazyFrame:
    """Columns of a comma-separated file with a header, as texts, and ``row``, counted from 0. Nothing is read yet.

    Raises BenchError if the file has no such column, or does not end with a line break, for then it was cut off.
    """
    with readable(path):
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - 1, 0))
            whole = file.read() in (b"\n", b"")
        table = pl.scan_csv(path, infer_schema=False)
        found = table.collect_schema().names()
    for column in columns:
        if column not in found:
            raise BenchError(f"{path}, line 1: no column '{column}'; found {', '.join(found)[:200]}")
    if not whole:
        raise BenchError(f"{path}: ends in the middle of a line; fetch it again")
    return table.with_row_index("row").select("row", *columns)


def parse_table(table: pl.LazyFrame, path: Path, columns: Columns) -> pl.DataFrame:
    """What ``scan_table`` gave, read, in row order, with columns of the given types.

    Whole numbers, numbers and flags must be there and at least 0; texts may be missing (null). Raises BenchError with
    the first line where that is not so; lines are counted as if no text held a line break.
    """
    parsed = [_parsed(column, dtype).alias(column) for column, dtype in columns.items()]
    with readable(path):
        found = table.select("row", *parsed).collect(engine="streaming").sort("row")
        for column, dtype in columns.items():
            if dtype in KINDS and found[column].null_count():
                row = found.filter(pl.col(column).is_null())["row"][0]
                value = table.filter(pl.col("row") == row).select(column).collect().item()
                raise BenchError(
                    f"{path}, line {row + 2}: {column} '{value or ''}' is not {KINDS[dtype]}; fetch the file again"
                )
    return found


def _parsed(column: str, dtype: type[pl.DataType]) -> pl.Expr:
    """A text as the type wanted; null where it is not such a value."""
    text = pl.col(column)
    if dtype == pl.String:
        return text
    number = text.cast(pl.Int64 if dtype == pl.Int64 else pl.Float64, strict=False)
    if dtype == pl.Boolean:
        return pl.when(number.is_in([0.0, 1.0])).then(number == 1)
    return pl.when(number.is_finite() & (number >= 0)).then(number)


def read_table(path: Path, columns: Columns) -> pl.DataFrame:
    """Columns of a comma-separated file with a header, and ``row``, counted from 0; see ``parse_table``."""
    table = parse_table(scan_table(path, columns), path, columns)
    if table.is_empty():
        raise BenchError(f"{path}: holds no rows; fetch it again")
    return table


def find_rows(path: Path, key: str, wanted: pl.Series, columns: Iterable[str]) -> pl.DataFrame:
    """``item`` and text columns of the rows of a file whose ``key`` is a wanted item; the first row of each counts.

    The file may be much larger than memory. Raises BenchError if it has no such row.
    """
    columns = tuple(columns)
    ids = pl.LazyFrame({key: wanted.cast(pl.String)})
    table = scan_table(path, (key, *columns)).join(ids, on=key, how="semi")
    found = parse_table(table, path, {key: pl.Int64, **dict.fromkeys(columns, pl.String)})
    if found.is_empty():
        raise BenchError(f"{path}: no row describes a video of the log; fetch the files again")
    return found.unique(key, keep="first", maintain_order=True).select(*columns, item=key)


def reject(table: pl.DataFrame, path: Path, column: str, bad: pl.Expr, why: str) -> None:
    """Raises BenchError for the first line where ``bad`` holds. table: from ``parse_table``."""
    wrong = table.filter(bad).select("row", column)
    if wrong.height:
        row, value = wrong.row(0)
        raise BenchError(f"{path}, line {row + 2}: {column} '{value}' {why}; fetch the file again")
