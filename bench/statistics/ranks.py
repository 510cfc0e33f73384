"""Ranks of methods over blocks (Demsar, JMLR 2006)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy  # loads its parts when they are first used


@dataclass(frozen=True)
class Ranks:
    """Mean rank of each method over the blocks (1 is best, ties share), Friedman's p, Nemenyi's critical difference.

    p is None where even equal ranks in all blocks would not get below .05.
    """

    ranks: tuple[float, ...]
    p: float | None
    critical_difference: float
    blocks: int


def friedman(scores: Sequence[Sequence[float]]) -> Ranks:
    """Ranks of k >= 3 methods in N >= 2 blocks, scores [N, k], larger being better in all of them.

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
    ranks = scipy.stats.rankdata(-table, axis=1)
    p: float | None = None
    if math.factorial(methods) ** (blocks - 1) > 20:  # all blocks agree by chance with less than .05
        tied = (ranks == ranks[0, 0]).all()  # the statistic is 0 / 0
        p = 1.0 if tied else float(scipy.stats.friedmanchisquare(*table.T).pvalue)
    critical = _nemenyi(methods) * math.sqrt(methods * (methods + 1) / (6 * blocks))
    return Ranks(tuple(ranks.mean(axis=0).tolist()), p, critical, blocks)


@cache
def _nemenyi(methods: int) -> float:
    return float(scipy.stats.studentized_range.ppf(0.95, methods, np.inf)) / math.sqrt(2)
