"""MIND: which of the news on a Microsoft News page does a user click, and of which category?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from bench.api import Dataset, Field, Tables, Task, Temporal
from bench.data.raw.source import Download, Local, Together
from bench.datasets.logs.classes import OTHER, with_other
from bench.datasets.logs.moments import seconds
from bench.datasets.logs.read import once
from bench.errors import BenchError

PARTS = ("train", "dev")
HISTORY = 50
CATEGORIES = (  # [from memory]; the references only say that there are 18
    "autos", "entertainment", "finance", "foodanddrink", "games", "health", "kids", "lifestyle", "middleeast", "movies",
    "music", "news", "northamerica", "sports", "travel", "tv", "video", "weather", OTHER,
)  # fmt: skip
TOKENS = {"history": r"N\d{1,9}", "impressions": r"N\d{1,9}-[01]"}
TIME = pl.col("time").str.to_datetime("%m/%d/%Y %I:%M:%S %p", strict=False).dt.epoch("s")

# Columns as published, without a header, and what has to hold in each.
LOG = {
    "impression_id": pl.col("impression_id").str.contains(r"^\d{1,18}$"),
    "user_id": pl.col("user_id") != "",
    "time": TIME.is_not_null(),
    "history": pl.col("history").str.contains(rf"^\s*({TOKENS['history']}(\s+|$))*$"),
    "impressions": pl.col("impressions").str.contains(rf"^\s*({TOKENS['impressions']}(\s+|$))+$"),
}
NEWS = {
    "news_id": pl.col("news_id").str.contains(rf"^{TOKENS['history']}$"),
    **{name: pl.lit(True) for name in ("category", "subcategory", "title", "abstract", "url")},
    **{name: pl.col(name).str.contains(r"^(\[.*\])?$") for name in ("title_entities", "abstract_entities")},
}


class Mind(Dataset):
    """One group for each impression, one row for each news in it, in the order of the log (shuffled by the publisher).

    Labels: ``click`` and ``rec`` as published; ``interest`` the category of the first clicked news in that order,
    ``other`` for categories outside ``CATEGORIES``, undefined where no news was clicked or the clicked one is unknown.

    Histories come with the impressions, without times. The publisher says that they hold the clicks before the
    impression, those of the training file the clicks of the four weeks before it. ``history_time`` is therefore set to
    the last second before the file's log begins. For the dev file this is an assumption: nothing published tells more.

    Times are seconds since 1970 on the log's own clock. The split is newsreclib's: train before 2019-11-14, validation
    the rest of the training file, test the dev file (2019-11-15); unlike there, users without a history are kept.
    News that occur in an impression or a history but not in ``news.tsv`` are items without text and category. News that
    occur in neither are left out. A repeated impression id counts once, and is refused with another user or time. Of
    several lines of a news the first counts, those of the training file before those of the dev file.
    """

    version = 1
    domain = "news"
    sizes = {"small": "50k users, 230k impressions", "large": "1M users, 15M impressions"}
    about = (
        "Impressions of Microsoft News, 9 to 15 November 2019; a row is a news item shown, clicked or not. The small "
        "variant has 50,000 users, the large one all of the million. The hidden test part of the large one has no "
        "labels and is not used: the dev part is the test. rec is click as a choice within the impression. There is no "
        "rank task: without reading times it would repeat click."
    )
    licence = "Microsoft Research License Terms: research use only, no redistribution"
    citation = (
        "Fangzhao Wu, Ying Qiao, Jiun-Hung Chen, Chuhan Wu, Tao Qi, Jianxun Lian, Danyang Liu, Xing Xie, Jianfeng Gao, "
        "Winnie Wu, and Ming Zhou. 2020. MIND: A Large-scale Dataset for News Recommendation. ACL 2020, 3597-3606"
    )
    url = "https://msnews.github.io/"
    tasks = (
        Task("click", "binary", role="ctr"),
        Task("rec", "softmax", role="rec"),
        Task(
            "interest",
            "multiclass",
            scope="user",
            role="interest",
            space="impressions whose first clicked news is known",
            classes=CATEGORIES,
        ),
    )
    fields = (
        Field("user", "user", "id"),
        Field("item", "item", "id"),
        Field("category", "item"),
        Field("subcategory", "item"),
    )
    forbidden = ("click", "rec", "interest")
    history = HISTORY
    split = Temporal(valid=seconds("2019-11-14"), test=seconds("2019-11-15"), absolute=True)
    variants: ClassVar[tuple[str, ...]] = ("small", "large")

    @property
    def sources(self) -> tuple[Any, ...]:  # type: ignore[override]
        """The two archives with published checksums (small), or their files from a folder."""
        files = {
            f"{part}/{name}": f"MIND{self.variant}_{part}/{name}"
            for part in PARTS
            for name in ("behaviors.tsv", "news.tsv")
        }
        how = (
            f"get MIND{self.variant}_train.zip and MIND{self.variant}_dev.zip under their licence from {self.url}, "
            "unpack them side by side and give that folder with --from"
        )
        by_hand = (Local(files, how), Local({name: name for name in files}, "the same with folders train and dev"))
        if self.variant == "large":
            return by_hand
        host = "https://recodatasets.z20.web.core.windows.net/newsrec"
        digests = {"train": "md5:bd6ae77fa15949653f39829e946d327c", "dev": "md5:1c9e798fe440c1999547211cd5245e3e"}
        archives = [
            Download(
                f"{host}/MINDsmall_{part}.zip",
                digests[part],
                {name: path for name, path in files.items() if name.startswith(f"{part}/")},
            )
            for part in PARTS
        ]
        return (Together(tuple(archives)), *by_hand)

    def build(self, raw: Mapping[str, Path]) -> Tables:
        """Standard tables from ``behaviors.tsv`` and ``news.tsv`` of both parts.

        Raises BenchError with file, line and column for malformed or truncated files.
        """
        logs, count = [], 0
        for part in PARTS:
            logs.append(_log(raw[f"{part}/behaviors.tsv"], count, self.history))
            count += logs[-1][0].height
        groups, rows = (pl.concat(frames) for frames in zip(*logs, strict=True))
        items = _items(rows, groups, [raw[f"{part}/news.tsv"] for part in PARTS])
        first = rows.filter(pl.col("click") == 1).unique("group", keep="first", maintain_order=True)
        known = with_other("category", CATEGORIES)
        interest = first.join(items.drop_nulls("category"), on="item").select("group", interest=known)
        return Tables(
            groups=groups.join(interest, on="group", how="left", maintain_order="left"),
            rows=rows.with_columns(rec="click"),
            items=items,
            users=groups.select("user").unique().sort("user"),
        )


def _cells(path: Path, columns: Mapping[str, pl.Expr]) -> pl.LazyFrame:
    """The cells of a tab-separated file as strings, with line numbers. Quotes mean nothing there.

    Raises BenchError for the first line with another number of columns or a cell that does not keep its rule.
    """
    names = list(columns)
    text = pl.col("text")
    cells = (
        pl.scan_lines(path, name="text", row_index_name="line", row_index_offset=1)
        .with_columns(found=text.str.count_matches("\t", literal=True) + 1)
        .with_columns(text.str.split_exact("\t", len(names) - 1).struct.rename_fields(names))
        .unnest("text")
    )
    wrong = [pl.when(~holds.fill_null(False)).then(pl.lit(name)) for name, holds in columns.items()]
    wrong.insert(0, pl.when(pl.col("found") != len(names)).then(pl.lit("columns")))
    try:
        bad = (
            cells.with_columns(wrong=pl.coalesce(wrong))
            .filter(pl.col("wrong").is_not_null())
            .head(1)
            .collect(engine="streaming")
        )
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise BenchError(f"{path}: cannot be read as utf-8 text ({reason}); fetch it again") from error
    for row in bad.iter_rows(named=True):
        where = f"{path}, line {row['line']}"
        if row["wrong"] == "columns":
            raise BenchError(f"{where}: {row['found']} columns instead of {len(names)}; fetch the file again")
        cell = row[row["wrong"]]
        token = TOKENS.get(row["wrong"])
        value = next((t for t in cell.split() if token and not re.fullmatch(token, t)), cell[:60])
        raise BenchError(f"{where}: {row['wrong']} '{value}' is not in the published form; fetch the file again")
    return cells


def _log(path: Path, start: int, length: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Groups (numbered from ``start`` in file order) and rows of a ``behaviors.tsv``. News are their numbers."""
    cells = _cells(path, LOG)
    numbers = pl.col("history").str.extract_all(r"\d+").list.tail(length).cast(pl.List(pl.Int32))
    log = cells.select("line", "impression_id", user="user_id", time=TIME, history=numbers).collect(engine="streaming")
    groups = (
        once(log, path, "impression_id", "user", "time", why="has two users or times")
        .with_row_index("group", offset=start)
        .cast({"group": pl.Int64})
    )
    if groups.is_empty():
        raise BenchError(f"{path}: holds no rows; fetch it again")
    shown = pl.col("impressions").str.extract_all(r"\S+")
    rows = cells.select("line", shown).explode("impressions", empty_as_null=False).select(
        "line",
        item=pl.col("impressions").str.extract(r"(\d+)-").cast(pl.Int32),
        click=pl.col("impressions").str.ends_with("1").cast(pl.Int8),
    ).collect(engine="streaming")  # fmt: skip
    rows = rows.join(groups.select("line", "group"), on="line", maintain_order="left").select("group", "item", "click")
    before = pl.when(pl.col("history").list.len() > 0).then(pl.col("time").min() - 1)
    return groups.select("group", "user", "time", "history", history_time=before), rows


def _items(rows: pl.DataFrame, groups: pl.DataFrame, paths: list[Path]) -> pl.DataFrame:
    """item, category, subcategory and text of every news that was shown or is in a history."""
    tables = []
    for path in paths:
        table = _cells(path, NEWS).select(list(NEWS)[:5]).collect()
        if table.is_empty():
            raise BenchError(f"{path}: holds no rows; fetch it again")
        tables.append(table)
    parts = [pl.col(name).str.strip_chars().replace("", None) for name in ("title", "abstract")]
    parts[0] = parts[0].str.replace(r"([^.!?])$", "${1}.")
    news = pl.concat(tables).select(
        item=pl.col("news_id").str.slice(1).cast(pl.Int32),
        category=pl.col("category").replace("", None),
        subcategory=pl.col("subcategory").replace("", None),
        text=pl.concat_str(parts, separator=" ", ignore_nulls=True),
    ).unique("item", keep="first", maintain_order=True)  # fmt: skip
    past = groups["history"].explode(empty_as_null=False).alias("item")
    met = pl.concat([rows["item"].unique(), past.unique()]).unique().sort()
    return met.to_frame().join(news, on="item", how="left", maintain_order="left")
