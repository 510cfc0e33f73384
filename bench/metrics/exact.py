"""Metrics as pure functions of arrays of N rows, summed in float64, without a Python loop over rows, groups or users.

Every function takes the rows where the label is defined. Group and user ids are integers in any order. What depends
on an order is the *expected value under random tie breaking*, so that a constant prediction scores exactly chance and
the order of the rows never matters. A binary label is positive where it is > 0. ``None`` means undefined.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from bench.errors import Diverged

Array = NDArray[Any]

EPSILON = 1e-7  # probabilities are clipped to [EPSILON, 1 - EPSILON] before a logarithm
BINS = 15


@dataclass(frozen=True)
class Metric:
    """A metric. ``fn``: (label [N], prediction [N] or [N, C], group [N], user [N]) -> value, None where undefined.

    larger: larger is better. perfect: value of a perfect prediction (of ``mrr``: with one positive in each group).
    each: for a mean, (label, prediction, group) -> the values of rows or groups. end: from their mean to the metric.
    """

    fn: Callable[[Array, Array, Array, Array], float | None]
    larger: bool
    perfect: float
    each: Callable[[Array, Array, Array], Array] | None = None
    end: Callable[[float], float] = float


METRICS: dict[str, Metric] = {}
P = ParamSpec("P")


def metric(
    *names: str, larger: bool = True, perfect: float = 1.0, mean: bool = True, end: Callable[[float], float] = float
) -> Callable[[Callable[P, Any]], Callable[P, float | None]]:
    """Lists a function as the metric of these names; a number at the end of a name is its ``k``.

    The function takes label and prediction, and what it names of ``group``, ``user`` and ``k``. mean: it gives a value
    of each row, or each group that counts; its name then stands for their mean, or None if there are no values.
    """

    def listed(each: Callable[P, Any]) -> Callable[P, float | None]:
        @wraps(each)
        def of_all(*args: P.args, **kwargs: P.kwargs) -> float | None:
            values = each(*args, **kwargs)
            return end(values.mean()) if len(values) else None

        fn = of_all if mean else each
        for name in names:
            own = _given(each, name) if mean else None
            METRICS[name] = Metric(_given(fn, name), larger, perfect, own, end)
        return fn

    return listed


def _given(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    wanted = [*signature(function).parameters][2:]
    k = int("0" + name[len(name.rstrip("0123456789")) :])

    def call(label: Array, prediction: Array, group: Array, user: Array | None = None) -> Any:
        known = {"group": group, "user": user, "k": k}
        return function(label, prediction, *(known[word] for word in wanted))

    return call


@dataclass(frozen=True)
class _Ties:
    """The tie blocks of a ranking: rows of one group with one score, ordered by group, then from the top down."""

    group: Array  # [blocks] index of the block's group, 0 .. groups - 1
    above: Array  # [blocks] rows of the group that are ranked above the block
    size: Array  # [blocks] rows in the block
    value: Array  # [blocks] sum of the rows' values
    rows: Array  # [groups] rows in the group

    def per_group(self, value: Array) -> Array:
        """Sums of a block value [blocks] over each group."""
        return np.bincount(self.group, value, len(self.rows))


def _ties(value: Array, score: Array, group: Array | None = None, *, every: bool = False) -> _Ties:
    """Ranks rows with a value >= 0 by score, within groups if given.

    Blocks without a value are left out unless ``every``: to most metrics they add 0.
    """
    first, new, value = _packed(value, score, group) or _columns(value, score, group)
    kept = np.arange(len(value)) if every else np.flatnonzero(value != 0)
    opens = new[kept]
    index = np.flatnonzero(opens)
    start, end = kept[index], kept[np.append(index, len(kept))[1:] - 1] + 1
    longer = np.flatnonzero(~new[end])  # rows without a value follow
    if len(longer):
        bounds = np.flatnonzero(new)
        end[longer] = bounds[np.searchsorted(bounds, end[longer])]
    blocks = np.diff(np.searchsorted(start, first), append=len(start))
    return _Ties(
        group=np.repeat(np.arange(len(first)), blocks),
        above=start - np.repeat(first, blocks),
        size=end - start,
        value=np.bincount(np.cumsum(opens) - 1, value[kept], len(start)),
        rows=np.diff(first, append=len(value)),
    )


def _packed(value: Array, score: Array, group: Array | None) -> tuple[Array, Array, Array] | None:
    """Ranks rows by one sort of numbers that hold a row's group, score and value in their bits.

    Returns the first row of each group [groups], whether a row opens a block [N + 1], with True after the last, and
    the values [N], all in ranked order: by group, then from the top down, within a block the rows without a value
    last. None if there are no rows, 64 bits are too few, groups or values are not whole or scores not exact in float32.
    """
    if not len(score) or (group is not None and group.dtype.kind not in "iu") or not float(value.max()) < 2**32:
        return None
    with np.errstate(over="ignore"):
        narrow = score.astype(np.float32, copy=False)
    whole = value.astype(np.uint8 if value.dtype == bool else np.uint32)
    if not ((narrow == score).all() and (whole == value).all()):
        return None
    code = (0 - narrow).view(np.int32)  # 0 - x: the highest score comes first, and -0.0 is 0.0
    negative = code >> 31
    negative &= 0x7FFFFFFF  # in place here and below: fresh memory costs as much as the arithmetic
    code ^= negative  # the bits of a float32 as a number of the same order
    high = whole.max()
    spare = np.subtract(high, whole)
    columns = [_offsets(c, out) for c, out in ((group, None), (code, code), (spare, spare)) if c is not None]
    bits = [b for _, b in columns]
    if sum(bits) > 64:
        return None
    key = columns[0][0].astype(f"u{4 if sum(bits) <= 32 else 8}", copy=False)
    for offset, width in columns[1:]:
        key <<= width
        key |= offset
    ranked, scratch = _sorted(key), key
    first = np.zeros(1, np.int64)
    if group is not None:
        first = np.flatnonzero(_changes(np.right_shift(ranked, bits[-2] + bits[-1], out=scratch))[:-1])
    new = _changes(np.right_shift(ranked, bits[-1], out=scratch))
    np.bitwise_and(ranked, (1 << bits[-1]) - 1, out=scratch)
    return first, new, np.subtract(high, scratch, out=scratch)


def _offsets(whole: Array, out: Array | None) -> tuple[Array, int]:
    """Distances from the least of some whole numbers, and the bits that they take. out: where they may be put."""
    low, high = int(whole.min()), int(whole.max())
    return np.subtract(whole, low, out=out).view(f"u{whole.itemsize}"), (high - low).bit_length()


def _changes(*columns: Array) -> Array:
    """Whether a row differs from the one before it in any column, [N + 1]; the first and the end do."""
    result = np.ones(len(columns[0]) + 1, bool)
    inner = result[1:-1]
    np.not_equal(columns[0][1:], columns[0][:-1], out=inner)
    for column in columns[1:]:
        inner |= column[1:] != column[:-1]
    return result


def _sorted(values: Array) -> Array:
    from polars import Series  # what only asks for a metric's name does without

    return Series(values).sort(multithreaded=False).to_numpy()  # np.sort is as fast on some processors only


def _columns(value: Array, score: Array, group: Array | None) -> tuple[Array, Array, Array]:
    """Ranks rows as ``_packed`` does, for any numbers: by a sort of columns, five to ten times slower."""
    group = np.zeros(len(score), bool) if group is None else group
    score = np.negative(score, dtype=np.float64)
    order = np.lexsort((value == 0, score, group))
    group, score = group[order], score[order]
    return np.flatnonzero(_changes(group)[:-1]), _changes(group, score), value[order]


def _pairs(positive: Array, score: Array, group: Array | None = None) -> tuple[Array, Array, Array]:
    """For each group: the (positive, negative) pairs that are ordered rightly (a tie counts 1/2), all such pairs, rows.

    In ranked order the rows in front of a positive are the positives there, which P of them count P (P - 1) / 2 times,
    and the negatives above it. Only blocks of several rows can hold pairs that are tied.
    """
    first, new, value = _packed(positive, score, group) or _columns(positive, score, group)
    place = np.flatnonzero(value != 0)  # of the positives
    rows = np.diff(first, append=len(value))
    bounds = np.append(np.searchsorted(place, first), len(place))
    positives = np.diff(bounds)
    above = np.diff(np.append(0, np.cumsum(place))[bounds]) - positives * first
    tied = np.flatnonzero(~new)  # rows that do not open a block: a run of them is a block without its first row
    runs = np.flatnonzero(np.diff(tied, prepend=-1) > 1)
    start, end = tied[runs] - 1, tied[np.append(runs, len(tied))[1:] - 1] + 1
    within = np.searchsorted(place, end) - np.searchsorted(place, start)
    owner = np.searchsorted(first, start, "right") - 1
    ties = np.bincount(owner, within * (end - start - within), len(first))
    pairs = positives * (rows - positives)
    return pairs - (above - positives * (positives - 1) / 2) - ties / 2, pairs, rows


@metric("auc", mean=False)
def auc(label: Array, score: Array) -> float | None:
    """Area under the ROC curve: P(score of a positive > score of a negative), ties 1/2. None if there is one class."""
    right, pairs, _ = _pairs(label > 0, score)
    return float(right.sum() / pairs.sum()) if pairs.any() else None


def auc_users(label: Array, score: Array, user: Array) -> tuple[Array, Array]:
    """AUC and rows of each user with both classes."""
    right, pairs, rows = _pairs(label > 0, score, user)
    counted = pairs > 0
    return right[counted] / pairs[counted], rows[counted]


@metric("gauc", mean=False)
def gauc(label: Array, score: Array, user: Array) -> float | None:
    """Group AUC: sum_u n_u AUC_u / sum_u n_u over the users with both classes, n_u being the user's rows.

    None if there is no such user. Source: Zhu et al., Optimized Cost per Click in Taobao Display Advertising, KDD 2017.
    """
    values, rows = auc_users(label, score, user)
    return float(np.average(values, weights=rows)) if len(values) else None


@metric("xauc", mean=False)
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
        ordered, compared, _ = _pairs((rank >> bit & 1).astype(bool), value, rank >> bit + 1)
        right += ordered.sum()
        pairs += compared.sum()
    return float(right / pairs) if pairs else None


@metric("log_loss", larger=False, perfect=0.0)
def log_loss(label: Array, probability: Array) -> Array:
    """Binary cross-entropy in nats, mean over rows; probabilities are clipped to [1e-7, 1 - 1e-7]."""
    label = np.asarray(label, np.float64)
    p = np.clip(np.asarray(probability, np.float64), EPSILON, 1 - EPSILON)
    losses: Array = -(label * np.log(p) + (1 - label) * np.log1p(-p))
    return losses


@metric("ece", larger=False, perfect=0.0, mean=False)
def ece(label: Array, probability: Array) -> float:
    """Expected calibration error: mean over 15 bins, by their rows, of |mean label - mean probability|.

    Bins have equal mass: in order of probability, row i of n is in bin floor(15 i / n). A bin may end inside a run of
    equal probabilities; rows of such a run carry its mean label, so it does not matter which of them go where.
    Source: Naeini et al., AAAI 2015; equal mass: Nixon et al., CVPR Workshops 2019.
    """
    runs = _ties(label, probability, every=True)
    gap = np.repeat(runs.value / runs.size, runs.size)[::-1] - _sorted(probability)
    bins = np.arange(len(gap)) * BINS // len(gap)
    return float(np.abs(np.bincount(bins, gap)).sum() / len(gap))


@metric("rmse", larger=False, perfect=0.0, end=math.sqrt)
def rmse(label: Array, value: Array) -> Array:
    """Root of the mean squared error over rows, in units of the label."""
    return np.square(np.subtract(label, value, dtype=np.float64))


@metric("mae", larger=False, perfect=0.0)
def mae(label: Array, value: Array) -> Array:
    """Absolute error in units of the label, mean over rows."""
    return np.abs(np.subtract(label, value, dtype=np.float64))


@metric("top1", "top3")
def top_k(label: Array, probability: Array, k: int) -> Array:
    """Share of rows whose class (label: index [N]) is among the k most probable of probability [N, C]; with ties, the
    probability of that."""
    own = np.take_along_axis(probability, label.astype(np.int64)[:, None], 1)
    places = k - (probability > own).sum(1)
    found: Array = np.clip(places / (probability == own).sum(1), 0, 1)
    return found


@metric("log_loss_multiclass", larger=False, perfect=0.0)
def log_loss_multiclass(label: Array, probability: Array) -> Array:
    """Cross-entropy in nats of class indices [N] under clipped probability [N, C], mean over rows."""
    own = np.take_along_axis(probability, label.astype(np.int64)[:, None], 1)
    return -np.log(np.clip(own.astype(np.float64), EPSILON, 1 - EPSILON))


@metric("ndcg@5", "ndcg@10")
def ndcg(gain: Array, score: Array, group: Array, k: int = 10) -> Array:
    """Normalised discounted cumulative gain at k: linear gain >= 0, discount 1 / log2(1 + rank), ideal cut at k too.

    Mean over the groups whose gains are not all equal: in the others nothing can be ranked wrong, they say nothing.
    None if there is no such group; ValueError for a negative gain. Sources: Jarvelin and Kekalainen, TOIS 2002; ties
    share their discounts: McSherry and Najork, ECIR 2008.
    """
    if gain.min(initial=0) < 0:
        raise ValueError(f"nDCG needs gains >= 0, found {gain.min()}")
    achieved, ideal = _ties(gain, score, group), _ties(gain, gain, group)
    counted = ideal.per_group(ideal.size < ideal.rows[ideal.group]) > 0
    return _dcg(achieved, k)[counted] / _dcg(ideal, k)[counted]


def _dcg(ties: _Ties, k: int) -> Array:
    upto = np.append(0, np.cumsum(1 / np.log2(np.arange(k) + 2)))  # sum of the discounts of ranks 1 .. r
    discount = upto[np.minimum(ties.above + ties.size, k)] - upto[np.minimum(ties.above, k)]
    return ties.per_group(ties.value / ties.size * discount)


@metric("mrr")
def mrr(label: Array, score: Array, group: Array) -> Array:
    """Mean reciprocal rank as in MIND: the mean of 1 / rank over *all* positives of a group, not of the first alone.

    Mean over the groups with a positive and a negative; None if there is none. With several positives the best value
    is below 1. Source: Wu et al., MIND, ACL 2020, and its evaluation script.
    """
    ties = _ties(label > 0, score, group)
    upto = np.append(0, np.cumsum(1 / np.arange(1, ties.rows.max(initial=0) + 1)))  # sum of 1 / rank of ranks 1 .. r
    reciprocal = (upto[ties.above + ties.size] - upto[ties.above]) / ties.size
    positives = ties.per_group(ties.value)
    counted = (positives > 0) & (positives < ties.rows)
    return ties.per_group(ties.value * reciprocal)[counted] / positives[counted]


@metric("hr@1", "hr@3")
def hit_rate(label: Array, score: Array, group: Array, k: int) -> Array:
    """P(at least one positive among a group's k highest scores), mean over the groups with a positive and a negative.

    A tie block of s rows, n of them negative, of which m are in the top k, has no hit with probability
    C(n, m) / C(s, m) (hypergeometric). None if there is no such group.
    """
    ties = _ties(label > 0, score, group, every=True)
    positives = ties.per_group(ties.value)
    counted = (positives > 0) & (positives < ties.rows)
    drawn = np.clip(k - ties.above, 0, ties.size)
    negative = ties.size - ties.value
    # gammaln is +inf at 0, -1, ...: more draws than negatives are a sure hit, log P(miss) = -inf
    miss = gammaln(negative + 1) - gammaln(negative - drawn + 1) - gammaln(ties.size + 1)
    miss += gammaln(ties.size - drawn + 1)
    return -np.expm1(ties.per_group(miss)[counted])


def compute(name: str, label: Array, prediction: Array, group: Array, user: Array) -> float | None:
    """The metric of that name; None where it is undefined or there are no rows.

    label, group, user: [N]; prediction: [N], or [N, C] for class probabilities. Raises KeyError for an unknown name,
    ValueError for shapes that do not match and for values that are not finite: a diverged run is never scored.
    """
    if name not in METRICS:
        raise KeyError(f"unknown metric '{name}'; known: {', '.join(METRICS)}")
    label, prediction, group, user = (np.asarray(column) for column in (label, prediction, group, user))
    check(name, label, prediction, group, user)
    return METRICS[name].fn(label, prediction, group, user) if len(label) else None


def check(name: str, label: Array, prediction: Array, group: Array, user: Array) -> None:
    """Raises ValueError for columns that no metric may see, as said of ``compute``."""
    # [N, 1] is refused because it would broadcast against [N]
    if not label.shape == prediction.shape[:1] == group.shape == user.shape or prediction.shape[1:] == (1,):
        shapes = f"label {label.shape}, prediction {prediction.shape}, group {group.shape}, user {user.shape}"
        raise ValueError(f"{name}: shapes do not match: {shapes}")
    for what, values in (("labels", label), ("predictions", prediction)):
        bad = values.size - np.count_nonzero(np.isfinite(values))
        if bad:
            raise Diverged(f"{name}: {what} are not finite ({bad} of {values.size} values)")


def skill(name: str, value: float, chance: float) -> float:
    """(value - chance) / (perfect - chance): 0 is chance, 1 is perfect; 0 where chance is perfect already."""
    perfect = METRICS[name].perfect
    return (value - chance) / (perfect - chance) if perfect != chance else 0.0
