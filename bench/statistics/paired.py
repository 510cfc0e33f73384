"""Statistics over seeds: intervals, paired tests, equivalence, ranks, and how many seeds a claim needs.

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

    @property
    def significant(self) -> bool:
        """The interval excludes 0."""
        return self.half_width is not None and abs(self.mean) > self.half_width


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


def _differences(values_a: Sequence[float], values_b: Sequence[float]) -> list[float]:
    """a - b of each pair; 0 if all pairs are equal but for rounding, which would be a difference without any spread."""
    pairs = list(zip(values_a, values_b, strict=True))
    if all(math.isclose(a, b, rel_tol=1e-12) for a, b in pairs):
        return [0.0] * len(pairs)
    return [a - b for a, b in pairs]


def paired(values_a: Sequence[float], values_b: Sequence[float], confidence: float = 0.95) -> Difference:
    """The difference a - b of values that share seeds, element by element: paired t interval and two-sided p.

    Without any spread the p is 0, or 1 if the difference is 0. ValueError if the lengths differ or are 0.
    """
    centre, error = mean_error(_differences(values_a, values_b))
    if error is None:
        return Difference(centre, None, None)
    if error == 0:
        return Difference(centre, error, float(centre == 0))
    freedom = len(values_a) - 1
    return Difference(centre, t_quantile(confidence, freedom) * error, float(2 * stdtr(freedom, -abs(centre) / error)))


def tost(values_a: Sequence[float], values_b: Sequence[float], margin: float, *, alpha: float = 0.05) -> Equivalence:
    """Two one-sided paired t tests: is the mean of a - b, in units of the metric, within ±margin?

    The larger p of the two, P(T <= (|mean| - margin) / error). Without any spread it is 0 within the margin, else 1.
    Source: Schuirmann, J. Pharmacokinetics and Biopharmaceutics 1987. ValueError if the lengths differ or are 0, or
    the margin is not positive.
    """
    if not margin > 0:
        raise ValueError(f"the margin of an equivalence must be positive, got {margin}")
    centre, error = mean_error(_differences(values_a, values_b))
    if error is None:
        return Equivalence(centre, None, None, margin, alpha)
    freedom, beyond = len(values_a) - 1, abs(centre) - margin
    p = float(stdtr(freedom, beyond / error)) if error else float(beyond >= 0)
    return Equivalence(centre, t_quantile(1 - 2 * alpha, freedom) * error, p, margin, alpha)


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
    if len(size) > EXACT and len(np.unique(size)) == len(size):
        return float(scipy.stats.wilcoxon(differences, method="exact").pvalue)
    return _share_of_signs(scipy.stats.rankdata(size) * np.sign(differences))  # seven times faster


def sign_flip(values_a: Sequence[float], values_b: Sequence[float], *, alpha: float = 0.05) -> float | None:
    """Exact two-sided paired permutation test of the mean: under no difference each a - b may have either sign.

    The share of the 2^n sign patterns whose mean is as far from 0 as the one observed; with more than 20 pairs, of
    100,000 seeded patterns and it. None if no p of so few seeds is below alpha (``unsupported``). ValueError if the
    lengths differ.
    """
    differences = _whole(values_a, values_b)
    return None if unsupported(len(differences), alpha) else _share_of_signs(differences)


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
