"""Statistics over seeds: intervals, paired differences, and how many seeds a claim needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from statistics import mean, stdev  # exact: equal values have themselves as mean, and no spread at all

from scipy.stats import t as student


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


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float | None]:
    """Mean of n values, and the half-width t_{n-1} s / sqrt(n) of its two-sided Student t interval.

    The half-width is None for a single value. ValueError if there is no value.
    """
    if not values:
        raise ValueError("the mean of no values is undefined")
    n, centre = len(values), mean(values)
    if n < 2:
        return centre, None
    return centre, float(student.ppf((1 + confidence) / 2, n - 1)) * stdev(values) / math.sqrt(n)


def paired(values_a: Sequence[float], values_b: Sequence[float], confidence: float = 0.95) -> Difference:
    """The difference a - b of values that share seeds, element by element: paired t interval and two-sided p.

    Without any spread the p is 0, or 1 if the difference is 0. ValueError if the lengths differ or are 0.
    """
    differences = [a - b for a, b in zip(values_a, values_b, strict=True)]
    centre, half_width = mean_interval(differences, confidence)
    if half_width is None:
        return Difference(centre, None, None)
    if half_width == 0:
        return Difference(centre, half_width, float(centre == 0))
    error = stdev(differences) / math.sqrt(len(differences))
    return Difference(centre, half_width, float(2 * student.sf(abs(centre) / error, len(differences) - 1)))


def min_seeds_wilcoxon(alpha: float) -> int:
    """The fewest seeds with which a two-sided Wilcoxon signed-rank test can reach p < alpha.

    With n seeds the smallest p is 2 / 2^n (all differences of one sign). ValueError unless 0 < alpha < 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, got {alpha}")
    return next(n for n in count(1) if math.ldexp(2, -n) < alpha)
