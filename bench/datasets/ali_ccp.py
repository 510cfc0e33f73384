"""Ali-CCP: which recommended items of Taobao are clicked, and which are bought after the click."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import polars as pl

from bench.api import Dataset, Field, Tables, Task, Temporal
from bench.data.raw.source import Local
from bench.datasets.logs.read import odd_line, read_columns, reject
from bench.errors import BenchError

# Published field number -> our name: the 18 fields that AITM's preparation keeps.
USER = {
    "101": "user_id", "121": "profile", "122": "profile_group", "124": "gender", "125": "age", "126": "consumption_1",
    "127": "consumption_2", "128": "occupied", "129": "geography",
}  # fmt: skip
ITEM = {"205": "item_id", "206": "category", "207": "shop", "216": "brand"}
PAIR = {
    "508": "category_affinity", "509": "shop_affinity", "702": "brand_affinity", "853": "intention_affinity",
    "301": "shown_position",
}  # fmt: skip
RARE = 10  # a value of no more training rows than this is unknown
VALIDATION = 0.1  # of the training contexts

COMMON = ("common_feature_index", "feature_num", "features")
SKELETON = ("sample_id", "click", "buy", *COMMON)
CHUNK = {COMMON: 10_000, SKELETON: 200_000}  # lines in memory at a time; a common line has some 500 features
PARTS = ("train", "test")
FILES = {f"{kind}_{part}.csv": part for part in PARTS for kind in ("sample_skeleton", "common_features")}
EXTRACTED = tuple(f"ali_ccp_{part}.csv" for part in ("train", "val", "test"))  # as torch-rechub writes and names them


class AliCCP(Dataset):
    r"""One group for each context (a common feature index: a user at some moment), one row for each item shown in it.

    A skeleton line has sample id, click, buy, common feature index, number of features, features; a common line has
    the last three. Features are separated by \x01, and each is field \x02 id \x03 value. The 18 fields that AITM (Xi et
    al., KDD 2021) keeps are read, all as categories; should a field occur twice in a line, its first id counts; values
    are not used. An item's category, shop and brand are those of its first line, training file first. Lines without a
    user or item id share the id 0.

    Labels: ``click`` and ``ctcvr`` (bought) for all rows; ``cvr`` bought, on clicked rows. Rows that say bought but not
    clicked are left out, as AITM does.

    There are no times. The publisher's test file tests; validation is the tail of the training file, the tenth of its
    contexts that appear last. The groups' times only tell the parts: 0, 1, 2. As in AITM's preparation values of at
    most ten rows are unknown, but only rows of the training part are counted.

    The features as extracted by torch-rechub are read too: ``ali_ccp_{train,val,test}.csv`` with a header, click,
    purchase and a column for each field, of which the same 18 are used. They are codes that someone else has fitted (to
    the training file; 0 is a missing value or one of fewer than ten rows there), and the validation file is a random
    half of the published test file. Results do not compare with those of the published files. The context is lost, so
    that each row is a group of its own; users are their codes, and an item is a distinct item, category, shop and
    brand, since code 0 stands for many items.
    """

    domain = "e-commerce"
    sizes = {"": "84M impressions, 3.4M clicks, 18k purchases"}
    about = (
        "Impressions of recommended items on Taobao, 84 million with 3.4 million clicks and 18,000 purchases as "
        "published; impressions without a click are the negatives. Anonymised ids, no texts, no times. Left out: "
        "purchases without a click, and all but the 18 fields of AITM's preparation, among them the histories that "
        "the publisher has aggregated. ctcvr = click * cvr. Purchases are so rare that small differences in ctcvr and "
        "cvr are noise."
    )
    licence = "terms of Alibaba Cloud Tianchi, shown after login"
    citation = (  # authors [from memory]
        "Xiao Ma, Liqin Zhao, Guan Huang, Zhi Wang, Zelin Hu, Xiaoqiang Zhu, and Kun Gai. 2018. Entire Space "
        "Multi-Task Model: An Effective Approach for Estimating Post-Click Conversion Rate. SIGIR 2018"
    )
    url = "https://tianchi.aliyun.com/dataset/408"
    tasks = (
        Task("click", "binary", role="ctr"),
        Task("ctcvr", "binary", role="conversion"),
        Task("cvr", "binary", role="conversion given click", space="clicked rows"),
    )
    fields = (
        *(Field(name, "user", "id" if name == "user_id" else "categorical") for name in USER.values()),
        *(Field(name, "item", "id" if name == "item_id" else "categorical") for name in ITEM.values()),
        *(Field(name, "pair") for name in PAIR.values()),
    )
    forbidden = ("click", "buy", "ctcvr", "cvr")
    history = 0
    split = Temporal(valid=1, test=2, absolute=True)
    # The checksums are published behind the login.
    _how = f"get sample_train.tar.gz and sample_test.tar.gz from {url} (login) and unpack both into one folder"
    sources = (
        Local({f: f for f in FILES}, _how),
        Local({f: f"sample_{p}/{f}" for f, p in FILES.items()}, _how),
        Local({f: f for f in EXTRACTED}, f"or put torch-rechub's extracted {', '.join(EXTRACTED)} into one folder"),
    )

    def build(self, raw: Mapping[str, Path]) -> Tables:
        """Standard tables from either layout, the published one in chunks. Raises BenchError naming file and line."""
        if EXTRACTED[0] in raw:
            return _tables(*_extracted([raw[name] for name in EXTRACTED]))
        contexts: list[pl.DataFrame] = []
        rows: list[pl.DataFrame] = []
        items: list[pl.DataFrame] = []
        for part in PARTS:
            skeleton, common = raw[f"sample_skeleton_{part}.csv"], raw[f"common_features_{part}.csv"]
            known = _contexts(common)
            shown, seen = _impressions(skeleton, common, known)
            order = shown.group_by("context", maintain_order=True).agg(n=pl.len())
            first = sum(c.height for c in contexts)
            late = pl.int_range(pl.len()) >= round((1 - VALIDATION) * order.height)
            order = order.with_columns(
                group=pl.int_range(first, first + pl.len(), dtype=pl.Int64),
                time=late.cast(pl.Int8) if part == "train" else pl.lit(2, pl.Int8),
            )
            contexts.append(
                order.join(known, on="context", maintain_order="left").drop("context", "common_feature_index")
            )
            rows.append(shown.join(order.select("context", "group", "time"), on="context", maintain_order="left"))
            items.append(seen)
            if self.report_share:
                self.report_share((PARTS.index(part) + 1) / len(PARTS))
        return _tables(pl.concat(contexts), pl.concat(rows).drop("context"), pl.concat(items))


def _tables(contexts: pl.DataFrame, rows: pl.DataFrame, items: pl.DataFrame) -> Tables:
    """The four tables, with rare values unknown."""
    trains = pl.col("time") == 0
    shown = rows.filter(trains).group_by("item").agg(n=pl.len())
    items = items.unique("item", keep="first", maintain_order=True).join(shown, on="item", how="left").sort("item")
    contexts = contexts.with_columns(user=pl.col("user_id").fill_null(0))
    return Tables(
        groups=_without_rare(contexts, USER.values(), pl.when(trains).then("n")).select(
            "group", "user", pl.col("time").cast(pl.Int64), *USER.values(),
            history=pl.lit([], pl.List(pl.Int32)), history_time=pl.lit(None, pl.Int64),
        ),
        rows=_without_rare(rows, PAIR.values(), trains).select(
            "group", "item", *PAIR.values(), "click",
            ctcvr="buy", cvr=pl.when(pl.col("click") == 1).then("buy"),
        ),
        items=_without_rare(items, ITEM.values(), pl.col("n")).select("item", *ITEM.values(), text=pl.lit("")),
        users=contexts.select(pl.col("user").unique().sort()),
    )  # fmt: skip


def _without_rare(table: pl.DataFrame, columns: Iterable[str], rows: pl.Expr) -> pl.DataFrame:
    """Null for the values that stand in too few training rows. ``rows``: how many of them a line of the table is."""
    for column in columns:  # one after the other: each needs a count for every line
        table = table.with_columns(pl.when(rows.sum().over(column) > RARE).then(column))
    return table


def _extracted(paths: Iterable[Path]) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Contexts (one for each row), rows and items of the files of the three parts."""
    names = {**USER, **ITEM, **PAIR}
    parts = []
    for time, path in enumerate(paths):
        table = read_columns(path, {"click": pl.Boolean, "purchase": pl.Boolean, **dict.fromkeys(names, pl.Int64)})
        table = table.filter(pl.col("click") | ~pl.col("purchase")).select(
            pl.col("click").cast(pl.Int8),
            *(pl.when(pl.col(f) > 0).then(f).cast(pl.Int32).alias(name) for f, name in names.items()),
            buy=pl.col("purchase").cast(pl.Int8),
            time=pl.lit(time, pl.Int8),
            n=pl.lit(1, pl.Int32),
        )
        parts.append(table)
    table = pl.concat(parts).with_row_index("group").cast({"group": pl.Int64})
    items = table.select(ITEM.values()).unique(maintain_order=True).with_row_index("item").cast({"item": pl.Int32})
    rows = table.join(items, on=list(ITEM.values()), how="left", nulls_equal=True, maintain_order="left")
    return (
        table.select("group", "time", "n", *USER.values()),
        rows.select("group", "time", "item", "click", "buy", *PAIR.values()),
        items,
    )


def _contexts(path: Path) -> pl.DataFrame:
    """Number (file order), index and user fields of every context of a common file."""
    chunks = [chunk.select("common_feature_index", *_ids(USER)) for chunk in _chunks(path, COMMON)]
    table = pl.concat(chunks).unique(maintain_order=True)
    twice = table.filter(pl.col("common_feature_index").is_duplicated())["common_feature_index"]
    if len(twice):
        raise BenchError(f"{path}: common_feature_index '{twice[0]}' has two different lines; fetch the file again")
    return table.with_row_index("context")


def _impressions(path: Path, common: Path, contexts: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows of a skeleton file (context, item, click, buy, pair fields) and its items, both in file order."""
    rows, items = [], []
    for chunk in _chunks(path, SKELETON):
        chunk = chunk.join(contexts.select(COMMON[0], "context"), on=COMMON[0], how="left", maintain_order="left")
        reject(chunk, path, COMMON[0], pl.col("context").is_null(), f"is not in {common}")
        for label in ("click", "buy"):
            reject(chunk, path, label, ~pl.col(label).is_in(["0", "1"]).fill_null(False), "is not 0 or 1")
        chunk = chunk.filter((pl.col("click") == "1") | (pl.col("buy") == "0"))
        chunk = chunk.select("context", pl.col("click", "buy").cast(pl.Int8), *_ids(ITEM), *_ids(PAIR))
        chunk = chunk.with_columns(item=pl.col("item_id").fill_null(0))
        rows.append(chunk.select("context", "item", "click", "buy", *PAIR.values()))
        items.append(chunk.select("item", *ITEM.values()).unique("item", keep="first", maintain_order=True))
    return pl.concat(rows), pl.concat(items)


def _ids(names: Mapping[str, str]) -> Iterator[pl.Expr]:
    """The first id of each field in a list of features; null where the field is missing."""
    for field, name in names.items():
        yield pl.col("features").str.extract(rf"(?:^|\x01){field}\x02(\d{{1,9}})\x03").cast(pl.Int32).alias(name)


def _chunks(path: Path, names: tuple[str, ...]) -> Iterator[pl.DataFrame]:
    """A file without a header, some lines at a time, as text with line numbers.

    Raises BenchError for an empty file, a line of another length, or one that ends within a feature.
    """
    lines = pl.scan_csv(
        path,
        has_header=False,
        schema=dict.fromkeys(names, pl.String),
        quote_char=None,
        row_index_name="line",
        row_index_offset=1,
    )
    if not path.stat().st_size:
        raise BenchError(f"{path}: holds no rows; fetch it again")
    try:
        for chunk in lines.collect_batches(chunk_size=CHUNK[names]):
            cut = ~pl.col("features").str.contains(r"\x03[^\x01-\x03]+$").fill_null(False)
            for line in chunk.filter(cut)["line"].head(1):
                raise BenchError(f"{path}, line {line}: ends before its last feature does; fetch the file again")
            yield chunk
    except pl.exceptions.PolarsError as error:
        where = odd_line(path, len(names)) or f": {str(error).splitlines()[0]}"
        raise BenchError(f"{path}{where}; fetch the file again") from error
