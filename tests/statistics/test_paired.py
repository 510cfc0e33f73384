"""Intervals and tests against hand-made values, scipy, brute force, and simulated seeds of which the truth is known."""

from __future__ import annotations

import itertools
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bench.statistics.intervals import mean_interval, sd
from bench.statistics.many import holm
from bench.statistics.paired import (
    SEEDS_NEEDED,
    Difference,
    paired,
    signed_rank,
    tost,
    unsupported,
)
from bench.statistics.ranks import friedman

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


def test_differences_without_spread() -> None:
    assert paired([0.5, 0.7, 0.9], [0.5, 0.7, 0.9]) == Difference(0.0, 0.0, 1.0)
    assert paired([0.5, 0.75, 1.0], [0.25, 0.5, 0.75]) == Difference(0.25, 0.0, 0.0)


def test_one_seed_says_nothing_about_spread() -> None:
    assert paired([0.75], [0.5]) == Difference(0.25, None, None)


def test_lists_that_cannot_be_paired() -> None:
    with pytest.raises(ValueError):
        paired([0.1, 0.2], [0.1])
    with pytest.raises(ValueError, match="no values"):
        paired([], [])


def test_seeds_needed_agrees_with_all_sign_patterns() -> None:
    def smallest_p(n: int) -> float:
        patterns = itertools.product((0, 1), repeat=n)
        sums = [sum(rank * sign for rank, sign in enumerate(signs, 1)) for signs in patterns]
        return 2 * sums.count(0) / len(sums)

    assert next(n for n in range(1, 10) if smallest_p(n) < 0.05) == SEEDS_NEEDED


@given(st.lists(VALUES, min_size=2, max_size=8))
def test_mean_and_sd_agree_with_exact_arithmetic(values: list[float]) -> None:
    assert mean_interval(values)[0] == pytest.approx(statistics.mean(values), rel=1e-15)
    assert sd(values) == pytest.approx(statistics.stdev(values), rel=1e-12)


def test_sd_of_one_value_is_undefined() -> None:
    assert sd([0.5]) is None
    assert sd([1.0, 3.0]) == math.sqrt(2)


def brute_force(statistic: Callable[[Sequence[float]], float], differences: Sequence[float]) -> float:
    """Share of all sign patterns with a statistic as far from 0 as the one observed."""
    observed = abs(statistic(differences))
    patterns = list(itertools.product((-1, 1), repeat=len(differences)))
    drawn = [abs(statistic([s * d for s, d in zip(signs, differences, strict=True)])) for signs in patterns]
    return sum(value >= observed - 1e-9 for value in drawn) / len(patterns)


def rank_sum(differences: Sequence[float]) -> float:
    """Signed ranks by counting: half a rank for each that ties, itself among them, and half for itself."""
    sizes = [abs(d) for d in differences]
    ranks = [sum(other < own for other in sizes) + (sizes.count(own) + 1) / 2 for own in sizes]
    return sum(math.copysign(rank, d) for rank, d in zip(ranks, differences, strict=True))


# thousandths with few different values: ties and zeros are common, and their floating point differences are not equal
TIED = st.lists(st.tuples(st.integers(700, 708), st.integers(700, 708)), min_size=6, max_size=7)


@settings(max_examples=40)
@given(TIED)
def test_the_exact_test_agrees_with_brute_force(pairs: list[tuple[int, int]]) -> None:
    a, b = ([x / 1000 for x in side] for side in zip(*pairs, strict=True))
    differences = [float(x - y) for x, y in pairs]
    kept = [d for d in differences if d]
    assert signed_rank(a, b) == pytest.approx(brute_force(rank_sum, kept) if kept else 1.0, rel=1e-12)
    assert signed_rank(b, a) == signed_rank(a, b)


@pytest.mark.parametrize("n", [6, 11])
def test_the_exact_test_agrees_with_scipy(n: int) -> None:
    a, b = np.random.default_rng(n).normal([[0.3], [0.0]], size=(2, n))
    assert signed_rank(a, b) == pytest.approx(scipy_stats.wilcoxon(a, b, method="exact").pvalue, rel=1e-12)


def test_ties_of_decimals_are_ties_in_floating_point() -> None:
    a, b = [0.7, 0.3, 0.8, 0.9, 0.6, 0.4], [0.6, 0.2, 0.7, 1.0, 0.5, 0.3]
    assert len({abs(x - y) for x, y in zip(a, b, strict=True)}) > 1
    for scale in (1e-6, 1.0, 1e6):
        one, other = ([x * scale for x in side] for side in (a, b))
        assert signed_rank(one, other) == 2 * (1 + 6) / 64  # at most one of six signs differs


def test_many_pairs_with_ties_draw_their_sign_patterns() -> None:
    a, b = np.random.default_rng(3).normal([[0.4], [0.0]], size=(2, 40)).round(1)
    p = signed_rank(a, b)
    assert p is not None and p == signed_rank(a, b)
    # with 40 pairs the rank sum is close to normal
    oracle = scipy_stats.wilcoxon(np.round(a - b, 1), method="asymptotic")
    assert p == pytest.approx(oracle.pvalue, abs=0.005)
    assert signed_rank(a + 10, b) == 1 / 100_001  # no pattern but the observed one


def test_p_values_that_the_seeds_cannot_support_are_refused() -> None:
    a, b = [0.6, 0.7, 0.8, 0.9, 1.0, 1.1], [0.1] * 6
    assert signed_rank(a, b) == 2 / 64
    assert signed_rank(a[:5], b[:5]) is None
    assert unsupported(5) == "5 seeds cannot reach p < .05; 6 can"
    assert unsupported(6) is None


def test_holm_by_hand() -> None:
    # .01 * 4; .02 * 3 = .06; .03 * 2 = .06; .04 * 1 is raised to the one before
    assert holm([0.03, 0.01, None, 0.04, 0.02]) == [0.06, 0.04, None, 0.06, 0.06]
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([None, None]) == [None, None]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_as_the_step_down_procedure_does(ps: list[float]) -> None:
    rejected: list[float] = []
    for i, p in enumerate(sorted(ps)):
        if p * (len(ps) - i) >= 0.05:
            break
        rejected.append(p)
    assert sorted(p for p, adjusted in zip(ps, holm(ps), strict=True) if (adjusted or 0) < 0.05) == rejected


def test_tost_agrees_with_two_one_sided_tests_of_scipy() -> None:
    a, b = np.random.default_rng(0).normal([[0.71], [0.7]], 0.01, size=(2, 7))
    for margin in (0.005, 0.012, 0.02, 0.05):
        found = tost(a, b, margin)
        sides = [
            scipy_stats.ttest_1samp(a - b + shift, 0, alternative=side).pvalue
            for shift, side in ((margin, "greater"), (-margin, "less"))
        ]
        assert found == pytest.approx(max(sides), rel=1e-9)
        interval = scipy_stats.ttest_rel(a, b).confidence_interval(0.9)
        assert (max(sides) < 0.05) == (-margin < interval.low and interval.high < margin)


def test_tost_without_spread_and_with_one_seed() -> None:
    assert tost([0.5, 0.75], [0.25, 0.5], 0.3) == 0.0
    assert tost([0.5, 0.75], [0.25, 0.5], 0.25) == 1.0
    assert tost([0.5], [0.5], 0.1) is None
    with pytest.raises(ValueError, match="margin"):
        tost([0.5, 0.6], [0.5, 0.6], 0.0)


def test_friedman_by_hand() -> None:
    # mean ranks 1, 2.25 and 2.75 over 4 blocks: 12 N / (k (k + 1)) * sum of squares, less 3 N (k + 1)
    scores = [[0.9, 0.8, 0.7], [0.9, 0.8, 0.7], [0.8, 0.6, 0.7], [0.5, 0.4, 0.3]]
    found = friedman(scores)
    assert (found.ranks, found.blocks) == ((1.0, 2.25, 2.75), 4)
    statistic = 12 * 4 / (3 * 4) * (1 + 2.25**2 + 2.75**2) - 3 * 4 * 4
    assert found.p == pytest.approx(math.exp(-statistic / 2))  # chi-square with 2 degrees of freedom
    assert friedman([[0.5, 0.5, 0.1]] * 3).ranks == (1.5, 1.5, 3.0)


def test_friedman_without_differences_or_with_too_few_blocks() -> None:
    assert friedman([[0.5] * 3] * 4).p == 1.0
    assert friedman([[3.0, 2.0, 1.0]] * 2).p is None  # 3 orders: agreement by chance has 1/6
    assert friedman([[4.0, 3.0, 2.0, 1.0]] * 2).p is not None  # 1/24


@pytest.mark.parametrize("scores", [[[1.0, 2.0, 3.0]], [[1.0, 2.0]] * 3, [[1.0, 2.0, math.nan]] * 3])
def test_ranks_need_complete_scores(scores: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="3 methods or more in 2 blocks"):
        friedman(scores)


# q_.05 / sqrt 2 for 2, 3, ... methods, from the table in Demsar, JMLR 2006
NEMENYI = {3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}


@pytest.mark.parametrize(("methods", "q"), NEMENYI.items())
def test_critical_difference(methods: int, q: float) -> None:
    critical = friedman([list(range(methods))] * 6).critical_difference
    assert critical == pytest.approx(q * math.sqrt(methods * (methods + 1) / 36), rel=5e-4)


SIMULATIONS, SEEDS = 1000, 8


def simulated(gap: float, rivals: int = 1, spread: float = 1.0) -> tuple[list[list[float]], list[list[list[float]]]]:
    """For each simulation the seeds of a baseline, and of rivals that are better by a gap in units of the noise."""
    rng = np.random.default_rng(7)
    shared = rng.normal(size=(SIMULATIONS, 1, SEEDS))  # a seed moves all methods alike: paired tests take it out
    noise = rng.normal(scale=spread / math.sqrt(2), size=(SIMULATIONS, rivals + 1, SEEDS))
    values = 0.7 + 0.01 * (shared + noise)
    values[:, 1:] += 0.01 * gap
    return values[:, 0].tolist(), values[:, 1:].tolist()


def plausible(hits: int, rate: float) -> bool:
    """So many hits in all simulations are within binomial error of the rate."""
    low, high = scipy_stats.binom.ppf([0.0005, 0.9995], SIMULATIONS, rate)
    return bool(low <= hits <= high)


@cache
def rejections(test: Callable[[list[float], list[float]], float | None], gap: float) -> int:
    base, rivals = simulated(gap)
    ps = [test(own[0], other) for own, other in zip(rivals, base, strict=True)]
    return sum(p < 0.05 for p in ps if p is not None)


def t_power(gap: float) -> float:
    """Power of a two-sided t test with n pairs, from the non-central t distribution."""
    critical, centre = scipy_stats.t.ppf(0.975, SEEDS - 1), gap * math.sqrt(SEEDS)
    return float(scipy_stats.nct.sf(critical, SEEDS - 1, centre) + (scipy_stats.nct.cdf(-critical, SEEDS - 1, centre)))


def p_paired(a: list[float], b: list[float]) -> float | None:
    return paired(a, b).p


# under no difference all 2^8 sign patterns are alike: 10 of the 256 have a rank sum with p < .05
TESTS = [(p_paired, 0.05), (signed_rank, 10 / 256)]


@pytest.mark.parametrize(("test", "level"), TESTS, ids=["paired", "signed_rank"])
def test_false_positives_stay_at_the_level_and_power_rises(
    test: Callable[[list[float], list[float]], float | None], level: float
) -> None:
    assert plausible(rejections(test, 0.0), level)
    found = [rejections(test, gap) for gap in (0.0, 0.5, 1.0, 2.0)]
    assert found == sorted(found) and found[-1] > 0.95 * SIMULATIONS
    assert all(after - before > 100 for before, after in itertools.pairwise(found))


@pytest.mark.parametrize("gap", [0.5, 1.0, -1.5])
def test_power_of_the_paired_test_is_that_of_theory(gap: float) -> None:
    assert plausible(rejections(p_paired, gap), t_power(gap))


@pytest.mark.parametrize("better", [0, 2])
def test_holm_keeps_the_chance_of_any_false_star(better: int) -> None:
    """Five rivals, of which some are truly better: a star for any of the others is false."""
    base, rivals = simulated(0.0, rivals=5)
    false = uncorrected = 0
    for other, rows in zip(base, rivals, strict=True):
        shifted = [[x + 0.05 * (i < better) for x in row] for i, row in enumerate(rows)]
        ps = [paired(row, other).p for row in shifted]
        false += any(p is not None and p < 0.05 for p in holm(ps)[better:])
        uncorrected += any(p is not None and p < 0.05 for p in ps[better:])
    assert false <= scipy_stats.binom.ppf(0.9995, SIMULATIONS, 0.05)
    assert uncorrected > scipy_stats.binom.ppf(0.9995, SIMULATIONS, 0.05)  # the correction is needed


def test_equivalence_is_rarely_false_and_its_power_rises() -> None:
    def found(gap: float, margin: float, spread: float = 1.0) -> int:
        base, rivals = simulated(gap, spread=spread)
        ps = [tost(own[0], other, 0.01 * margin) for own, other in zip(rivals, base, strict=True)]
        return sum(p is not None and p < 0.05 for p in ps)

    assert plausible(found(gap=2.0, margin=2.0), 0.05)  # true difference at the margin
    assert plausible(found(gap=-2.0, margin=2.0), 0.05)
    assert found(gap=3.0, margin=2.0) < 10
    assert found(gap=0.0, margin=0.1) < 10  # noise far above the margin confirms nothing
    powers = [found(gap=0.0, margin=margin) for margin in (0.5, 1.0, 2.0)]
    assert powers == sorted(powers) and powers[-1] > 0.95 * SIMULATIONS
    # the spread of the seeds hides the same truth, fewer seeds would as well
    assert found(gap=0.0, margin=1.0, spread=2.0) < found(gap=0.0, margin=1.0, spread=1.0)


def test_interval_covers_the_truth() -> None:
    base, rivals = simulated(0.4)
    found = [paired(own[0], other) for own, other in zip(rivals, base, strict=True)]
    missed = sum(abs(d.mean - 0.004) > d.half_width for d in found if d.half_width is not None)
    assert plausible(missed, 0.05)


def test_friedman_has_few_false_positives() -> None:
    scores = np.random.default_rng(1).normal(size=(SIMULATIONS, 10, 4))
    assert plausible(sum((friedman(table.tolist()).p or 0) < 0.05 for table in scores), 0.05)
    better = scores[:200] + np.array([1.0, 0.0, 0.0, 0.0])
    assert sum((friedman(table.tolist()).p or 0) < 0.05 for table in better) > 80


def test_a_leaderboard_can_afford_it() -> None:
    a, b = [0.71, 0.72, 0.715, 0.709, 0.718], [0.7, 0.71, 0.711, 0.707, 0.703]
    started = time.process_time()
    for _ in range(2000):
        paired(a, b)
    assert time.process_time() - started < 0.5  # a tenth of it on an idle machine


def test_import_leaves_the_slow_libraries_out() -> None:
    code = (
        "import sys, bench.metrics.multitask, bench.statistics.bootstrap, bench.statistics.paired as some;"
        "some.paired([1.0, 2.0], [1.0, 3.0]);"
        "print([m for m in ('torch', 'optuna', 'scipy.stats') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_values_equal_but_for_rounding_do_not_differ() -> None:
    found = paired([0.1 + 0.2] * 3, [0.3] * 3)
    assert (found.mean, found.p) == (0.0, 1.0)
