"""Finds what a log of events says around a moment: histories before it, outcomes after it."""

from __future__ import annotations

import numpy as np
import polars as pl


def histories(log: pl.DataFrame, at: pl.DataFrame, length: int) -> pl.DataFrame:
    """Returns ``history`` and ``history_time`` for each row of ``at`` (``user``, ``time``).

    A history holds the items of the user's rows of ``log`` (``user``, ``item``, ``time``) strictly before that time:
    the last ``length``, oldest first, those of one time in item order. Its time is that of its last item, null if there
    is none.
    """
    log = log.select("user", "time", "item").sort("user", "time", "item")
    # Both sides on common dense scales, so that a user and a time together fit into one number.
    user, time = (pl.concat([log[c], at[c]]).rank("dense").to_numpy().astype(np.int64) for c in ("user", "time"))
    moment = user * (len(time) + 1) + time
    end = np.searchsorted(moment[: log.height], moment[log.height :])
    start = np.maximum(np.searchsorted(user[: log.height], user[log.height :]), end - length)
    size = end - start
    place = np.arange(size.sum()) + np.repeat(start - (np.cumsum(size) - size), size)
    row = pl.Series(np.repeat(np.arange(at.height, dtype=np.uint32), size)).set_sorted()
    items = pl.DataFrame({"row": row, "history": log["item"].gather(place)})
    lists = items.group_by("row", maintain_order=True).agg("history")
    latest = np.append(log["time"].to_numpy(), 0)[end - 1]  # the 0 stands where there is none
    last = pl.DataFrame({"history_time": latest}).with_row_index("row")
    found = last.join(lists, on="row", how="left", maintain_order="left")
    return found.select(pl.col("history").fill_null([]), pl.when(pl.col("history").is_not_null()).then("history_time"))


def around(rows: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Says for each row whether events of its user and item came before it, and within its horizon.

    rows: ``user``, ``item``, ``time``, ``known``. events: ``user``, ``item``, ``time``. Returns ``before``, whether
    some came before ``time``, and ``within``, whether some came from ``time`` to ``known``, both included.
    """
    numbered = rows.select("user", "item", "time", "known").with_row_index("row")
    found = numbered.join(events.rename({"time": "at"}), on=["user", "item"])
    seen = found.group_by("row").agg(
        before=(pl.col("at") < pl.col("time")).any(), within=pl.col("at").is_between("time", "known").any()
    )
    seen = numbered.select("row").join(seen, on="row", how="left", maintain_order="left")
    return seen.select(pl.col("before", "within").fill_null(False))
