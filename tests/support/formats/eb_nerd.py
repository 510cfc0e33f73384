"""Files as EB-NeRD publishes them: parquet tables of two weeks, and of the articles with their later totals."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

KEYS = {"behaviors.parquet": "impression_id", "history.parquet": "user_id", "articles.parquet": "article_id"}
BEHAVIORS = {
    "impression_id": pl.UInt32,
    "article_id": pl.Int32,
    "impression_time": pl.Datetime("us"),
    "read_time": pl.Float32,
    "scroll_percentage": pl.Float32,
    "device_type": pl.Int8,
    "article_ids_inview": pl.List(pl.Int32),
    "article_ids_clicked": pl.List(pl.Int32),
    "user_id": pl.UInt32,
    "is_sso_user": pl.Boolean,
    "gender": pl.Int8,
    "postcode": pl.Int8,
    "age": pl.Int8,
    "is_subscriber": pl.Boolean,
    "session_id": pl.UInt32,
    "next_read_time": pl.Float32,
    "next_scroll_percentage": pl.Float32,
}
HISTORY = {
    "user_id": pl.UInt32,
    "impression_time_fixed": pl.List(pl.Datetime("us")),
    "scroll_percentage_fixed": pl.List(pl.Float32),
    "article_id_fixed": pl.List(pl.Int32),
    "read_time_fixed": pl.List(pl.Float32),
}
ARTICLES = {
    "article_id": pl.Int32,
    "title": pl.String,
    "subtitle": pl.String,
    "last_modified_time": pl.Datetime("us"),
    "premium": pl.Boolean,
    "body": pl.String,
    "published_time": pl.Datetime("us"),
    "image_ids": pl.List(pl.Int64),
    "article_type": pl.String,
    "url": pl.String,
    "ner_clusters": pl.List(pl.String),
    "entity_groups": pl.List(pl.String),
    "topics": pl.List(pl.String),
    "category": pl.Int16,
    "subcategory": pl.List(pl.Int16),
    "category_str": pl.String,
    "total_inviews": pl.Int32,
    "total_pageviews": pl.Int32,
    "total_read_time": pl.Float32,
    "sentiment_score": pl.Float32,
    "sentiment_label": pl.String,
}
STARTS = {"train": datetime(2023, 5, 18, 7), "validation": datetime(2023, 5, 25, 7)}
CATEGORIES = ("nyheder", "sport", "underholdning")
TITLES = ('Se "billederne"; nu', " Mellemrum foran", "Ærø, Øresund — og Århus?", "Uden undertitel")
KNOWN = range(9_700_000, 9_700_040)
UNKNOWN = 9_799_999  # in view, clicked and in histories, but not in articles.parquet


def write(folder: Path, variant: str = "") -> None:
    """About 600 articles in view in 120 impressions of 25 users, of which every fifth has no history."""
    rng = np.random.default_rng(2023)
    for part, start in STARTS.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        log = [_impression(n, start, rng) for n in range(60)]
        _table([*log, log[7]], BEHAVIORS).write_parquet(folder / part / "behaviors.parquet")
        history = [_history(user, start) for user in range(25) if user % 5]
        _table(history, HISTORY).write_parquet(folder / part / "history.parquet")
    _table([_article(n) for n in KNOWN], ARTICLES).write_parquet(folder / "articles.parquet")


def _table(rows: list[dict[str, Any]], schema: dict[str, Any]) -> pl.DataFrame:
    """Rows as a table; columns that they lack are null."""
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema)


def _impression(number: int, start: datetime, rng: np.random.Generator) -> dict[str, Any]:
    shown = rng.choice([*KNOWN, UNKNOWN], 5, replace=False).tolist()
    user = int(rng.integers(25))
    known = number % 6 > 0
    return {
        "impression_id": start.day * 1000 + number,
        "article_id": None if number % 2 else shown[4],
        "impression_time": start + timedelta(seconds=int(rng.integers(7 * 86_400))),
        "read_time": float(rng.integers(1800)),
        "scroll_percentage": None if number % 2 else 50.0,
        "device_type": number % 4,
        "article_ids_inview": shown,
        "article_ids_clicked": shown[1:3] if number % 11 == 0 else [shown[number % 5]],
        "user_id": user,
        "is_sso_user": user % 2 == 0,
        "gender": (None, 0, 1)[user % 3],
        "postcode": None,
        "age": (None, 30, 60)[user % 3],
        "is_subscriber": user % 7 == 0,
        "session_id": number // 3,
        "next_read_time": float(rng.integers(1800)) if known else None,
        "next_scroll_percentage": float(rng.integers(101)) if known and number % 4 else None,
    }


def _history(user: int, start: datetime) -> dict[str, Any]:
    count = 3 + user % 4
    hours = [24 * count - 7 * n for n in range(count)]
    if user % 2:
        hours.reverse()  # the latest click first
    return {
        "user_id": user,
        "impression_time_fixed": [start - timedelta(hours=h) for h in hours],
        "scroll_percentage_fixed": [None if h % 3 == 0 else 80.0 for h in hours],
        "article_id_fixed": [UNKNOWN, *KNOWN[user : user + count - 1]],
        "read_time_fixed": [float(h) for h in hours],
    }


def _article(number: int) -> dict[str, Any]:
    category = number % len(CATEGORIES)
    return {
        "article_id": number,
        "title": TITLES[number % len(TITLES)],
        "subtitle": None if number % 4 == 3 else f'Undertitel {number}, "citat"\tog tabulator',
        "last_modified_time": datetime(2023, 6, 29, 6, 38),
        "premium": number % 5 == 0,
        "body": "Brødtekst. " * 20,
        "published_time": datetime(2023, 5, 16) + timedelta(hours=7 * (number - KNOWN[0])),
        "image_ids": [number],
        "article_type": "article_default" if number % 3 else "article_video",
        "url": f"https://ekstrabladet.dk/{number}",
        "topics": [],
        "category": category,
        "subcategory": [category],
        "category_str": CATEGORIES[category],
        "total_inviews": number % 1000,
        "total_pageviews": number % 100,
        "total_read_time": float(number % 77),
        "sentiment_score": 0.5,
        "sentiment_label": "Neutral",
    }
