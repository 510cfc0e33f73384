"""AliExpress search logs: which results of a search are clicked, and which are bought; one country each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import polars as pl

from bench.api import Dataset, Field, Tables, Task, Temporal
from bench.data.raw.archive import unpack
from bench.data.raw.source import Local
from bench.datasets.logs.read import reject
from bench.errors import BenchError
from bench.storage import cache

VALIDATION = 0.1  # of the training searches

# Raw columns (counted from 1, as published) in the order of the processed names categorical_1.. and numerical_1..
USER_CATEGORICAL = (*range(2, 9), 32, 33)
USER_NUMERICAL = tuple(range(9, 32))
ITEM_CATEGORICAL = (19, 34, 35, 36, 40, 41, 42)
ITEM_NUMERICAL = tuple(c for c in range(2, 49) if c not in ITEM_CATEGORICAL)

_CATEGORICAL = tuple(f"categorical_{i}" for i in range(1, 17))
_NUMERICAL = tuple(f"numerical_{i}" for i in range(1, 64))
SEARCH = (*_CATEGORICAL[: len(USER_CATEGORICAL)], *_NUMERICAL[: len(USER_NUMERICAL)])
RESULT = (*_CATEGORICAL[len(USER_CATEGORICAL) :], *_NUMERICAL[len(USER_NUMERICAL) :])
OUTCOMES = ("label", "click", "conversion")

_USER = dict(zip((*USER_CATEGORICAL, *USER_NUMERICAL), SEARCH, strict=True))
_ITEM = dict(zip((*ITEM_CATEGORICAL, *ITEM_NUMERICAL), RESULT, strict=True)) | {49: "label"}
USER_FILE = ("search_id", *(_USER[c] for c in range(2, 34)))
ITEM_FILE = ("search_id", *(_ITEM[c] for c in range(2, 50)))
PROCESSED_FILE = ("search_id", *_CATEGORICAL, *_NUMERICAL, "click", "conversion")


class AliExpress(Dataset):
    """One group for each search, one row for each result. Reads the raw files and the processed ones of MTReclib.

    Raw: ``CC_{user,item}_{train,test}``, as CSV without a header or as a zip of it. Line by line, ``user`` has what all
    results of a search share, ``item`` has the results; they are joined on the search id, and whatever lacks its other
    side is dropped, as MTReclib does. Processed: ``train.csv`` and ``test.csv`` with a header. Both layouts give
    the same tables, and the processed names are used for both: categorical_1-9 and numerical_1-23 belong to the search
    (user side), the rest to the result. Results have no id, so that the item is a constant and what describes a result
    is pair-side. Two results may look the same; they are kept.

    Labels: ``click`` and ``ctcvr`` (bought; every purchase follows a click) for all rows; ``cvr`` bought, on clicked
    rows; ``rec`` the click again, against the results of the same search; ``rank`` 0, 0.5 (clicked) or 1 (bought).

    The publisher split by time into a training and a test file. Validation is the tenth of the training searches with
    the highest search ids. Whether ids follow time is not published. Both files number from small ids on, so that the
    same id in the other file is another search. The groups' times only tell the parts: 0, 1, 2.
    """

    variants: ClassVar[tuple[str, ...]] = ("nl", "es", "fr", "us")
    domain = "e-commerce search"
    sizes = {"nl": "1.49 GB zipped", "es": "2.60 GB zipped", "fr": "2.25 GB zipped", "us": "2.25 GB zipped"}
    about = (
        "Logged search results of AliExpress in one country (nl, es, fr or us) and what was clicked and bought of "
        "them; results without a click are the negatives. Anonymised numbers, without ids of users or items, without "
        "texts and histories. Official split by time; validation is the tenth of the training searches with the "
        "highest ids. Left out: searches without results and results without a search. ctcvr = click * cvr and rank = "
        "(click + ctcvr) / 2, so that rank adds nothing but a scale, and rec is click seen within a search."
    )
    licence = "terms of Alibaba Cloud Tianchi, shown after login"
    citation = (  # authors [from memory]
        "Pengcheng Li, Runze Li, Qing Da, An-Xiang Zeng, and Lijun Zhang. 2020. Improving Multi-Scenario Learning to "
        "Rank in E-commerce by Exploiting Task Relationships in the Label Space. CIKM 2020"
    )
    url = "https://tianchi.aliyun.com/dataset/74690"
    tasks = (
        Task("click", "binary", role="ctr"),
        Task("ctcvr", "binary", role="conversion"),
        Task("cvr", "binary", role="conversion given click", space="clicked rows"),
        Task("rec", "softmax", role="rec"),
        Task("rank", "regression", role="rank", metric="ndcg@10"),
    )
    fields = (
        *(Field(c, "user", "numerical" if c in _NUMERICAL else "categorical") for c in SEARCH),
        *(Field(c, "pair", "numerical" if c in _NUMERICAL else "categorical") for c in RESULT),
    )
    forbidden = (*OUTCOMES, "ctcvr", "cvr", "rec", "rank")
    history = 0
    split = Temporal(valid=1, test=2, absolute=True)

    @property
    def sources(self) -> tuple[Local, ...]:  # type: ignore[override]  # they are named after the country
        """The raw files as CSV, the raw files zipped one by one as published, or the processed files."""
        top = f"aliexpress_{self.variant.upper()}_datasets"
        names = [f"{self.variant}_{side}_{part}" for part in ("train", "test") for side in ("user", "item")]
        how = f"get {top}.zip from {self.url} (login), unpack it and give the folder"
        return (
            Local({f"{n}.csv": f"{top}/{n}.csv" for n in names}, how),
            Local({f"{n}.csv": f"{top}/{n}.zip" for n in names}, how),
            Local({"train.csv": "train.csv", "test.csv": "test.csv"}, how),
        )

    def build(self, raw: Mapping[str, Path]) -> Tables:
        """Standard tables from either layout. Raises BenchError naming file, line and column on bad input."""
        train, test = (self._part(raw, part) for part in ("train", "test"))
        first = pl.col("group") + train[0].height
        groups, rows = (pl.concat([a, b.with_columns(first)]) for a, b in zip(train, test, strict=True))
        bought, clicked = pl.col("conversion"), pl.col("click")
        groups = groups.with_columns(
            user="group", history=pl.lit([], pl.List(pl.Int8)), history_time=pl.lit(None, pl.Int64)
        )
        return Tables(
            groups=groups,
            rows=rows.select(
                "group",
                *RESULT,
                "click",
                item=pl.lit(0, pl.Int8),
                rec=clicked,
                ctcvr=bought,
                cvr=pl.when(clicked == 1).then(bought),
                rank=(clicked + bought).cast(pl.Float32) / 2,
            ),
            items=pl.DataFrame({"item": [0], "text": [""]}, schema_overrides={"item": pl.Int8}),
            users=groups.select("user"),
        )

    def _part(self, raw: Mapping[str, Path], part: str) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Groups (numbered in the order of search ids) and rows of the training or test files."""
        if f"{part}.csv" in raw:
            searches, results = _processed(raw[f"{part}.csv"])
        else:
            searches, results = _raw(*(raw[f"{self.variant}_{side}_{part}.csv"] for side in ("user", "item")))
        searches = searches.join(results.select("search_id").unique(), on="search_id", how="semi").sort("search_id")
        late = pl.int_range(pl.len()) >= round((1 - VALIDATION) * searches.height)
        groups = searches.with_columns(
            group=pl.int_range(pl.len(), dtype=pl.Int64),
            time=late.cast(pl.Int64) if part == "train" else pl.lit(2, pl.Int64),
        )
        ids = results.select("search_id").join(
            groups.select("search_id", "group"), on="search_id", how="left", maintain_order="left"
        )
        rows = results.with_columns(ids["group"]).filter(pl.col("group").is_not_null())
        return groups.drop("search_id"), rows.drop("search_id")


def _raw(user: Path, item: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Searches (search_id, SEARCH) and results (search_id, RESULT, click, conversion) of the two files of a part."""
    searches = _searches(_read(user, USER_FILE, ("search_id", *SEARCH)), user)
    results = _read(item, ITEM_FILE, ("search_id", *RESULT, "label"))
    reject(results, item, "label", ~pl.col("label").is_between(0, 2).fill_null(False), "is not 0, 1 or 2")
    label = pl.col("label")
    return searches, results.select(
        "search_id", *RESULT, click=(label >= 1).cast(pl.Int8), conversion=(label == 2).cast(pl.Int8)
    )


def _processed(path: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Searches and results, as ``_raw`` returns them, of a processed file, which repeats the search in each result."""
    with path.open("rb") as file:
        names = tuple(file.readline().decode("utf-8", "replace").lstrip("\ufeff").strip().split(","))
    for name in PROCESSED_FILE:
        if name not in names:
            raise BenchError(f"{path}, line 1: no column '{name}'; this is not a processed file, or it is damaged")
    searches = _searches(_read(path, names, ("search_id", *SEARCH), header=True), path)
    results = _read(path, names, ("search_id", *RESULT, "click", "conversion"), header=True)
    for label in ("click", "conversion"):
        reject(results, path, label, ~pl.col(label).is_between(0, 1).fill_null(False), "is not 0 or 1")
    unclicked = (pl.col("conversion") > pl.col("click")).fill_null(True)
    reject(results, path, "conversion", unclicked, "comes without a click")
    return searches, results.drop("line")


def _searches(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    """One line for each search. Raises BenchError if one search is described in two ways."""
    searches = table.drop("line").unique(maintain_order=True)
    twice = searches.filter(pl.col("search_id").is_duplicated())
    if twice.height:
        raise BenchError(
            f"{path}: search_id {twice['search_id'][0]} has two different user sides; fetch the file again"
        )
    return searches


def _read(path: Path, names: tuple[str, ...], wanted: tuple[str, ...], header: bool = False) -> pl.DataFrame:
    """The wanted columns of a CSV file (or of the one in a zip) with their line numbers; empty cells are null.

    Raises BenchError for an empty file, a line of another length, or a value that is not a number.
    """
    kinds = {"search_id": pl.Int64, **dict.fromkeys(_CATEGORICAL, pl.Int32), **dict.fromkeys(_NUMERICAL, pl.Float32)}
    schema = {name: kinds.get(name, pl.Int8) for name in names}
    last = names[-1]  # null where the line is too short, for it is never empty
    with _unzipped(path) as plain:
        lines = pl.scan_csv(
            plain,
            has_header=header,
            schema=schema,
            quote_char=None,
            row_index_name="line",
            row_index_offset=1 + header,
        )
        try:
            table = lines.select("line", *wanted, pl.col(last).is_null().alias("short")).collect(engine="streaming")
        except pl.exceptions.NoDataError:
            table = pl.DataFrame()
        except pl.exceptions.PolarsError as error:
            where = _first_bad_cell(plain, schema, header) or f": {str(error).splitlines()[0]}"
            raise BenchError(f"{path}{where}; fetch the file again") from error
    if table.is_empty():
        raise BenchError(f"{path}: holds no rows; fetch it again")
    for line in table.filter(pl.col("short") | pl.col("search_id").is_null())["line"].head(1):
        raise BenchError(f"{path}, line {line}: fewer columns than {len(names)}, or no {last}; fetch the file again")
    return table.drop("short")


@contextmanager
def _unzipped(path: Path) -> Iterator[Path]:
    """A CSV file as it is; of a zip the CSV file of the same name, unpacked into the cache for the time being."""
    if path.suffix != ".zip":
        yield path
        return
    cache.root().mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".unzipped-", dir=cache.root()) as scratch:
        unpack(path, Path(scratch), {"csv": f"{path.stem}.csv"})
        yield Path(scratch) / "csv"


def _first_bad_cell(path: Path, schema: Mapping[str, type[pl.DataType]], header: bool) -> str:
    """Where and why reading stopped; empty if no line looks wrong."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            cells = line.rstrip(b"\r\n").split(b",")
            if len(cells) != len(schema):
                return f", line {number}: {len(cells)} columns instead of {len(schema)}"
            for (name, kind), cell in zip(schema.items(), cells, strict=True):
                try:
                    if cell and not (header and number == 1):
                        float(cell) if kind is pl.Float32 else int(cell)
                except ValueError:
                    return f", line {number}: {name} {cell[:40].decode('utf-8', 'replace')!r} is not a number"
    return ""
