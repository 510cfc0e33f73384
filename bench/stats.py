"""Statistics over seeds and users: intervals, paired tests, equivalence, ranks, and how many seeds a claim needs.

Nothing here knows of records or tasks. ``scipy.stats`` takes a second to import and its distributions are slow to call:
it is loaded by the first test that needs it, and t tests, of which a leaderboard makes thousands, do without.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

import numpy as np
import scipy  # loads its parts when they are first used
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit  # Student's t: P(T <= t), and its inverse

from bench.metrics import Array

EXACT = 20  # up to so many pairs all 2^n sign patterns are counted
SAMPLED = 100_000  # beyond, so many patterns are drawn

PairMetric = Callable[[Array, Array, Array, Array], float | None]  # label, prediction, group, user: ``Metric.fn``


@dataclass(frozen=True)
class Difference:
    """Mean of the per-seed differences a - b, half-width of its Student t interval, and the paired t-test's p.

    half_width and p are None for a single seed: one difference says nothing about its spread.
    """

    mean: float
    half_width: float | None
    p: float | None

    @property
    def significant(self) -> bool:
        """The interval excludes 0."""
        return self.half_width is not None and abs(self.mean) > self.half_width


@dataclass(frozen=True)
class Interval:
    """A difference a - b on all rows, and the bootstrap interval around it; low and high are None for a single user."""

    mean: float
    low: float | None
    high: float | None

    @property
    def significant(self) -> bool:
        """The interval excludes 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Equivalence:
    """Outcome of two one-sided tests of |mean of a - b| < margin at level alpha.

    half_width: of the 1 - 2 alpha interval, which lies inside ±margin exactly where p < alpha. Both are None for a
    single seed. Not to be equivalent is not to differ: with few seeds both may stay open.
    """

    mean: float
    half_width: float | None
    p: float | None
    margin: float
    alpha: float

    @property
    def equivalent(self) -> bool:
        """The difference is shown to be smaller than the margin."""
        return self.p is not None and self.p < self.alpha


@dataclass(frozen=True)
class Ranks:
    """Mean rank of each method over the blocks (1 is best, ties share), Friedman's p, Nemenyi's critical difference.

    p is None where even equal ranks in all blocks would not get below .05.
    """

    ranks: tuple[float, ...]
    p: float | None
    critical_difference: float
    blocks: int


def _mean(values: Sequence[float]) -> float:
    """Equal values have exactly themselves as mean: their sum may not divide back."""
    return float(values[0]) if min(values) == max(values) else math.fsum(values) / len(values)


def sd(values: Sequence[float]) -> float | None:
    """Standard deviation of a sample, with n - 1 in the denominator; None for a single value."""
    if len(values) < 2:
        return None
    centre = _mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def _mean_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and its standard error s / sqrt(n)."""
    if not len(values):
        raise ValueError("the mean of no values is undefined")
    spread = sd(values)
    return _mean(values), None if spread is None else spread / math.sqrt(len(values))


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float | None]:
    """Mean of n values, and the half-width t_{n-1} s / sqrt(n) of its two-sided Student t interval.

    The half-width is None for a single value. ValueError if there is no value.
    """
    centre, error = _mean_error(values)
    return centre, None if error is None else _quantile(confidence, len(values) - 1) * error


@cache
def _quantile(confidence: float, freedom: int) -> float:
    return float(stdtrit(freedom, (1 + confidence) / 2))


def _differences(values_a: Sequence[float], values_b: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(values_a, values_b, strict=True)]


def paired(values_a: Sequence[float], values_b: Sequence[float], confidence: float = 0.95) -> Difference:
    """The difference a - b of values that share seeds, element by element: paired t interval and two-sided p.

    Without any spread the p is 0, or 1 if the difference is 0. ValueError if the lengths differ or are 0.
    """
    centre, error = _mean_error(_differences(values_a, values_b))
    if error is None:
        return Difference(centre, None, None)
    if error == 0:
        return Difference(centre, error, float(centre == 0))
    freedom = len(values_a) - 1
    return Difference(centre, _quantile(confidence, freedom) * error, float(2 * stdtr(freedom, -abs(centre) / error)))


def tost(values_a: Sequence[float], values_b: Sequence[float], margin: float, *, alpha: float = 0.05) -> Equivalence:
    """Two one-sided paired t tests: is the mean of a - b, in units of the metric, within ±margin?

    The larger p of the two, P(T <= (|mean| - margin) / error). Without any spread it is 0 within the margin, else 1.
    Source: Schuirmann, J. Pharmacokinetics and Biopharmaceutics 1987. ValueError if the lengths differ or are 0, or
    the margin is not positive.
    """
    if not margin > 0:
        raise ValueError(f"the margin of an equivalence must be positive, got {margin}")
    centre, error = _mean_error(_differences(values_a, values_b))
    if error is None:
        return Equivalence(centre, None, None, margin, alpha)
    freedom, beyond = len(values_a) - 1, abs(centre) - margin
    p = float(stdtr(freedom, beyond / error)) if error else float(beyond >= 0)
    return Equivalence(centre, _quantile(1 - 2 * alpha, freedom) * error, p, margin, alpha)


def min_seeds_wilcoxon(alpha: float) -> int:
    """The fewest seeds with which a two-sided Wilcoxon signed-rank test can reach p < alpha.

    With n seeds the smallest p is 2 / 2^n (all differences of one sign). ValueError unless 0 < alpha < 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, got {alpha}")
    return next(n for n in count(1) if math.ldexp(2, -n) < alpha)


def seeds_needed(alpha: float = 0.05, comparisons: int = 1) -> int:
    """The fewest seeds with which a signed-rank or sign-flip test can reject at level alpha after Holm's correction."""
    return min_seeds_wilcoxon(alpha / comparisons)


def unsupported(seeds: int, alpha: float = 0.05, comparisons: int = 1) -> str | None:
    """Why so few seeds get no p from ``signed_rank`` and ``sign_flip``, and how many would; None if they are enough."""
    needed = seeds_needed(alpha, comparisons)
    if seeds >= needed:
        return None
    over = f" over {comparisons} comparisons" if comparisons > 1 else ""
    return f"{seeds} seeds cannot reach p < {f'{alpha:g}'.lstrip('0')}{over}; {needed} can"


def signed_rank(values_a: Sequence[float], values_b: Sequence[float], *, alpha: float = 0.05) -> float | None:
    """Wilcoxon's exact two-sided p for values that share seeds; pairs without a difference are left out.

    Differences that tie share their ranks, and the sign patterns of those ranks are counted as in ``sign_flip``. None
    if no p of so few seeds is below alpha (``unsupported``). ValueError if the lengths differ.
    """
    differences = _whole(values_a, values_b)
    if unsupported(len(differences), alpha):
        return None
    differences = differences[differences != 0]
    size = np.abs(differences)
    if len(np.unique(size)) < len(size) or not len(size):
        return _share_of_signs(scipy.stats.rankdata(size) * np.sign(differences))
    return float(scipy.stats.wilcoxon(differences, method="exact").pvalue)


def sign_flip(values_a: Sequence[float], values_b: Sequence[float], *, alpha: float = 0.05) -> float | None:
    """Exact two-sided paired permutation test of the mean: under no difference each a - b may have either sign.

    The share of the 2^n sign patterns whose mean is as far from 0 as the one observed; with more than 20 pairs, of
    100,000 seeded patterns and it. None if no p of so few seeds is below alpha (``unsupported``). ValueError if the
    lengths differ.
    """
    differences = _whole(values_a, values_b)
    return None if unsupported(len(differences), alpha) else _share_of_signs(differences)


def _whole(values_a: Sequence[float], values_b: Sequence[float]) -> Array:
    """Differences in units of 1e-12 of the largest value, as whole numbers: ties are ties, and sums are exact."""
    differences = np.array(_differences(values_a, values_b), np.float64)
    largest = np.abs([*values_a, *values_b]).max(initial=0)
    return np.round(differences / largest * 1e12) if largest else differences


def _share_of_signs(weights: Array) -> float:
    """Share of the sign patterns of the weights [n] whose sum is at least as far from 0 as that of the weights.

    Own code, since ``scipy.stats.permutation_test`` makes the 2^n patterns one by one in Python.
    """
    observed, sizes = abs(weights.sum()), np.abs(weights)
    if len(sizes) > EXACT:
        signs = np.random.default_rng(0).integers(2, size=(SAMPLED, len(sizes))) * 2 - 1
        return float((np.sum(np.abs(signs @ sizes) >= observed) + 1) / (SAMPLED + 1))
    sums = sizes[:1]  # the other sign of the first weight mirrors all sums
    for size in sizes[1:]:
        sums = np.concatenate([sums - size, sums + size])
    return float(np.mean(np.abs(sums) >= observed)) if len(sums) else 1.0


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Adjusted p of each of several tests: those below alpha reject, and the chance of any false one is below alpha.

    None (no test) stays None and isn't counted. Source: Holm, Scandinavian Journal of Statistics 1979.
    """
    tests = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    reached = 0.0
    for rank, (p, i) in enumerate(tests):
        reached = max(reached, min(1.0, p * (len(tests) - rank)))
        adjusted[i] = reached
    return adjusted


def friedman(scores: Sequence[Sequence[float]], *, larger: bool = True) -> Ranks:
    """Ranks of k >= 3 methods in N >= 2 blocks, scores [N, k], larger or smaller being better in all of them.

    Friedman's chi-square test, and Nemenyi's critical difference q_.05 sqrt(k (k + 1) / (6 N)) between two mean ranks.
    A picture rather than a test: blocks (data set x task) that share data are not independent as both assume, and with
    few blocks nearly nothing is resolved (12 methods in 6 blocks: 6.8 ranks). To test, compare with one declared
    baseline by ``paired`` or ``signed_rank`` and ``holm``. Source: Demsar, JMLR 2006. ValueError for fewer methods or
    blocks and for a score that is missing: it is never imputed.
    """
    table = np.asarray(scores, np.float64)
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] < 3 or not np.isfinite(table).all():
        raise ValueError(f"ranks need a finite score of 3 methods or more in 2 blocks or more, got shape {table.shape}")
    blocks, methods = table.shape
    ranks = scipy.stats.rankdata(-table if larger else table, axis=1)
    p: float | None = None
    if math.factorial(methods) ** (1 - blocks) < 0.05:  # the chance that all blocks agree
        tied = (ranks == ranks[0, 0]).all()  # the statistic is 0 / 0
        p = 1.0 if tied else float(scipy.stats.friedmanchisquare(*table.T).pvalue)
    critical = _nemenyi(methods) * math.sqrt(methods * (methods + 1) / (6 * blocks))
    return Ranks(tuple(ranks.mean(axis=0).tolist()), p, critical, blocks)


@cache
def _nemenyi(methods: int) -> float:
    return float(scipy.stats.studentized_range.ppf(0.95, methods, np.inf)) / math.sqrt(2)


def iqm(values: ArrayLike, axis: int | None = None) -> Any:
    """Interquartile mean: without the floor(n / 4) smallest and largest; over all values, or along an axis.

    Source: Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, NeurIPS 2021.
    """
    found = scipy.stats.trim_mean(np.asarray(values, np.float64), 0.25, axis=axis)
    return float(found) if axis is None else found


def bootstrap_interval(
    strata: Sequence[Sequence[float]],
    statistic: Callable[..., Any] | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Percentile interval of a statistic of the pooled values, each stratum (a task's seeds) resampled by itself.

    statistic: reduces an array along ``axis=`` as ``np.mean``, the default, and ``iqm`` do. None if every stratum has a
    single value; strata of a few values give intervals that are too short. ValueError if there is no value.
    """
    if not any(map(len, strata)):
        raise ValueError("the statistic of no values is undefined")
    if max(map(len, strata)) < 2:
        return None
    rng = np.random.default_rng(seed)
    drawn = [np.asarray(s, np.float64)[rng.integers(len(s), size=(resamples, len(s)))] for s in strata if len(s)]
    return _percentiles((statistic or np.mean)(np.concatenate(drawn, axis=1), axis=1), confidence)


def _percentiles(values: ArrayLike, confidence: float) -> tuple[float, float]:
    # weibull: a new draw is below the k-th of n draws with chance k / (n + 1), so few draws don't shorten the interval
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = np.quantile(np.asarray(values), tails, method="weibull")
    return float(low), float(high)


def user_bootstrap(
    metric: PairMetric,
    users: Array,
    labels: Array,
    a: Sequence[Array],
    b: Sequence[Array],
    *,
    groups: Array | None = None,
    confidence: float = 0.95,
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
    owner, size = np.unique(users, return_inverse=True, return_counts=True)[1:]
    group = np.unique(users if groups is None else groups, return_inverse=True)[1]
    rows, start = np.argsort(owner, kind="stable"), np.cumsum(size) - size

    def difference(chosen: Array, group: Array, user: Array, weights: Array) -> float | None:
        total = 0.0
        for k in np.flatnonzero(weights):
            left, right = (metric(labels[chosen], side[k][chosen], group, user) for side in (a, b))
            if left is None or right is None:
                return None
            total += weights[k] * (left - right)
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
    return Interval(centre, *(_percentiles(defined, confidence) if len(defined) > 1 else (None, None)))
