"""The interquartile mean, and the bootstrap interval of a difference in a metric over users and seeds.

Percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993) from a seeded generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # loads its parts when they are first used
from numpy.typing import ArrayLike

from bench.metrics import Array

RowMetric = Callable[[Array, Array, Array, Array], float | None]  # labels, predictions, groups, users -> value


@dataclass(frozen=True)
class Interval:
    """A difference a - b on all rows, and the bootstrap interval around it; low and high are None for a single user."""

    mean: float
    low: float | None
    high: float | None


def iqm(values: ArrayLike, axis: int | None = None) -> Any:
    """Interquartile mean: without the floor(n / 4) smallest and largest; over all values, or along an axis.

    Source: Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, NeurIPS 2021.
    """
    found = scipy.stats.trim_mean(np.asarray(values, np.float64), 0.25, axis=axis)
    return float(found) if axis is None else found


def percentiles(values: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrap draws."""
    # weibull: a new draw is below the k-th of n draws with chance k / (n + 1), so few draws don't shorten the interval
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = np.quantile(np.asarray(values), tails, method="weibull")
    return float(low), float(high)


def user_bootstrap(
    metric: RowMetric,
    users: Array,
    labels: Array,
    a: Sequence[Array],
    b: Sequence[Array],
    *,
    groups: Array | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Mean over seeds of the difference in a metric between predictions a and b, and its interval over users and seeds.

    Users are drawn with all their rows, since rows of one user are not independent, and seeds by themselves; a user or
    group drawn twice counts as two. metric: (labels, predictions, groups, users) -> value, as ``Metric.fn``, called for
    each draw and prediction. users, labels, groups: [N]; groups (impressions) lie within users, and are the users where
    not given. a, b: predictions [N] or [N, C] of each seed, seeds in the same order; one is enough. Draws in which the
    metric is undefined are left out. With several but few seeds the interval is too short: 3 show 2/3 of their
    variance. Source: Owen, The Pigeonhole Bootstrap, Annals of Applied Statistics 2007. ValueError if seeds or rows
    differ, or the metric is undefined on all rows.
    """
    if not len(a) == len(b) > 0 or any(np.shape(side)[:1] != np.shape(labels) for side in (*a, *b)):
        raise ValueError("a and b must hold, for each of the same seeds, a prediction for each label")
    pairs = list(zip(a, b, strict=True))
    owner, size = np.unique(users, return_inverse=True, return_counts=True)[1:]
    group = np.unique(users if groups is None else groups, return_inverse=True)[1]
    rows, start = np.argsort(owner, kind="stable"), np.cumsum(size) - size

    def difference(chosen: Array, group: Array, user: Array, weights: Array) -> float | None:
        total = 0.0
        for sides, weight in zip(pairs, weights, strict=True):
            if not weight:
                continue
            left, right = (metric(labels[chosen], side[chosen], group, user) for side in sides)
            if left is None or right is None:
                return None
            total += weight * (left - right)
        return float(total / weights.sum())

    centre = difference(np.arange(len(owner)), group, owner, np.ones(len(a)))
    if centre is None:
        raise ValueError("the metric is undefined on these rows")
    if len(size) < 2:
        return Interval(centre, None, None)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        drawn = rng.integers(len(size), size=len(size))
        length = size[drawn]
        user = np.repeat(np.arange(len(size)), length)
        chosen = rows[np.arange(len(user)) + np.repeat(start[drawn] - np.cumsum(length) + length, length)]
        weights = np.bincount(rng.integers(len(a), size=len(a)), minlength=len(a))
        found.append(difference(chosen, user * len(owner) + group[chosen], user, weights))
    defined = [value for value in found if value is not None]
    return Interval(centre, *(percentiles(defined) if len(defined) > 1 else (None, None)))
