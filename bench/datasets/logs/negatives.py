"""Draws negative candidates for logs that record only what was chosen."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def popular_negatives(
    user: Ints, item: Ints, time: Ints, count: int, rng: np.random.Generator, power: float = 0.75
) -> Ints:
    """Draws ``count`` other items that the user could have met for each event, [E, count]; -1 where too few exist.

    user, item, time: [E], in time order, ``user`` and ``item`` coded from 0, each (user, item) pair at most once.
    Drawn without replacement with probability proportional to popularity ** power, power in [0, 1]. Popularity is an
    item's number of events strictly before the event's time; items without any, and items that the user has chosen
    at or before that time, are never drawn.
    """
    events, items = len(time), int(item.max()) + 1
    before = np.searchsorted(time, time)  # number of events strictly earlier; also a dense clock: ties share it
    picked = np.full((events, count), -1)
    filled = np.zeros(events, dtype=np.int64)
    active = np.flatnonzero(_eligible(user, item, before) >= count)
    popularity = _Popularity(item)
    chosen = _Chosen(user, item, before, items)
    while active.size:
        now = before[active]
        # A random earlier event is an item with probability ~ popularity; thinning turns that into the power.
        candidate = item[rng.integers(now)]
        accept = rng.random(active.size) < popularity.at(candidate, now) ** (power - 1)
        accept &= ~chosen.by(user[active], candidate, now)
        accept &= (picked[active] != candidate[:, None]).all(axis=1)
        winner = active[accept]
        picked[winner, filled[winner]] = candidate[accept]
        filled[winner] += 1
        active = active[filled[active] < count]
    return picked


def beside_others(log: pl.DataFrame, count: int, seed: tuple[int, ...]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Makes groups of one chosen item and ``count`` others, drawn by ``popular_negatives``.

    log: ``user``, ``item``, ``time`` and any other columns, in time order, each user and item together at most once.
    Returns the events that make a group, with its number ``group``, and the rows in item order: ``group``, ``item``,
    ``chosen`` and the event's other columns.
    """
    items = log["item"].unique().sort()
    code = {name: log[name].rank("dense").to_numpy().astype(np.int64) - 1 for name in ("user", "item")}
    others = popular_negatives(code["user"], code["item"], log["time"].to_numpy(), count, np.random.default_rng(seed))
    kept = np.flatnonzero(others[:, 0] >= 0)
    shown = np.sort(np.column_stack([code["item"][kept], others[kept]]), axis=1)
    events = log[kept].with_columns(group=pl.int_range(len(kept)))
    rows = events.drop("user", "time", "item")[np.repeat(np.arange(len(kept)), count + 1)]
    return events, rows.with_columns(
        item=items.gather(shown.ravel()),
        chosen=pl.Series((shown == code["item"][kept, None]).ravel(), dtype=pl.Boolean),
    )


def _eligible(user: Ints, item: Ints, before: Ints) -> Ints:
    """How many items may be drawn for each event [E]: met by anyone strictly earlier, not chosen by the user so far."""
    first = np.unique(item, return_index=True)[1]
    new = np.zeros(len(item) + 1, dtype=np.int64)
    new[first + 1] = 1
    met = np.cumsum(new)[before]
    key = user * (len(item) + 1) + before
    moments, which = np.unique(key, return_inverse=True)
    earlier = np.searchsorted(np.sort(key), key) - np.searchsorted(np.sort(user), user)
    known_now = np.bincount(which, weights=first[item] < before, minlength=len(moments))[which]
    return met - earlier - known_now.astype(np.int64)


class _Popularity:
    """Number of events of an item within the first ``n`` events."""

    def __init__(self, item: Ints) -> None:
        self.span = len(item) + 1
        self.keys = np.sort(item * self.span + np.arange(len(item)))

    def at(self, item: Ints, n: Ints) -> NDArray[np.float64]:
        start = np.searchsorted(self.keys, item * self.span)
        return (np.searchsorted(self.keys, item * self.span + n) - start).astype(np.float64)


class _Chosen:
    """Whether a user has chosen an item at or before a time on the dense clock."""

    def __init__(self, user: Ints, item: Ints, clock: Ints, items: int) -> None:
        key = user * items + item
        order = np.argsort(key)
        self.items, self.keys, self.clock = items, key[order], clock[order]

    def by(self, user: Ints, item: Ints, clock: Ints) -> NDArray[np.bool_]:
        key = user * self.items + item
        place = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        found: NDArray[np.bool_] = (self.keys[place] == key) & (self.clock[place] <= clock)
        return found
