"""Metrics against scikit-learn, brute force, numbers worked out by hand, and properties."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as oracle

from bench.kinds import KINDS
from bench.metrics import (
    METRICS,
    auc,
    compute,
    ece,
    gauc,
    hit_rate,
    log_loss,
    log_loss_multiclass,
    mae,
    mrr,
    ndcg,
    rmse,
    skill,
    top_k,
    xauc,
)

BINARY = ["auc", "gauc", "log_loss", "ece"]
REGRESSION = ["rmse", "mae", "xauc"]
CLASSES = ["top1", "top3", "log_loss_multiclass"]
RANKING = ["ndcg@5", "ndcg@10", "mrr", "hr@1", "hr@3"]
few = settings(max_examples=40, deadline=None, derandomize=True)
ORDER_ONLY = ["auc", "gauc", "xauc", *RANKING]  # these see the order of the predictions, not their values


def table(seed: int, n: int = 400, groups: int = 40):
    """Random rows: graded label 0..3, score with many ties, group and user ids that are unsorted and have gaps."""
    draw = np.random.default_rng(seed)
    label = draw.integers(0, 4, n) * (draw.random(n) < 0.5)
    return label.astype(float), draw.integers(0, 8, n) / 8, draw.integers(0, groups, n) * 7 - 30, draw.integers(0, 9, n)


def by_group(group: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(group == g) for g in np.unique(group)]


def over_orders(score, value) -> float:
    """Mean of value(order) over all orders of the rows that agree with the scores, best row first."""
    agree = [list(o) for o in permutations(range(len(score))) if (np.diff(score[list(o)]) <= 0).all()]
    return float(np.mean([value(order) for order in agree]))


@st.composite
def rows(draw, most: int = 30):
    n = draw(st.integers(1, most))
    whole = [draw(arrays(np.int64, n, elements=st.integers(0, top))) for top in (3, 6, 5, 4)]
    return whole[0].astype(float), whole[1] / 6, whole[2], whole[3]


def prediction_for(name: str, score: np.ndarray) -> np.ndarray:
    """The score itself, or four class probabilities made of it, with ties."""
    return np.stack([score, 1 - score, score, score * 0 + 0.5], 1) / 2.5 if name in CLASSES else score


def label_for(name: str, label: np.ndarray) -> np.ndarray:
    return (label > 1).astype(float) if name in BINARY else label


# Independent oracles


@pytest.mark.parametrize("seed", range(3))
def test_auc_and_gauc_agree_with_sklearn(seed):
    label, score, _, user = table(seed, n=90)
    label = (label > 1).astype(float)
    assert auc(label, score) == pytest.approx(oracle.roc_auc_score(label, score), abs=1e-12)
    both = [i for i in by_group(user) if 0 < label[i].sum() < len(i)]
    aucs = [oracle.roc_auc_score(label[i], score[i]) for i in both]
    assert len(both) > 3
    assert gauc(label, score, user) == pytest.approx(np.average(aucs, weights=[len(i) for i in both]), abs=1e-12)


def test_losses_and_errors_agree_with_sklearn():
    draw = np.random.default_rng(0)
    label, p = (draw.random(200) < 0.3).astype(float), draw.random(200)
    assert log_loss(label, p) == pytest.approx(oracle.log_loss(label, p), abs=1e-12)
    value, guess = draw.gamma(2.0, size=200), draw.gamma(2.0, size=200)
    assert rmse(value, guess) == pytest.approx(oracle.root_mean_squared_error(value, guess), abs=1e-12)
    assert mae(value, guess) == pytest.approx(oracle.mean_absolute_error(value, guess), abs=1e-12)
    index, classes = draw.integers(0, 5, 200), draw.dirichlet(np.ones(5), 200)
    expected = oracle.log_loss(index, classes, labels=range(5))
    assert log_loss_multiclass(index, classes) == pytest.approx(expected, abs=1e-12)
    for k in (1, 2, 3):
        assert top_k(index, classes, k) == oracle.top_k_accuracy_score(index, classes, k=k, labels=range(5))


@pytest.mark.parametrize("k", [1, 3, 5, 10, 50])
def test_ndcg_agrees_with_sklearn_in_each_group(k):
    gain, score, group, _ = table(k)
    mixed = [i for i in by_group(group) if len(set(gain[i])) > 1]
    expected = [oracle.ndcg_score([gain[i]], [score[i]], k=k) for i in mixed]
    assert len(mixed) > 30
    assert ndcg(gain, score, group, k) == pytest.approx(np.mean(expected), abs=1e-12)
    for i, value in zip(mixed, expected, strict=True):
        assert ndcg(gain[i], score[i], group[i], k) == pytest.approx(value, abs=1e-12)


@few
@given(rows())
def test_xauc_counts_all_pairs(data):
    label, score, _, _ = data
    different = [(i, j) for i, j in combinations(range(len(label)), 2) if label[i] != label[j]]
    shares = [(1 + np.sign((label[i] - label[j]) * (score[i] - score[j]))) / 2 for i, j in different]
    assert xauc(label, score) == (pytest.approx(np.mean(shares), abs=1e-12) if different else None)


@few
@given(rows(most=6), st.integers(1, 7))
def test_ties_are_the_mean_over_all_orders(data, k):
    label, score, _, _ = data
    group, positive = np.zeros(len(label), int), label > 1
    if len(set(label)) > 1:
        discount = np.where(np.arange(len(label)) < k, 1 / np.log2(np.arange(len(label)) + 2), 0)
        ideal = np.sort(label)[::-1] @ discount
        expected = over_orders(score, lambda order: label[order] @ discount / ideal)
        assert ndcg(label, score, group, k) == pytest.approx(expected, abs=1e-12)
    if 0 < positive.sum() < len(label):
        reciprocal = 1 / np.arange(1, len(label) + 1)
        expected = over_orders(score, lambda order: positive[order] @ reciprocal / positive.sum())
        assert mrr(positive, score, group) == pytest.approx(expected, abs=1e-12)
        expected = over_orders(score, lambda order: positive[order][:k].any())
        assert hit_rate(positive, score, group, k) == pytest.approx(expected, abs=1e-12)


# Numbers worked out by hand


def test_auc_by_hand():
    # positives .8 and .5 against negatives .5 and .1: wins 1, 1, 1/2, 1
    label, score = np.array([1, 0, 1, 0]), np.array([0.8, 0.5, 0.5, 0.1])
    assert auc(label, score) == 3.5 / 4
    # user 1: AUC 1 on 2 rows; user 2: AUC 1/2 on 3 rows; user 3 has one class
    label, score = np.array([1, 0, 1, 0, 0, 1]), np.array([0.9, 0.1, 0.5, 0.4, 0.6, 0.2])
    assert gauc(label, score, np.array([1, 1, 2, 2, 2, 3])) == pytest.approx((2 * 1 + 3 * 0.5) / 5)


def test_probabilities_by_hand():
    assert log_loss(np.array([1.0, 0.0]), np.array([0.5, 0.75])) == pytest.approx((np.log(2) + np.log(4)) / 2)
    worst = log_loss(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    assert worst == pytest.approx(-np.log(1e-7)) == log_loss_multiclass(np.array([0]), np.array([[0.0, 1.0]]))
    # 15 bins of 2 rows: in each the labels' mean is 1/2, the probabilities' mean (p1 + p2) / 2
    p = np.arange(30) / 29
    gaps = np.abs(0.5 - (p[::2] + p[1::2]) / 2)
    assert ece(np.tile([0.0, 1.0], 15), p) == pytest.approx(gaps.mean())
    # 31 rows: bins of 2 but one of 3, which weighs more
    p, label = np.arange(31) / 30, np.arange(31) % 2
    cut = np.split(np.arange(31), np.searchsorted(np.arange(31) * 15 // 31, np.arange(1, 15)))
    assert sorted(len(c) for c in cut) == [2] * 14 + [3]
    assert ece(label, p) == pytest.approx(sum(len(c) * abs(label[c].mean() - p[c].mean()) for c in cut) / 31)


def test_ece_of_equal_probabilities_depends_on_no_row_order():
    label = np.array([1.0] * 20 + [0.0] * 80)
    for order in (np.arange(100), np.arange(100)[::-1], np.random.default_rng(0).permutation(100)):
        assert ece(label[order], np.full(100, 0.2)) == pytest.approx(0, abs=1e-12)
        assert ece(label[order], np.full(100, 0.5)) == pytest.approx(0.3)
    # four rows of 0.4 with mean label 3/4, one row of 0.9 with label 0
    uneven = ece(np.array([1, 1, 0, 1, 0]), np.array([0.4, 0.4, 0.4, 0.4, 0.9]))
    assert uneven == pytest.approx((4 * 0.35 + 0.9) / 5)


def test_values_by_hand():
    label, value = np.array([1.0, 2.0, 4.0]), np.array([1.0, 4.0, 3.0])
    assert rmse(label, value) == pytest.approx(np.sqrt(5 / 3))
    assert mae(label, value) == 1.0
    assert xauc(label, value) == 2 / 3
    # of the pairs with different labels (0-2, 1-2) the first is tied
    assert xauc(np.array([1, 1, 2]), np.array([5, 4, 5])) == 0.75


def test_top_k_shares_ties():
    p = np.array([[0.4, 0.4, 0.1, 0.1]])
    assert [top_k(np.array([c]), p, 1) for c in range(4)] == [0.5, 0.5, 0, 0]
    assert [top_k(np.array([c]), p, 3) for c in range(4)] == [1, 1, 0.5, 0.5]
    assert top_k(np.array([2]), p, 9) == 1
    assert top_k(np.array([0, 1, 2]), np.full((3, 3), 1 / 3), 2) == pytest.approx(2 / 3)


def test_ranking_by_hand():
    # positives at ranks 2 and 4 of five
    label, score, group = np.array([0, 1, 0, 1, 0]), np.array([5, 4, 3, 2, 1]), np.full(5, 8)
    assert mrr(label, score, group) == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert [hit_rate(label, score, group, k) for k in (1, 2, 3)] == pytest.approx([0, 1, 1])
    expected = (1 / np.log2(3) + 1 / np.log2(5)) / (1 + 1 / np.log2(3))
    assert ndcg(label, score, group) == pytest.approx(expected)
    assert ndcg(label, score, group, k=3) == pytest.approx((1 / np.log2(3)) / (1 + 1 / np.log2(3)))
    # linear, not exponential, gain: 2 at rank 2 and 1 at rank 1
    expected = (1 + 2 / np.log2(3)) / (2 + 1 / np.log2(3))
    assert ndcg(np.array([1, 2]), np.array([0.9, 0.1]), np.zeros(2)) == pytest.approx(expected)


def test_hit_rate_of_a_tie_block_that_straddles_the_cut():
    # one negative on top, then six tied rows with two positives for two places: 1 - C(4, 2) / C(6, 2)
    label, score = np.array([0, 1, 1, 0, 0, 0, 0]), np.array([2, 1, 1, 1, 1, 1, 1])
    assert hit_rate(label, score, np.zeros(7), 3) == pytest.approx(1 - 6 / 15)
    # a positive above the block makes it sure
    assert hit_rate(np.array([1, 1, 1, 0, 0, 0, 0]), score, np.zeros(7), 3) == 1


def test_groups_that_cannot_be_ranked_wrong_say_nothing():
    label = np.array([1, 0, 1, 1, 0, 0])
    score = np.array([1, 2, 2, 1, 2, 1])
    group = np.array([4, 4, 5, 5, 6, 6])  # mixed, all positive, all negative
    assert mrr(label, score, group) == 0.5
    assert hit_rate(label, score, group, 1) == 0
    assert ndcg(label, score, group) == pytest.approx(1 / np.log2(3))


# Properties


@few
@given(rows(), st.randoms(use_true_random=False))
def test_the_order_of_rows_and_the_names_of_ids_do_not_matter(data, random):
    graded, score, group, user = data
    order = np.array(random.sample(range(len(graded)), len(graded)))
    renamed = np.array([70, -3, 9, 2**40, 0, 11])
    ids = renamed[group[order]], renamed[user[order]]
    for name in METRICS:
        label, prediction = label_for(name, graded), prediction_for(name, score)
        before = compute(name, label, prediction, group, user)
        after = compute(name, label[order], prediction[order], *ids)
        assert after == (before if before is None else pytest.approx(before, abs=1e-12)), name


@few
@given(rows())
def test_monotone_transforms_change_nothing(data):
    graded, score, group, user = data
    for name in ORDER_ONLY:
        label = label_for(name, graded)
        before, after = (compute(name, label, p, group, user) for p in (score, np.exp(score * 6) - 7))
        assert after == before, name


@few
@given(rows())
def test_flipping_labels_or_scores_mirrors(data):
    label, score, _, user = data
    positive = label > 1
    if auc(positive, score) is not None:
        assert auc(~positive, score) == pytest.approx(1 - auc(positive, score), abs=1e-12)
    if gauc(positive, score, user) is not None:
        assert gauc(~positive, score, user) == pytest.approx(1 - gauc(positive, score, user), abs=1e-12)
    if xauc(label, score) is not None:
        assert xauc(label, -score) == pytest.approx(1 - xauc(label, score), abs=1e-12)
        assert xauc(positive, score) == auc(positive, score)  # of a binary label it is the AUC


def test_a_constant_prediction_is_chance():
    label, _, group, user = table(5)
    positive, constant = (label > 1).astype(float), np.full(len(label), 0.3)
    for name in ("auc", "gauc", "xauc"):
        assert compute(name, positive, constant, group, user) == 0.5
    assert top_k(label, np.full((len(label), 4), 0.25), 3) == 0.75
    mixed = [i for i in by_group(group) if 0 < positive[i].sum() < len(i)]
    drawn = {"mrr": [], "hr@3": [], "ndcg@10": []}
    for i in mixed:
        n, share = len(i), positive[i].mean()
        places = 1 / np.arange(1, n + 1)
        discount = np.append(1 / np.log2(np.arange(2, 12)), np.zeros(n))[:n]
        drawn["mrr"].append(places.mean())
        drawn["hr@3"].append(1 - np.prod([max(0, n * (1 - share) - j) / (n - j) for j in range(min(3, n))]))
        drawn["ndcg@10"].append(share * discount.sum() / discount[: int(positive[i].sum())].sum())
    for name, values in drawn.items():
        assert compute(name, positive, constant, group, user) == pytest.approx(np.mean(values), abs=1e-9)


def test_breaking_ties_at_random_gives_the_same_on_average():
    label, score, group, user = table(6)
    draw = np.random.default_rng(0)
    for name in ("gauc", "ndcg@5", "mrr", "hr@1", "hr@3"):
        y = label_for(name, label)
        broken = [compute(name, y, score + draw.random(len(y)) * 1e-3, group, user) for _ in range(300)]
        assert compute(name, y, score, group, user) == pytest.approx(
            np.mean(broken), abs=5 * np.std(broken) / np.sqrt(300)
        )


@pytest.mark.parametrize("name", METRICS)
def test_the_perfect_prediction_has_the_perfect_value(name):
    label, _, group, user = table(7)
    label = label_for(name, label)
    prediction = np.eye(4)[label.astype(int)] if name in CLASSES else label
    if name == "mrr":  # one positive in each group
        label = prediction = np.isin(np.arange(len(label)), np.unique(group, return_index=True)[1]).astype(float)
    value = compute(name, label, prediction, group, user)
    assert type(value) is float
    assert value == pytest.approx(METRICS[name].perfect, abs=2e-7)
    worse = prediction_for(name, np.roll(label, 1) / 3) if name in CLASSES else np.roll(label, 1)
    assert (compute(name, label, worse, group, user) < value) == METRICS[name].larger


# Edges and faults


def test_one_class_is_undefined():
    score, group = np.array([0.1, 0.2, 0.3]), np.array([0, 0, 1])
    for label in (np.zeros(3), np.ones(3)):
        for name in ORDER_ONLY:
            assert compute(name, label, score, group, group) is None
    # both classes, but not within a user or a group
    label = np.array([1.0, 1.0, 0.0])
    assert compute("auc", label, score, group, group) == 0
    for name in ("gauc", *RANKING):
        assert compute(name, label, score, group, group) is None


@pytest.mark.parametrize("name", METRICS)
def test_no_rows_is_undefined(name):
    none = np.zeros(0)
    assert compute(name, none, np.zeros((0, 3)) if name in CLASSES else none, none, none) is None


def test_the_functions_that_can_be_undefined_take_no_rows():
    none = np.zeros(0)
    assert auc(none, none) is xauc(none, none) is gauc(none, none, none) is None
    assert ndcg(none, none, none) is mrr(none, none, none) is hit_rate(none, none, none, 3) is None


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_diverged_run_is_caught(name, bad):
    label, score, group, user = table(8, n=20)
    prediction = prediction_for(name, score)
    prediction.flat[3] = bad
    with pytest.raises(ValueError, match=rf"{name}: predictions are not finite \(1 of {prediction.size} values\)"):
        compute(name, label_for(name, label), prediction, group, user)


def test_undefined_labels_must_be_left_out():
    with pytest.raises(ValueError, match="auc: labels are not finite"):
        compute("auc", np.array([1, np.nan]), np.ones(2), np.ones(2), np.ones(2))


def test_shapes_must_match():
    label, column = np.ones(3), np.ones((3, 1))
    for prediction in (np.ones(2), column):
        with pytest.raises(ValueError, match="rmse: shapes do not match"):
            compute("rmse", label, prediction, label, label)
    with pytest.raises(ValueError, match="gauc: shapes do not match"):
        compute("gauc", label, label, label, np.ones(2))


def test_negative_gains_and_unknown_names_are_refused():
    with pytest.raises(ValueError, match="gains >= 0, found -1"):
        ndcg(np.array([-1, 2]), np.ones(2), np.zeros(2))
    with pytest.raises(KeyError, match="unknown metric 'acu'; known: auc, gauc"):
        compute("acu", np.ones(1), np.ones(1), np.ones(1), np.ones(1))


def test_small_number_types_keep_their_order():
    label, score = np.array([1, 0, 0], np.uint8), np.array([2, 1, 0], np.uint8)
    assert auc(label, score) == ndcg(label, score, np.zeros(3)) == 1
    half = np.array([0.2, 0.1, 0.1], np.float16)
    assert compute("auc", np.array([True, False, False]), half, np.zeros(3), np.zeros(3)) == 1


def test_counts_stay_exact_on_many_rows():
    n = 100_000
    value = np.random.default_rng(0).permutation(n)
    assert xauc(value, value) == 1
    assert xauc(value, -value) == 0
    assert auc(value >= n // 2, value) == 1
    swapped = np.arange(n)
    swapped[[0, -1]] = swapped[[-1, 0]]  # reverses 2 n - 3 pairs
    assert xauc(np.arange(n), swapped) == 1 - (2 * n - 3) / (n * (n - 1) / 2)
    # one large tied group: 1 - C(n - 1, 3) / C(n, 3) = 3 / n
    first = (value == 0).astype(float)
    assert hit_rate(first, np.zeros(n), np.zeros(n), 3) == pytest.approx(3 / n, rel=1e-4)


# The table


def test_every_metric_of_the_contract_is_here():
    assert {name for kind in KINDS.values() for name in (*kind.metrics, *kind.others)} <= set(METRICS)
    assert set(METRICS) == {*BINARY, *REGRESSION, *CLASSES, *RANKING}


def test_skill():
    assert skill("auc", 0.75, 0.5) == 0.5
    assert skill("auc", 0.5, 0.5) == 0
    assert skill("auc", 0.25, 0.5) == -0.5
    assert skill("rmse", 0.5, 2.0) == 0.75
    assert skill("log_loss", 0.0, 0.7) == 1
    assert skill("rmse", 1.0, 0.0) == 0
