"""Paired tests over seeds: of a difference, of equivalence, of signed ranks, and how many seeds these need.

Nothing here knows of records or tasks. ``scipy.stats`` takes a second to import and its distributions are slow to call:
it is loaded by the first test that needs it, and t tests, of which a leaderboard makes thousands, do without.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import scipy  # loads its parts when they are first used
from scipy.special import stdtr  # Student's t: P(T <= t), and its inverse

from bench.metrics import Array
from bench.statistics.intervals import mean_error, t_quantile
from bench.statistics.many import ALPHA

EXACT = 20  # up to so many pairs all 2^n sign patterns are counted
SAMPLED = 100_000  # beyond, so many patterns are drawn


@dataclass(frozen=True)
class Difference:
    """Mean of the per-seed differences a - b, half-width of its Student t interval, and the paired t-test's p.

    half_width and p are None for a single seed: one difference says nothing about its spread.
    """

    mean: float
    half_width: float | None
    p: float | None


def _differences(values_a: Sequence[float], values_b: Sequence[float]) -> list[float]:
    """a - b of each pair; 0 if all pairs are equal but for rounding, which would be a difference without any spread."""
    pairs = list(zip(values_a, values_b, strict=True))
    if all(math.isclose(a, b, rel_tol=1e-12) for a, b in pairs):
        return [0.0] * len(pairs)
    return [a - b for a, b in pairs]


def paired(values_a: Sequence[float], values_b: Sequence[float]) -> Difference:
    """The difference a - b of values that share seeds, element by element: paired t interval and two-sided p.

    Without any spread the p is 0, or 1 if the difference is 0. ValueError if the lengths differ or are 0.
    """
    centre, error = mean_error(_differences(values_a, values_b))
    if error is None:
        return Difference(centre, None, None)
    if error == 0:
        return Difference(centre, error, float(centre == 0))
    freedom = len(values_a) - 1
    return Difference(centre, t_quantile(0.95, freedom) * error, float(2 * stdtr(freedom, -abs(centre) / error)))


def tost(values_a: Sequence[float], values_b: Sequence[float], margin: float) -> float | None:
    """p of two one-sided paired t tests: is the mean of a - b, in units of the metric, within ±margin?

    The larger p of the two, P(T <= (|mean| - margin) / error); None for a single seed. Without any spread it is 0
    within the margin, else 1. Not to be equivalent is not to differ: with few seeds both may stay open. Source:
    Schuirmann, J. Pharmacokinetics and Biopharmaceutics 1987. ValueError if the lengths differ or are 0, or the margin
    is not positive.
    """
    if not margin > 0:
        raise ValueError(f"the margin of an equivalence must be positive, got {margin}")
    centre, error = mean_error(_differences(values_a, values_b))
    if error is None:
        return None
    beyond = abs(centre) - margin
    return float(stdtr(len(values_a) - 1, beyond / error)) if error else float(beyond >= 0)


# The fewest seeds with which a two-sided signed-rank test can reach p < ALPHA: with n the smallest p is 2 / 2^n.
SEEDS_NEEDED = next(n for n in count(1) if math.ldexp(2, -n) < ALPHA)


def unsupported(seeds: int) -> str | None:
    """Why so few seeds get no p from ``signed_rank``, and how many would; None if they are enough."""
    if seeds >= SEEDS_NEEDED:
        return None
    return f"{seeds} seeds cannot reach p < {f'{ALPHA:g}'.lstrip('0')}; {SEEDS_NEEDED} can"


def signed_rank(values_a: Sequence[float], values_b: Sequence[float]) -> float | None:
    """Wilcoxon's exact two-sided p for values that share seeds; pairs without a difference are left out.

    Differences that tie share their ranks, and of those ranks all 2^n sign patterns are counted; with more than 20
    pairs, 100,000 seeded patterns and the one observed. None if no p of so few seeds is below .05 (``unsupported``).
    ValueError if the lengths differ.
    """
    differences = _whole(values_a, values_b)
    if unsupported(len(differences)):
        return None
    differences = differences[differences != 0]
    size = np.abs(differences)
    if len(size) > EXACT and len(np.unique(size)) == len(size):
        return float(scipy.stats.wilcoxon(differences, method="exact").pvalue)
    return _share_of_signs(scipy.stats.rankdata(size) * np.sign(differences))  # seven times faster


def _whole(values_a: Sequence[float], values_b: Sequence[float]) -> Array:
    """Differences in units of the 12th digit of the largest value: what ties in decimals ties, and sums are exact."""
    differences = np.array(_differences(values_a, values_b), np.float64)
    largest = float(np.abs([*values_a, *values_b]).max(initial=0))
    return np.round(differences * 10.0 ** (11 - math.floor(math.log10(largest)))) if largest else differences


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
