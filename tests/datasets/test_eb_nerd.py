"""EB-NeRD from a few hand-written impressions: labels, sample spaces, histories, classes, forbidden columns, faults."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bench import registry
from bench.api import Tables, Temporal
from bench.data import prepare
from bench.data.encode import encode
from bench.data.load import load
from bench.data.raw.source import fetch
from bench.datasets.eb_nerd import EBNeRD
from bench.errors import BenchError
from tests.support.formats.eb_nerd import ARTICLES, BEHAVIORS, HISTORY, write

SAMPLES = registry.ROOT.parent / "shared/samples/ebnerd"
TABLES = ("train/behaviors", "train/history", "validation/behaviors", "validation/history", "articles")


def at(day: int, hour: int, minute: int = 0, second: int = 0) -> datetime:
    return datetime(2023, 5, day, hour, minute, second)


def seconds(time: datetime) -> int:
    return int(time.replace(tzinfo=UTC).timestamp())


def shown(number: int, time: datetime, user: int, inview: list[int], clicked: list[int], **more: Any) -> dict[str, Any]:
    row = {"impression_id": number, "impression_time": time, "user_id": user, "device_type": 2, "is_sso_user": False}
    return {**row, "article_ids_inview": inview, "article_ids_clicked": clicked, **more}


ROWS: dict[str, list[dict[str, Any]]] = {
    "train/behaviors": [
        shown(5, at(20, 12), 1, [11, 12, 13], [12], article_id=11, next_read_time=9.0, next_scroll_percentage=25.0,
              read_time=70.0, gender=1, age=40, is_sso_user=True),
        shown(6, at(19, 8), 2, [13, 99], [99], next_read_time=1800.0),
        shown(5, at(20, 12), 1, [11, 12, 13], [12], next_read_time=9.0),
        shown(7, at(25, 6, 30), 1, [12, 11], [11, 12], next_read_time=5.0, next_scroll_percentage=50.0, device_type=9),
    ],
    "train/history": [
        {"user_id": 1, "impression_time_fixed": [at(3, 9), at(2, 9), at(3, 9)], "article_id_fixed": [12, 98, 11]},
        {"user_id": 3, "impression_time_fixed": [at(3, 9)], "article_id_fixed": [13]},
    ],
    "validation/behaviors": [
        shown(5, at(25, 7), 1, [14, 12], [14], device_type=0, next_read_time=0.0, next_scroll_percentage=100.0),
        shown(8, at(28, 18, 59, 59), 2, [11, 12], [13], device_type=1),
        shown(9, at(28, 19), 4, [11, 12], [12], device_type=3),
        shown(10, at(28, 18), 4, [11, 12], []),
    ],
    "validation/history": [
        {"user_id": 1, "impression_time_fixed": [at(24, 9)], "article_id_fixed": [13]},
        {"user_id": 4, "impression_time_fixed": [], "article_id_fixed": []},
    ],
    "articles": [
        {"article_id": 11, "title": " Hvad nu? ", "subtitle": 'Et "svar", måske', "category_str": "sport",
         "article_type": "article_default", "premium": True, "published_time": at(20, 9)},
        {"article_id": 12, "title": "Kort", "subtitle": None, "category_str": "nyheder", "article_type": "video",
         "premium": False, "published_time": at(20, 13)},
        {"article_id": 13, "title": "A", "subtitle": "B", "category_str": "krimi"},
        {"article_id": 14, "title": "Ny", "subtitle": "", "category_str": "ny kategori"},
        {"article_id": 15, "title": "Aldrig vist", "subtitle": "", "category_str": "sport"},
    ],
}  # fmt: skip
SCHEMAS = {"behaviors": BEHAVIORS, "history": HISTORY, "articles": ARTICLES}


def files(folder: Path, rows: dict[str, list[dict[str, Any]]] = ROWS) -> dict[str, Path]:
    raw = {}
    for name in TABLES:
        path = folder / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True, parents=True)
        schema = SCHEMAS[name.split("/")[-1]]
        pl.DataFrame([{column: row.get(column) for column in schema} for row in rows[name]], schema).write_parquet(path)
        raw[f"{name}.parquet"] = path
    return raw


@pytest.fixture
def built(tmp_path: Path) -> tuple[EBNeRD, Tables]:
    dataset = EBNeRD()
    return dataset, dataset.build(files(tmp_path))


def test_groups_by_hand(built: tuple[EBNeRD, Tables]) -> None:
    groups = built[1].groups
    assert groups.select("user", "device", "page", "is_sso_user", "gender", "postcode", "age").rows() == [
        (1, "mobile", "article", 1, 1, None, 40),
        (2, "mobile", "front", 0, None, None, None),
        (1, None, "front", 0, None, None, None),
        (1, "unknown", "front", 0, None, None, None),
        (2, "desktop", "front", 0, None, None, None),
        (4, "tablet", "front", 0, None, None, None),
        (4, "mobile", "front", 0, None, None, None),
    ]
    # Clicks of one second keep their order; each part has its own history; users without one have none.
    assert groups["history"].to_list() == [[98, 12, 11], [], [98, 12, 11], [13], [], [], []]
    past, later = seconds(at(3, 9)), seconds(at(24, 9))
    assert groups["history_time"].to_list() == [past, None, past, later, None, None, None]
    assert groups["time"][4] == seconds(at(28, 18, 59, 59))
    assert (groups["known"] - groups["time"] == 3600).all()


def test_labels_by_hand(built: tuple[EBNeRD, Tables]) -> None:
    rows = built[1].rows
    log9 = math.log(10)
    expected = [
        (0, 11, 0, None, None, 0), (0, 12, 1, log9, 0.25, log9 / math.log(1801)), (0, 13, 0, None, None, 0),
        (1, 13, 0, None, None, 0), (1, 99, 1, math.log(1801), None, 1),
        (2, 12, 1, None, None, None), (2, 11, 1, None, None, None),  # two clicks, one reading time
        (3, 14, 1, 0, 1, 0), (3, 12, 0, None, None, 0),
        (4, 11, 0, None, None, 0), (4, 12, 0, None, None, 0),  # the clicked article was not in view
        (5, 11, 0, None, None, 0), (5, 12, 1, None, None, None),  # reading time unknown
        (6, 11, 0, None, None, 0), (6, 12, 0, None, None, 0),  # nothing clicked
    ]  # fmt: skip
    found = rows.select("group", "item", "click", "read_time", "scroll", "rank").rows()
    assert len(found) == len(expected)
    for row, wanted in zip(found, expected, strict=True):
        assert row == pytest.approx(wanted, abs=1e-12), wanted
    assert (rows["rec"] == rows["click"]).all()


def test_age_of_articles(built: tuple[EBNeRD, Tables]) -> None:
    ages = built[1].rows.filter(pl.col("group") == 0)["hours_old"].to_list()
    assert ages == [pytest.approx(math.log(4)), 0, None]  # published 3 hours before, 1 hour after, unknown


def test_interest_and_its_classes(built: tuple[EBNeRD, Tables]) -> None:
    dataset, tables = built
    assert dataset.tasks[-1].classes == ("nyheder", "sport", "other")  # those clicked in the training week
    assert EBNeRD.tasks[-1].classes == ("other",)
    assert tables.groups["interest"].to_list() == ["nyheder", None, "sport", "other", "other", "nyheder", None]


def test_items_by_hand(built: tuple[EBNeRD, Tables]) -> None:
    assert built[1].items.select("item", "category", "article_type", "premium", "text").rows() == [
        (11, "sport", "article_default", 1, 'Hvad nu? Et "svar", måske'),
        (12, "nyheder", "video", 0, "Kort."),
        (13, "krimi", None, None, "A. B"),
        (14, "ny kategori", None, None, "Ny."),
        (98, None, None, None, None),
        (99, None, None, None, None),
    ]
    assert built[1].users["user"].to_list() == [1, 2, 4]


def test_rare_categories_of_the_training_week_are_other(tmp_path: Path) -> None:
    """2,000 training labels of one category, one of another: one in a thousand is not reached."""
    common = [shown(100 + n, at(19, 9, 0, n % 60), 1, [12, 11], [12]) for n in range(2000)]
    rows = {**ROWS, "train/behaviors": [shown(5, at(19, 8), 1, [11, 12], [11]), *common]}
    dataset = EBNeRD()
    interest = dataset.build(files(tmp_path, rows)).groups["interest"]
    assert dataset.tasks[-1].classes == ("nyheder", "other") and interest[0] == "other"


def test_parts_are_cut_within_the_validation_week(built: tuple[EBNeRD, Tables]) -> None:
    dataset, tables = built
    encoded = encode(dataset, tables)
    # Group 2 ends in the validation week and group 4 in the test part; 10 is read to the end just in time.
    assert {part: size["groups"] for part, size in encoded.parts.items()} == {"train": 2, "valid": 2, "test": 1}
    assert encoded.purged == 4


def test_classes_reach_the_prepared_data(tmp_path: Path) -> None:
    write(tmp_path)
    data = load(prepare.prepare("eb-nerd-demo", None, tmp_path))
    interest = data.schema.tasks[-1]
    assert interest.name == "interest" and interest.classes == ("nyheder", "sport", "underholdning", "other")
    assert np.nanmax(data.test.labels["interest"].numpy()) <= 2


def test_what_the_reader_does_after_the_impression_is_no_input(tmp_path: Path) -> None:
    """Other outcomes and totals change labels, and nothing else."""
    before, after = tmp_path / "a", tmp_path / "b"
    write(before)
    write(after)
    for path in (after / "train" / "behaviors.parquet", after / "validation" / "behaviors.parquet"):
        outcomes = ("next_read_time", "next_scroll_percentage", "read_time", "scroll_percentage", "is_subscriber")
        clicked = pl.col("article_ids_inview").list.head(1)
        log = pl.read_parquet(path).with_columns(pl.col(outcomes).reverse(), article_ids_clicked=clicked)
        log.write_parquet(path)
    totals = pl.col("total_inviews", "total_pageviews", "total_read_time")
    articles = after / "articles.parquet"
    pl.read_parquet(articles).with_columns(totals * 2 + 1).write_parquet(articles)
    dataset = EBNeRD()
    found = []
    for folder in (before, after):
        tables = dataset.build(fetch(dataset.sources, tmp_path / "into", folder))
        labels = [task.name for task in dataset.tasks]
        found.append([t.drop(labels, strict=False) for t in (tables.groups, tables.rows, tables.items, tables.users)])
        assert not {f.name for f in dataset.fields} & {*dataset.forbidden, *labels}
    assert all(a.equals(b) for a, b in zip(*found, strict=True))


def test_without_articles_there_is_no_text(tmp_path: Path) -> None:
    raw = files(tmp_path)
    del raw["articles.parquet"]
    dataset = EBNeRD()
    tables = dataset.build(raw)
    assert tables.items["text"].null_count() == tables.items.height == 6
    assert tables.groups["interest"].null_count() == 7 and dataset.tasks[-1].classes == ("other",)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the official samples are not here")
def test_official_samples() -> None:
    """One week of behaviors and history in the official schema, read as both parts."""
    raw = {f"{part}/{t}.parquet": SAMPLES / f"{t}.parquet" for part in ("train", "validation") for t in SCHEMAS}
    raw = {name: path for name, path in raw.items() if path.exists()}
    dataset = EBNeRD()
    tables = dataset.build(raw)
    behaviors = pl.read_parquet(SAMPLES / "behaviors.parquet")
    half = tables.groups.filter(pl.col("group") < behaviors.height)
    assert half.height * 2 == tables.groups.height == 2092
    rows = tables.rows.filter(pl.col("group") < behaviors.height)
    assert rows.height == behaviors["article_ids_inview"].list.len().sum() == 10848
    assert rows["click"].sum() == behaviors["article_ids_clicked"].list.len().sum() == 1047
    known = behaviors.filter(pl.col("article_ids_clicked").list.len() == 1)["next_read_time"].drop_nulls()
    assert rows["read_time"].drop_nulls().sum() == pytest.approx(known.cast(pl.Float64).log1p().sum())
    assert (half["page"] == "front").sum() == behaviors["article_id"].null_count() == 740
    assert half.filter(pl.col("history_time") >= pl.col("time")).is_empty()
    assert half["history"].list.len().max() == 20
    first, last = half["time"].min(), half["time"].max()
    assert isinstance(first, int) and isinstance(last, int)
    dataset.split = Temporal(first + 2 * (last - first) // 3, first + 5 * (last - first) // 6, absolute=True)
    encoded = encode(dataset, tables)
    assert encoded.purged + sum(part["rows"] for part in encoded.parts.values()) == tables.rows.height


@pytest.mark.parametrize("name", TABLES)
def test_damaged_files(tmp_path: Path, name: str) -> None:
    raw = files(tmp_path)
    path = raw[f"{name}.parquet"]
    whole = pl.read_parquet(path)
    key = whole.columns[0]
    for broken, message in (
        (whole.drop(key), f"no column '{key}'"),
        (whole.with_columns(pl.lit("x").alias(key)), f"column '{key}' is String, not Int"),
        (whole.clear(), "holds no rows"),
    ):
        broken.write_parquet(path)
        fails(raw, str(path), message)
    whole.write_parquet(path)
    path.write_bytes(path.read_bytes()[:-40])
    fails(raw, str(path), "not a readable parquet file")


def test_missing_values_and_uneven_histories(tmp_path: Path) -> None:
    raw = files(tmp_path)
    path = raw["train/behaviors.parquet"]
    pl.read_parquet(path).with_columns(user_id=pl.lit(None, pl.UInt32)).write_parquet(path)
    fails(raw, str(path), "column 'user_id' has 4 nulls")
    raw = files(tmp_path)
    path = raw["validation/history.parquet"]
    pl.read_parquet(path).with_columns(article_id_fixed=pl.lit([1, 2], pl.List(pl.Int32))).write_parquet(path)
    fails(raw, str(path), "user 1 has another number of times than of articles")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "articles.parquet").unlink()
    with pytest.raises(BenchError, match=r"lacks articles\.parquet"):
        fetch(EBNeRD.sources, tmp_path / "into", tmp_path)
    with pytest.raises(BenchError, match=r"recsys\.eb\.dk"):
        fetch(EBNeRD.sources, tmp_path / "into")


def fails(raw: dict[str, Path], *parts: str) -> None:
    with pytest.raises(BenchError) as caught:
        EBNeRD().build(raw)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)
