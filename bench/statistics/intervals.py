"""Means over seeds and their Student t intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

from scipy.special import stdtrit  # Student's t: P(T <= t), and its inverse


def _mean(values: Sequence[float]) -> float:
    """Equal values have exactly themselves as mean: their sum may not divide back."""
    return float(values[0]) if min(values) == max(values) else math.fsum(values) / len(values)


def sd(values: Sequence[float]) -> float | None:
    """Standard deviation of a sample, with n - 1 in the denominator; None for a single value."""
    if len(values) < 2:
        return None
    return _spread(values, _mean(values))


def _spread(values: Sequence[float], centre: float) -> float:
    return math.sqrt(math.fsum([(value - centre) ** 2 for value in values]) / (len(values) - 1))


def mean_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and its standard error s / sqrt(n)."""
    if not len(values):
        raise ValueError("the mean of no values is undefined")
    centre = _mean(values)
    return centre, None if len(values) < 2 else _spread(values, centre) / math.sqrt(len(values))


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float | None]:
    """Mean of n values, and the half-width t_{n-1} s / sqrt(n) of its two-sided Student t interval.

    The half-width is None for a single value. ValueError if there is no value.
    """
    centre, error = mean_error(values)
    return centre, None if error is None else t_quantile(confidence, len(values) - 1) * error


@cache
def t_quantile(confidence: float, freedom: int) -> float:
    """Returns the value that |t| of Student's distribution stays below with this probability."""
    return float(stdtrit(freedom, (1 + confidence) / 2))
