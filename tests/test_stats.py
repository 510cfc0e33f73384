"""Intervals and paired tests against hand-made values, scipy's own test, and an enumeration of all sign patterns."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bench.stats import Difference, mean_interval, min_seeds_wilcoxon, paired

# a grid keeps values away from the cancellation that scipy warns about
VALUES = st.integers(0, 10_000).map(lambda n: n / 10_000)


def test_mean_interval_by_hand() -> None:
    # mean 2, s = 1, n = 3: t(.975, 2) = 4.302653 from the tables
    mean, half = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_confidence_sets_the_quantile() -> None:
    # t(.95, 1) = 6.313752; s = sqrt(2), so that s / sqrt(2) = 1
    assert mean_interval([0.0, 2.0], confidence=0.9)[1] == pytest.approx(6.313752, rel=1e-6)


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    assert mean_interval([0.25]) == (0.25, None)
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])


@pytest.mark.parametrize("value", [0.1, 0.7, 1e-300, 1e300])
def test_equal_values_have_exactly_no_spread(value: float) -> None:
    assert mean_interval([value] * 3) == (value, 0.0)


@given(st.lists(VALUES, min_size=2, max_size=8, unique=True))
def test_interval_agrees_with_scipy(values: list[float]) -> None:
    mean, half = mean_interval(values)
    low, high = scipy_stats.t.interval(0.95, len(values) - 1, scipy_stats.tmean(values), scipy_stats.sem(values))
    assert half is not None
    assert (mean - half, mean + half) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))


def test_paired_by_hand() -> None:
    # differences 1, 2, 3: mean 2, standard error 1 / sqrt(3); p of |t| = 2 sqrt(3) at 2 degrees of freedom is
    # 1 - t / sqrt(t^2 + 2), in closed form
    difference = paired([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    t = 2 * math.sqrt(3)
    assert difference.mean == 2.0
    assert difference.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert difference.p == pytest.approx(1 - t / math.sqrt(t * t + 2), rel=1e-9)
    assert not difference.significant


@given(st.lists(st.tuples(VALUES, VALUES), min_size=3, max_size=8))
def test_paired_agrees_with_scipy_and_is_antisymmetric(pairs: list[tuple[float, float]]) -> None:
    a, b = (list(side) for side in zip(*pairs, strict=True))
    there, back = paired(a, b), paired(b, a)
    assert (back.mean, back.half_width, back.p) == (-there.mean, there.half_width, there.p)
    if max(x - y for x, y in pairs) - min(x - y for x, y in pairs) < 1e-3:
        return  # scipy's figures lose their digits here
    oracle = scipy_stats.ttest_rel(a, b)
    interval = oracle.confidence_interval(0.95)
    assert there.p == pytest.approx(oracle.pvalue, abs=1e-9)
    assert there.half_width == pytest.approx((interval.high - interval.low) / 2, abs=1e-9)
    if abs(oracle.pvalue - 0.05) > 1e-9:
        assert there.significant == (oracle.pvalue < 0.05)


def test_differences_without_spread() -> None:
    assert paired([0.5, 0.7, 0.9], [0.5, 0.7, 0.9]) == Difference(0.0, 0.0, 1.0)
    assert not paired([0.5, 0.7], [0.5, 0.7]).significant
    shifted = paired([0.5, 0.75, 1.0], [0.25, 0.5, 0.75])
    assert shifted == Difference(0.25, 0.0, 0.0)
    assert shifted.significant


def test_one_seed_says_nothing_about_spread() -> None:
    assert paired([0.75], [0.5]) == Difference(0.25, None, None)
    assert not paired([0.75], [0.5]).significant


def test_lists_that_cannot_be_paired() -> None:
    with pytest.raises(ValueError):
        paired([0.1, 0.2], [0.1])
    with pytest.raises(ValueError, match="no values"):
        paired([], [])


@pytest.mark.parametrize(("alpha", "seeds"), [(0.05, 6), (0.01, 8), (0.0625, 6), (0.063, 5), (0.005, 9), (0.99, 2)])
def test_min_seeds_wilcoxon(alpha: float, seeds: int) -> None:
    assert min_seeds_wilcoxon(alpha) == seeds


def test_min_seeds_agrees_with_all_sign_patterns() -> None:
    def smallest_p(n: int) -> float:
        patterns = itertools.product((0, 1), repeat=n)
        sums = [sum(rank * sign for rank, sign in enumerate(signs, 1)) for signs in patterns]
        return 2 * sums.count(0) / len(sums)

    assert min_seeds_wilcoxon(0.05) == next(n for n in range(1, 10) if smallest_p(n) < 0.05)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_alpha_must_be_a_probability(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        min_seeds_wilcoxon(alpha)
