"""Metrics as pure functions of arrays of N rows, in float64, without a Python loop over rows, groups or users.

Every function takes the rows where the label is defined. Group and user ids are integers in any order. What depends
on an order is the *expected value under random tie breaking*, so that a constant prediction scores exactly chance and
the order of the rows never matters. A binary label is positive where it is > 0. ``None`` means undefined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

Array = NDArray[Any]

EPSILON = 1e-7  # probabilities are clipped to [EPSILON, 1 - EPSILON] before a logarithm
BINS = 15


@dataclass(frozen=True)
class _Ties:
    """The tie blocks of a ranking: rows of one group with one score, ordered by group, then from the top down."""

    block: Array  # [N] the block of each row
    group: Array  # [blocks] index of the block's group, 0 .. groups - 1
    above: Array  # [blocks] rows of the group that are ranked above the block
    size: Array  # [blocks] rows in the block
    rows: Array  # [groups] rows in the group

    def per_block(self, value: Array) -> Array:
        """Sums of a row value [N] over each block."""
        return np.bincount(self.block, value, len(self.size))

    def per_group(self, value: Array) -> Array:
        """Sums of a block value [blocks] over each group."""
        return np.bincount(self.group, value, len(self.rows))


def _ties(score: Array, group: Array) -> _Ties:
    _, owner, rows = np.unique(group, return_inverse=True, return_counts=True)
    values, rank = np.unique(np.negative(score, dtype=np.float64), return_inverse=True)
    key, block, size = np.unique(owner * len(values) + rank, return_inverse=True, return_counts=True)
    of_block = key // max(len(values), 1)
    above = np.cumsum(size) - size - (np.cumsum(rows) - rows)[of_block]
    return _Ties(block, of_block, above, size, rows)


def _pairs(positive: Array, score: Array, group: Array) -> tuple[Array, Array, Array]:
    """For each group: the (positive, negative) pairs that are ordered rightly (a tie counts 1/2), all such pairs, rows.

    Mann-Whitney: the positives' mid-ranks from the top sum to P (P + 1) / 2 plus the pairs that are ordered wrongly.
    """
    ties = _ties(score, group)
    in_block = ties.per_block(positive)
    positives = ties.per_group(in_block)
    wrong = ties.per_group(in_block * (ties.above + (ties.size + 1) / 2)) - positives * (positives + 1) / 2
    pairs = positives * (ties.rows - positives)
    return pairs - wrong, pairs, ties.rows


def _mean(values: Array) -> float | None:
    return float(values.mean()) if len(values) else None


def auc(label: Array, score: Array) -> float | None:
    """Area under the ROC curve: P(score of a positive > score of a negative), ties 1/2. None if there is one class."""
    right, pairs, _ = _pairs(label > 0, score, np.zeros(len(label), np.int64))
    return float(right.sum() / pairs.sum()) if pairs.any() else None


def gauc(label: Array, score: Array, user: Array) -> float | None:
    """Group AUC: sum_u n_u AUC_u / sum_u n_u over the users with both classes, n_u being the user's rows.

    None if there is no such user. Source: Zhu et al., Optimized Cost per Click in Taobao Display Advertising, KDD 2017.
    """
    right, pairs, rows = _pairs(label > 0, score, user)
    counted = pairs > 0
    return float(np.average(right[counted] / pairs[counted], weights=rows[counted])) if counted.any() else None


def xauc(label: Array, value: Array) -> float | None:
    """Share of the pairs with different labels that the predictions order alike; tied predictions count 1/2.

    Exact, in O(n log^2 n). Two different labels, as dense ranks in binary, have a highest bit at which they differ.
    So each pair is counted once if, bit by bit, rows with the same higher bits form a group and the bit is a binary
    label: the sum of a few grouped AUCs. None if all labels are equal. Source: Zhan et al., Deconfounding Duration
    Bias in Watch-time Prediction, KDD 2022.
    """
    rank = np.unique(label, return_inverse=True)[1]
    right = pairs = 0.0
    for bit in range(int(rank.max(initial=0)).bit_length()):
        ordered, compared, _ = _pairs(rank >> bit & 1, value, rank >> bit + 1)
        right += ordered.sum()
        pairs += compared.sum()
    return float(right / pairs) if pairs else None


def log_loss(label: Array, probability: Array) -> float:
    """Mean binary cross-entropy in nats, at least one row; probabilities are clipped to [1e-7, 1 - 1e-7]."""
    p = np.clip(probability, EPSILON, 1 - EPSILON)
    return float(-np.mean(label * np.log(p) + (1 - label) * np.log1p(-p)))


def ece(label: Array, probability: Array) -> float:
    """Expected calibration error: mean over 15 bins, by their rows, of |mean label - mean probability|.

    Bins have equal mass: in order of probability, row i of n is in bin floor(15 i / n). A bin may end inside a run of
    equal probabilities; rows of such a run carry its mean label, so it does not matter which of them go where.
    Source: Naeini et al., AAAI 2015; equal mass: Nixon et al., CVPR Workshops 2019.
    """
    values, run, size = np.unique(probability, return_inverse=True, return_counts=True)
    gap = np.repeat(np.bincount(run, label) / size - values, size)
    bins = np.arange(len(gap)) * BINS // len(gap)
    return float(np.abs(np.bincount(bins, gap)).sum() / len(gap))


def rmse(label: Array, value: Array) -> float:
    """Root of the mean squared error, in units of the label; at least one row."""
    return float(np.sqrt(np.mean(np.square(label - value))))


def mae(label: Array, value: Array) -> float:
    """Mean absolute error, in units of the label; at least one row."""
    return float(np.mean(np.abs(label - value)))


def top_k(label: Array, probability: Array, k: int) -> float:
    """Share of rows whose class (label: index [N]) is among the k most probable of probability [N, C]."""
    own = np.take_along_axis(probability, label.astype(np.int64)[:, None], 1)
    places = k - (probability > own).sum(1)
    return float(np.mean(np.clip(places / (probability == own).sum(1), 0, 1)))


def log_loss_multiclass(label: Array, probability: Array) -> float:
    """Mean cross-entropy in nats of class indices [N] under probability [N, C], clipped to [1e-7, 1 - 1e-7]."""
    own = np.take_along_axis(probability, label.astype(np.int64)[:, None], 1)
    return float(-np.mean(np.log(np.clip(own, EPSILON, 1 - EPSILON))))


def ndcg(gain: Array, score: Array, group: Array, k: int = 10) -> float | None:
    """Normalised discounted cumulative gain at k: linear gain >= 0, discount 1 / log2(1 + rank), ideal cut at k too.

    Mean over the groups whose gains are not all equal: in the others nothing can be ranked wrong, they say nothing.
    None if there is no such group; ValueError for a negative gain. Sources: Jarvelin and Kekalainen, TOIS 2002; ties
    share their discounts: McSherry and Najork, ECIR 2008.
    """
    if gain.min(initial=0) < 0:
        raise ValueError(f"nDCG needs gains >= 0, found {gain.min()}")
    achieved, ideal = _ties(score, group), _ties(gain, group)
    counted = np.bincount(ideal.group) > 1
    return _mean(_dcg(gain, achieved, k)[counted] / _dcg(gain, ideal, k)[counted])


def _dcg(gain: Array, ties: _Ties, k: int) -> Array:
    upto = np.append(0, np.cumsum(1 / np.log2(np.arange(k) + 2)))  # sum of the discounts of ranks 1 .. r
    discount = upto[np.minimum(ties.above + ties.size, k)] - upto[np.minimum(ties.above, k)]
    return ties.per_group(ties.per_block(gain) / ties.size * discount)


def mrr(label: Array, score: Array, group: Array) -> float | None:
    """Mean reciprocal rank as in MIND: the mean of 1 / rank over *all* positives of a group, not of the first alone.

    Mean over the groups with a positive and a negative; None if there is none. With several positives the best value
    is below 1. Source: Wu et al., MIND, ACL 2020, and its evaluation script.
    """
    ties = _ties(score, group)
    upto = np.append(0, np.cumsum(1 / np.arange(1, ties.rows.max(initial=0) + 1)))  # sum of 1 / rank of ranks 1 .. r
    reciprocal = (upto[ties.above + ties.size] - upto[ties.above]) / ties.size
    in_block = ties.per_block(label > 0)
    positives = ties.per_group(in_block)
    counted = (positives > 0) & (positives < ties.rows)
    return _mean(ties.per_group(in_block * reciprocal)[counted] / positives[counted])


def hit_rate(label: Array, score: Array, group: Array, k: int) -> float | None:
    """P(at least one positive among a group's k highest scores), mean over the groups with a positive and a negative.

    A tie block of s rows, n of them negative, of which m are in the top k, has no hit with probability
    C(n, m) / C(s, m) (hypergeometric). None if there is no such group.
    """
    ties = _ties(score, group)
    in_block = ties.per_block(label > 0)
    positives = ties.per_group(in_block)
    counted = (positives > 0) & (positives < ties.rows)
    drawn = np.clip(k - ties.above, 0, ties.size)
    negative = ties.size - in_block
    # gammaln is +inf at 0, -1, ...: more draws than negatives are a sure hit, log P(miss) = -inf
    miss = gammaln(negative + 1) - gammaln(negative - drawn + 1) - gammaln(ties.size + 1)
    miss += gammaln(ties.size - drawn + 1)
    return _mean(-np.expm1(ties.per_group(miss)[counted]))


@dataclass(frozen=True)
class Metric:
    """A metric. ``fn``: (label [N], prediction [N] or [N, C], group [N], user [N]) -> value, None where undefined.

    larger: larger is better. perfect: value of a perfect prediction (of ``mrr``: with one positive in each group).
    """

    fn: Callable[[Array, Array, Array, Array], float | None]
    larger: bool
    perfect: float


METRICS: dict[str, Metric] = {
    "auc": Metric(lambda y, p, group, user: auc(y, p), True, 1.0),
    "gauc": Metric(lambda y, p, group, user: gauc(y, p, user), True, 1.0),
    "log_loss": Metric(lambda y, p, group, user: log_loss(y, p), False, 0.0),
    "ece": Metric(lambda y, p, group, user: ece(y, p), False, 0.0),
    "rmse": Metric(lambda y, p, group, user: rmse(y, p), False, 0.0),
    "mae": Metric(lambda y, p, group, user: mae(y, p), False, 0.0),
    "xauc": Metric(lambda y, p, group, user: xauc(y, p), True, 1.0),
    "top1": Metric(lambda y, p, group, user: top_k(y, p, 1), True, 1.0),
    "top3": Metric(lambda y, p, group, user: top_k(y, p, 3), True, 1.0),
    "log_loss_multiclass": Metric(lambda y, p, group, user: log_loss_multiclass(y, p), False, 0.0),
    "ndcg@5": Metric(lambda y, p, group, user: ndcg(y, p, group, 5), True, 1.0),
    "ndcg@10": Metric(lambda y, p, group, user: ndcg(y, p, group, 10), True, 1.0),
    "mrr": Metric(lambda y, p, group, user: mrr(y, p, group), True, 1.0),
    "hr@1": Metric(lambda y, p, group, user: hit_rate(y, p, group, 1), True, 1.0),
    "hr@3": Metric(lambda y, p, group, user: hit_rate(y, p, group, 3), True, 1.0),
}


def compute(name: str, label: Array, prediction: Array, group: Array, user: Array) -> float | None:
    """The metric of that name; None where it is undefined or there are no rows.

    label, group, user: [N]; prediction: [N], or [N, C] for class probabilities. Raises KeyError for an unknown name,
    ValueError for shapes that do not match and for values that are not finite: a diverged run is never scored.
    """
    if name not in METRICS:
        raise KeyError(f"unknown metric '{name}'; known: {', '.join(METRICS)}")
    label, prediction = np.asarray(label, np.float64), np.asarray(prediction, np.float64)
    group, user = np.asarray(group), np.asarray(user)
    # [N, 1] is refused because it would broadcast against [N]
    if not label.shape == prediction.shape[:1] == group.shape == user.shape or prediction.shape[1:] == (1,):
        shapes = f"label {label.shape}, prediction {prediction.shape}, group {group.shape}, user {user.shape}"
        raise ValueError(f"{name}: shapes do not match: {shapes}")
    for what, values in (("labels", label), ("predictions", prediction)):
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise ValueError(f"{name}: {what} are not finite ({bad} of {values.size} values)")
    return METRICS[name].fn(label, prediction, group, user) if len(label) else None


def skill(name: str, value: float, chance: float) -> float:
    """(value - chance) / (perfect - chance): 0 is chance, 1 is perfect; 0 where chance is perfect already."""
    perfect = METRICS[name].perfect
    return (value - chance) / (perfect - chance) if perfect != chance else 0.0
