"""Bootstrap intervals against variances in closed form, scipy's, and simulated users of which the truth is known."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bench.metrics import METRICS, Array, compute
from bench.statistics.bootstrap import Interval, iqm, user_bootstrap


def test_iqm_by_hand() -> None:
    assert iqm([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -50.0]) == 3.5  # the middle four
    assert iqm([5.0, 1.0, 3.0]) == 3.0  # floor(3 / 4): nothing is left out
    assert iqm([[0.0, 2.0, 4.0, 90.0], [1.0, 3.0, 5.0, 7.0]], axis=1).tolist() == [3.0, 4.0]


def loss(label: Array, prediction: Array, group: Array, user: Array) -> float:
    return float(np.mean(np.square(label - prediction)))


def test_users_are_drawn_with_all_their_rows_and_twice_is_two() -> None:
    users = np.array([7, 3, 7, 9, 3, 7, 1])
    impressions = np.array([4, 1, 4, 2, 0, 8, 3])
    labels = np.arange(7.0)  # a row's name
    seen = []

    def metric(label: Array, prediction: Array, group: Array, user: Array) -> float:
        assert label.tolist() == prediction.tolist()
        rows = label.astype(int)
        assert len(np.unique(user)) == 4
        for one in np.unique(user):
            owners = users[rows[user == one]]
            assert len(set(owners)) == 1 and len(owners) == np.sum(users == owners[0])
        assert len(np.unique(group)) == sum(len(set(impressions[rows[user == u]])) for u in np.unique(user))
        for one in np.unique(group):
            assert len(set(impressions[rows[group == one]])) == len(set(user[group == one])) == 1
        seen.append(tuple(users[rows[user == u]][0] for u in np.unique(user)))
        return 0.0

    assert user_bootstrap(metric, users, labels, [labels], [labels], groups=impressions, resamples=200) == Interval(
        0.0, 0.0, 0.0
    )
    draws = seen[2::2]
    assert len(draws) == 200
    assert {owner for draw in draws for owner in draw} == {1, 3, 7, 9}
    counts = [sum(draw.count(owner) for draw in draws) for owner in (1, 3, 7, 9)]
    assert all(150 < count < 250 for count in counts)  # 200 each, standard deviation 12


def users_with_rows(rng: np.random.Generator, users: int, rows: int) -> tuple[Array, Array, Array, Array]:
    """Users of so many rows in random order, labels 0, and predictions of which b is worse by a gap of each user."""
    owner = rng.permutation(np.repeat(np.arange(users), rows))
    gap = 1 + rng.normal(size=users)[owner]  # all rows of a user share it: rows are far from independent
    return owner, np.zeros(len(owner)), np.full(len(owner), 2.0), np.sqrt(4 + gap.clip(-4))


def test_interval_over_users_covers_the_truth() -> None:
    rng = np.random.default_rng(11)
    missed, found_worse = 0, 0
    for i in range(500):
        users, labels, a, b = users_with_rows(rng, 60, 4)
        found = user_bootstrap(loss, users, labels, [b], [a], resamples=39, seed=i)
        assert found.low is not None and found.high is not None
        missed += not found.low <= 1 <= found.high
        found_worse += found.low > 0
    low, high = scipy_stats.binom.ppf([0.0005, 0.9995], 500, 0.05)
    assert low <= missed <= high  # drawing rows instead of users misses in a third
    assert found_worse == 500


def test_rows_as_users_would_claim_too_much() -> None:
    users, labels, a, b = users_with_rows(np.random.default_rng(0), 100, 9)
    whole = user_bootstrap(loss, users, labels, [b], [a])
    rows = user_bootstrap(loss, np.arange(len(users)), labels, [b], [a])
    assert None not in (whole.low, whole.high, rows.low, rows.high)
    assert (whole.high - whole.low) / (rows.high - rows.low) == pytest.approx(3, rel=0.1)  # sqrt of 9 rows


def test_seeds_are_drawn_as_well() -> None:
    """The difference is a user's effect plus a seed's: the variance of its mean is the sum of the two means'."""
    rng = np.random.default_rng(4)
    of_user, of_seed = rng.normal(size=50), rng.normal(scale=0.4, size=10)
    base = np.full(50, 10.0)
    metric = lambda label, prediction, group, user: float(np.mean(prediction))  # noqa: E731
    found = user_bootstrap(
        metric, np.arange(50), np.zeros(50), [base + of_user + s for s in of_seed], [base] * 10, resamples=4000
    )
    assert found.mean == pytest.approx(of_user.mean() + of_seed.mean())
    spread = math.sqrt(of_user.var() / 50 + of_seed.var() / 10)
    assert found.low is not None and found.high is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.06)


@pytest.mark.parametrize("name", ["ndcg@5", "mrr", "gauc", "auc"])
def test_rank_metrics(name: str) -> None:
    rng = np.random.default_rng(6)
    users = rng.permutation(np.repeat(np.arange(80), 6))
    labels = (rng.random(len(users)) < 0.4).astype(float)
    good, noise = labels * [[1.0], [0.0]] + rng.normal(size=(2, len(users)))
    better = user_bootstrap(METRICS[name].fn, users, labels, [good], [noise], resamples=100)
    worse = user_bootstrap(METRICS[name].fn, users, labels, [noise], [good], resamples=100)
    assert better.low is not None and better.low > 0 and worse.high is not None and worse.high < 0
    assert better.mean == -worse.mean > 0
    same = user_bootstrap(partial(compute, name), users, labels, [good], [good], resamples=50)
    assert same == Interval(0.0, 0.0, 0.0)


def test_gauc_interval_is_that_of_the_users_own_values() -> None:
    """GAUC is a ratio of sums over users, so that drawing users is drawing its two terms."""
    rng = np.random.default_rng(8)
    users = np.repeat(np.arange(50), 8)
    labels = np.tile([0.0, 1.0], 200)
    a, b = labels + rng.normal(scale=[[1.0], [2.0]], size=(2, 400))
    found = user_bootstrap(METRICS["gauc"].fn, users, labels, [a], [b])
    own = [compute("auc", labels[i : i + 8], a[i : i + 8], users[:8], users[:8]) for i in range(0, 400, 8)]
    other = [compute("auc", labels[i : i + 8], b[i : i + 8], users[:8], users[:8]) for i in range(0, 400, 8)]
    gaps = np.array(own, float) - np.array(other, float)
    assert found.mean == pytest.approx(gaps.mean())
    oracle = scipy_stats.bootstrap(
        (gaps,), np.mean, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), abs=0.01)


def test_draws_without_a_value_are_left_out() -> None:
    labels = np.array([0.0, 0.0, 1.0])  # a draw without the third user has one class
    found = user_bootstrap(METRICS["auc"].fn, np.arange(3), labels, [np.array([1, 2, 3])], [np.array([1, 3, 2])])
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)


def test_what_cannot_be_drawn() -> None:
    one, two = np.zeros(2), np.arange(2.0)
    assert user_bootstrap(loss, one, two, [two], [one]) == Interval(-0.5, None, None)
    with pytest.raises(ValueError, match="undefined"):
        user_bootstrap(METRICS["auc"].fn, two, one, [two], [two])
    for a, b in (([two], [two, two]), ([], []), (two, two), ([two], [np.zeros(3)])):
        with pytest.raises(ValueError, match="same seeds"):
            user_bootstrap(loss, two, two, a, b)
