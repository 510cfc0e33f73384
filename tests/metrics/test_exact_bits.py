"""The metrics that rank rows give, to the last bit, what they gave when np.unique found groups and ties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import gammaln
from sklearn.metrics import roc_auc_score

from bench.metrics import auc, ece, gauc, hit_rate, mrr, ndcg, xauc
from bench.metrics import exact as metrics


@dataclass
class Unique:
    """The ranking of before: every block, by np.unique of groups, of scores and of both."""

    score: np.ndarray
    group: np.ndarray

    def __post_init__(self) -> None:
        _, owner, self.rows = np.unique(self.group, return_inverse=True, return_counts=True)
        values, rank = np.unique(np.negative(self.score, dtype=np.float64), return_inverse=True)
        key, self.block, self.size = np.unique(owner * len(values) + rank, return_inverse=True, return_counts=True)
        self.owner = key // len(values)
        self.above = np.cumsum(self.size) - self.size - (np.cumsum(self.rows) - self.rows)[self.owner]

    def per_block(self, value):
        return np.bincount(self.block, value, len(self.size))

    def per_group(self, value):
        return np.bincount(self.owner, value, len(self.rows))

    def pairs(self, positive):
        value = self.per_block(positive)
        positives = self.per_group(value)
        wrong = self.per_group(value * (self.above + (self.size + 1) / 2)) - positives * (positives + 1) / 2
        pairs = positives * (self.rows - positives)
        return pairs - wrong, pairs

    def dcg(self, gain, k):
        upto = np.append(0, np.cumsum(1 / np.log2(np.arange(k) + 2)))
        discount = upto[np.minimum(self.above + self.size, k)] - upto[np.minimum(self.above, k)]
        return self.per_group(self.per_block(gain) / self.size * discount)


def old_auc(label, score):
    right, pairs = Unique(score, np.zeros(len(score), int)).pairs(label > 0)
    return float(right.sum() / pairs.sum()) if pairs.any() else None


def old_gauc(label, score, user):
    ties = Unique(score, user)
    right, pairs = ties.pairs(label > 0)
    use = pairs > 0
    return float(np.average(right[use] / pairs[use], weights=ties.rows[use])) if use.any() else None


def old_xauc(label, value):
    rank = np.unique(label, return_inverse=True)[1]
    found = [
        Unique(value, rank >> bit + 1).pairs(rank >> bit & 1) for bit in range(int(rank.max(initial=0)).bit_length())
    ]
    pairs = sum(p.sum() for _, p in found)
    return float(sum(r.sum() for r, _ in found) / pairs) if pairs else None


def old_ece(label, probability):
    values, run, size = np.unique(probability, return_inverse=True, return_counts=True)
    gap = np.repeat(np.bincount(run, label) / size - values, size)
    return float(np.abs(np.bincount(np.arange(len(gap)) * 15 // len(gap), gap)).sum() / len(gap))


def old_ndcg(gain, score, group, k):
    achieved, ideal = Unique(score, group), Unique(gain, group)
    use = np.bincount(ideal.owner) > 1
    return float((achieved.dcg(gain, k)[use] / ideal.dcg(gain, k)[use]).mean()) if use.any() else None


def old_mrr(label, score, group):
    ties = Unique(score, group)
    upto = np.append(0, np.cumsum(1 / np.arange(1, ties.rows.max() + 1)))
    value = ties.per_block(label > 0)
    positives = ties.per_group(value)
    use = (positives > 0) & (positives < ties.rows)
    total = ties.per_group(value * ((upto[ties.above + ties.size] - upto[ties.above]) / ties.size))
    return float((total[use] / positives[use]).mean()) if use.any() else None


def old_hit_rate(label, score, group, k):
    ties = Unique(score, group)
    value = ties.per_block(label > 0)
    positives = ties.per_group(value)
    use = (positives > 0) & (positives < ties.rows)
    drawn, negative = np.clip(k - ties.above, 0, ties.size), ties.size - value
    miss = gammaln(negative + 1) - gammaln(negative - drawn + 1) - gammaln(ties.size + 1)
    miss += gammaln(ties.size - drawn + 1)
    return float((-np.expm1(ties.per_group(miss)[use])).mean()) if use.any() else None


EDGE = [0.0, -0.0, 1.0, -1.0, 0.1, 0.1 + 2**-50, 1 / 3, -1 / 3, 3e38, 1e300, -1e300, 1e-45, -1e-45, 1e-300]
SCORES = {
    "float32": st.one_of(st.sampled_from(EDGE), st.floats(width=32, allow_nan=False, allow_infinity=False)),
    "float64": st.one_of(st.sampled_from(EDGE), st.floats(allow_nan=False, allow_infinity=False)),
    "float16": st.sampled_from([0.0, -0.0, 0.5, 0.25, -2.0]),
    "uint8": st.integers(0, 255),
    "int64": st.sampled_from([-(2**63), -(2**40), -1, 0, 1, 2**24, 2**24 + 1, 2**63 - 1]),
}
GROUPS = {
    "int64": st.sampled_from([-(2**63), -(2**62), -3, 0, 1, 2, 2**40, 2**63 - 1]),
    "uint64": st.sampled_from([0, 1, 2**63, 2**64 - 1]),
    "int32": st.integers(-2, 2),
    "uint8": st.integers(253, 255),
    "float64": st.integers(0, 3),
}
GAINS = {
    "bool": st.booleans(),
    "float32": st.integers(0, 4),
    "float16": st.integers(0, 4),
    "int64": st.sampled_from([0, 1, 2, 2**31, 2**32 - 1, 2**32]),
    "float64": st.sampled_from([0.0, 0.1, 0.2, 0.3, 1.0, 1e30]),
}


@st.composite
def column(draw, kinds, n):
    kind = draw(st.sampled_from(sorted(kinds)))
    few = draw(st.lists(kinds[kind], min_size=1, max_size=5))  # so that there are ties
    with np.errstate(over="ignore"):
        values = np.array(few, kind)
    values = values[np.isfinite(values)] if np.isfinite(values).any() else np.zeros(1, kind)
    return values[draw(arrays(np.int64, n, elements=st.integers(0, len(values) - 1)))]


@st.composite
def rows(draw):
    n = draw(st.integers(1, 40))
    return [draw(column(kinds, n)) for kinds in (GAINS, SCORES, GROUPS)]


@given(rows(), st.integers(1, 6))
def test_to_the_last_bit(data, k):
    gain, score, group = data
    assert auc(gain, score) == old_auc(gain, score)
    assert gauc(gain, score, group) == old_gauc(gain, score, group)
    assert xauc(gain, score) == old_xauc(gain, score)
    assert mrr(gain, score, group) == old_mrr(gain, score, group)
    assert hit_rate(gain, score, group, k) == old_hit_rate(gain, score, group, k)
    assert ndcg(gain, score, group, k) == old_ndcg(gain, score, group, k)
    p = np.abs(score.astype(np.float64) % 1).astype(score.dtype if score.dtype.kind == "f" else np.float32)
    assert ece(gain > 0, p) == old_ece(gain > 0, p)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("distinct", [20, 10**6])
def test_many_rows(kind, distinct):
    n = 30_000
    draw = np.random.default_rng(distinct)
    score = (draw.integers(0, distinct, n) / distinct).astype(kind)
    label, gain = (draw.random(n) < score).astype(np.float32), draw.random(n).round(3)
    user, group = draw.integers(0, 2_500, n) * 7 - 9, np.arange(n) // 12
    assert auc(label, score) == old_auc(label, score) == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    assert gauc(label, score, user) == old_gauc(label, score, user)
    assert xauc(gain, score) == old_xauc(gain, score)
    assert ece(label, score) == old_ece(label, score)
    assert mrr(label, score, group) == old_mrr(label, score, group)
    for k in (1, 3, 10):
        assert hit_rate(label, score, group, k) == old_hit_rate(label, score, group, k)
        for y in (label, gain, np.ceil(gain * 4)):
            assert ndcg(y, score, group, k) == old_ndcg(y, score, group, k)


def test_which_rows_are_ranked_by_one_sort_of_numbers():
    """What training gives is: labels and predictions in float32, also widened, and any ids that span 31 bits."""
    label, score, group = (
        np.array([1, 0, 1.0]),
        np.float32([0.1, -3e38, 3e38]),
        np.array([2**40, 2**40 + 2**31 - 1, 2**40]),
    )
    fits = metrics._packed
    assert fits(label > 0, score, None) and fits(label, score, group) and fits(label * 3, score.astype(float), None)
    assert fits(label, score, group * 2) is None  # a bit too many
    assert fits(label / 2, score, group) is None
    assert fits(label, np.array([0.1, 0.2, 0.3]), group) is None
    assert fits(label, score, group.astype(float)) is None


@pytest.mark.parametrize("name", metrics.METRICS)
def test_narrow_columns_count_as_wide_ones(name):
    draw = np.random.default_rng(3)
    label, score, group = (
        draw.integers(0, 4, 500).astype(np.float32),
        draw.random((500, 4), np.float32),
        draw.integers(0, 40, 500),
    )
    score = score if name in ("top1", "top3", "log_loss_multiclass") else score[:, 0]
    label = (label > 1).astype(np.float32) if name in ("log_loss", "ece") else label
    wide = metrics.compute(name, label.astype(float), score.astype(float), group, group)
    assert metrics.compute(name, label, score, group, group) == wide
