"""Splits a data set: globally, by time, in whole groups, with outcomes known in time."""

from __future__ import annotations

import numpy as np
import polars as pl

from bench.api import Temporal
from bench.errors import BenchError

PARTS = ("train", "valid", "test")
PURGED = "purged"


def boundaries(groups: pl.DataFrame, sizes: np.ndarray, rule: Temporal) -> tuple[float, float]:
    """Returns the times at which validation and test begin. ``sizes``: rows of each group.

    With shares, a part begins at the first whole time step that leaves at most the wanted share of rows behind it:
    groups of one time stay together.
    """
    if rule.absolute:
        return rule.valid, rule.test
    time = groups["time"].to_numpy()
    order = np.argsort(time, kind="stable")
    before = np.cumsum(sizes[order]) - sizes[order]  # rows of earlier groups
    total = int(sizes.sum())
    wanted = [total - round(total * share) for share in (rule.valid + rule.test, rule.test)]
    valid, test = time[order[np.searchsorted(before, wanted).clip(max=len(order) - 1)]].tolist()
    return valid, test


def assign(groups: pl.DataFrame, sizes: np.ndarray, rule: Temporal) -> pl.Series:
    """Returns the part of each group: train, valid, test, the part that its ``extra`` names, or purged.

    A group is purged if its outcome is known only after the next part begins, or if it is extra before the test start.
    Raises BenchError if a part would be empty.
    """
    valid, test = boundaries(groups, sizes, rule)
    time = pl.col("time")
    known = pl.col("known") if "known" in groups.columns else time
    part = (
        pl.when(time >= test).then(pl.lit("test"))
        .when(time >= valid).then(pl.when(known <= test).then(pl.lit("valid")).otherwise(pl.lit(PURGED)))
        .otherwise(pl.when(known <= valid).then(pl.lit("train")).otherwise(pl.lit(PURGED)))
    )  # fmt: skip
    if "extra" in groups.columns:
        later = pl.when(time >= test).then("extra").otherwise(pl.lit(PURGED))
        part = pl.when(pl.col("extra").is_null()).then(part).otherwise(later)
    parts = groups.select(part.alias("part"))["part"]
    for name in PARTS:
        if not (parts == name).any():
            raise BenchError(f"the temporal split leaves no {name} rows; the data hold too few different times")
    return parts
