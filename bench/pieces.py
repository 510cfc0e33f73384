"""Metrics of more rows than memory should hold, from pieces of them: whole groups, in any order.

``gauc``, ``ece`` and ``xauc`` are not here: they need all rows at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from bench import metrics
from bench.metrics import Array

HALF = 0x3F000000 >> 9  # the bin of 1/2: its bits as float32, without the last 9


@dataclass
class AucBins:
    """AUC of any number of rows in 32 MB: counts of positives and negatives in bins of the score, piece after piece.

    Scores are probabilities, as float32. A bin holds those that share the exponent and the first 14 bits of the
    mantissa, of p below 1/2 and of 1 - p above. Pairs in two bins are counted exactly; those within a bin count 1/2,
    and each is off by at most 1/2.
    """

    positives: Array = field(default_factory=lambda: np.zeros(2 * HALF + 1, np.uint32))
    negatives: Array = field(default_factory=lambda: np.zeros(2 * HALF + 1, np.uint32))

    def add(self, label: Array, score: Array, group: Array | None = None) -> None:
        """label, score: [n]; groups do not matter. Raises ValueError for a score that is no probability."""
        score = score.astype(np.float32, copy=False)
        if not ((score >= 0) & (score <= 1)).all():
            raise ValueError("AUC in bins needs scores from 0 to 1")
        upper = score >= 0.5
        place = np.abs(np.where(upper, 1 - score, score)).view(np.int32) >> 9
        place = np.where(upper, 2 * HALF - place, place)
        positive = label > 0
        self.positives += np.bincount(place[positive], minlength=2 * HALF + 1).astype(np.uint32)
        self.negatives += np.bincount(place[~positive], minlength=2 * HALF + 1).astype(np.uint32)

    def interval(self) -> tuple[float, float] | None:
        """The least and the largest value that AUC can have; None if there is one class."""
        positives, negatives = self.positives.astype(np.float64), self.negatives.astype(np.float64)
        pairs = positives.sum() * negatives.sum()
        if not pairs:
            return None
        surely = (positives * (np.cumsum(negatives) - negatives)).sum()
        return float(surely / pairs), float((surely + (positives * negatives).sum()) / pairs)

    def value(self) -> float | None:
        """The middle of the interval."""
        found = self.interval()
        return None if found is None else (found[0] + found[1]) / 2


@dataclass
class Mean:
    """A metric that is the mean of a value of each row, or of each group that counts, from pieces of whole groups."""

    each: Callable[[Array, Array, Array], Array]  # (label, prediction, group) -> values
    end: Callable[[float], float] = float
    total: float = 0.0
    count: int = 0

    def add(self, label: Array, prediction: Array, group: Array) -> None:
        """label, group: [n]; prediction: [n] or [n, C]."""
        values = self.each(label, prediction, group)
        self.total, self.count = self.total + float(values.sum()), self.count + values.size

    def value(self) -> float | None:
        """None if nothing counts."""
        return self.end(self.total / self.count) if self.count else None


def _of_rows(each: Callable[[Array, Array], Array], end: Callable[[float], float] = float) -> Callable[[], Mean]:
    return lambda: Mean(lambda label, prediction, group: each(label, prediction), end)


IN_PIECES: dict[str, Callable[[], AucBins | Mean]] = {
    "auc": AucBins,
    "log_loss": _of_rows(metrics.log_losses),
    "rmse": _of_rows(metrics.squares, math.sqrt),
    "mae": _of_rows(metrics.distances),
    "top1": _of_rows(partial(metrics.hits, k=1)),
    "top3": _of_rows(partial(metrics.hits, k=3)),
    "log_loss_multiclass": _of_rows(metrics.class_log_losses),
    "ndcg@5": lambda: Mean(partial(metrics.ndcgs, k=5)),
    "ndcg@10": lambda: Mean(partial(metrics.ndcgs, k=10)),
    "mrr": lambda: Mean(metrics.mrrs),
    "hr@1": lambda: Mean(partial(metrics.hit_rates, k=1)),
    "hr@3": lambda: Mean(partial(metrics.hit_rates, k=3)),
}
