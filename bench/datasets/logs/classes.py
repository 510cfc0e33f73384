"""Finds classes of a multi-class label in the data: the frequent values, and one for all others."""

from __future__ import annotations

from collections.abc import Collection

import polars as pl

OTHER = "other"


def frequent_classes(labels: pl.Series, share: float) -> tuple[str, ...]:
    """Returns the values that make up at least ``share`` of the labels (nulls apart) in name order, then ``other``."""
    known = labels.drop_nulls().alias("label")
    counts = known.value_counts().filter(pl.col("count") >= share * len(known))
    return (*counts["label"].sort(), OTHER)


def with_other(column: str, classes: Collection[str]) -> pl.Expr:
    """Returns a column with ``other`` in place of each value that is no class; null stays null."""
    value = pl.col(column)
    return pl.when(value.is_in(classes)).then(value).when(value.is_not_null()).then(pl.lit(OTHER))
