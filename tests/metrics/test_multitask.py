"""Gains over tasks against values worked out by hand and against a count of drawn points."""

from __future__ import annotations

import numpy as np
import pytest

from bench.metrics.multitask import delta_m, gains, hypervolume, oracle_share, worst_task
from bench.statistics.transfer import NegativeTransfer, negative_transfer

LARGER = {"click": True, "like": True, "watch": False}
BASE = {"click": 0.60, "like": 0.80, "watch": 2.0}
VALUES = {"click": 0.63, "like": 0.76, "watch": 1.5}


def test_delta_m_by_hand() -> None:
    # +.03/.60 = 5 %, -.04/.80 = -5 %, an error that falls by .5/2 = 25 %: mean 25/3
    assert gains(VALUES, BASE, LARGER) == pytest.approx({"click": 5.0, "like": -5.0, "watch": 25.0})
    assert delta_m(VALUES, BASE, LARGER) == pytest.approx(25 / 3)
    assert worst_task(VALUES, BASE, LARGER) == ("like", pytest.approx(-5.0))
    assert delta_m(BASE, BASE, LARGER) == 0.0


def test_delta_m_above_chance_by_hand() -> None:
    # .03/.10 = 30 %, -.04/.30 = -13.3 %, 25 % as before
    found = delta_m(VALUES, BASE, LARGER, chance={"click": 0.5, "like": 0.5})
    assert found == pytest.approx((30 - 40 / 3 + 25) / 3)


def test_delta_m_as_the_formula_of_libmtl() -> None:
    rng = np.random.default_rng(0)
    own, base = rng.uniform(0.1, 2, size=(2, 6))
    lower = rng.integers(2, size=6)
    expected = float(np.mean((-1.0) ** lower * (own - base) / base)) * 100
    names = [f"t{i}" for i in range(6)]
    larger = {name: not low for name, low in zip(names, lower, strict=True)}
    assert delta_m(dict(zip(names, own, strict=True)), dict(zip(names, base, strict=True)), larger) == pytest.approx(
        expected
    )


def test_better_is_positive_below_zero_and_below_chance_too() -> None:
    assert gains({"t": -1.0}, {"t": -2.0}, {"t": True}) == {"t": 50.0}
    assert gains({"t": 0.45}, {"t": 0.4}, {"t": True}, chance={"t": 0.5}) == {"t": pytest.approx(50.0)}


def test_undefined_gains_are_not_imputed() -> None:
    base = {**BASE, "click": 0.5}
    chance = {"click": 0.5}
    assert gains(VALUES, base, LARGER, chance)["click"] is None
    assert delta_m(VALUES, base, LARGER, chance) is None
    assert worst_task(VALUES, base, LARGER, chance) is None
    for values in ({}, {"click": 0.5}):
        with pytest.raises(ValueError, match="same tasks"):
            delta_m(values, BASE, LARGER)
    with pytest.raises(ValueError, match="same tasks"):
        delta_m({}, {}, {})


def test_negative_transfer_by_hand() -> None:
    base = {"click": [0.60, 0.61, 0.62], "like": [0.80, 0.80, 0.80], "watch": [2.0, 2.0, 2.0]}
    values = {
        "click": [0.61, 0.60, 0.63],  # worse in one seed of three
        "like": [0.701, 0.700, 0.699],  # worse in all, far beyond the spread
        "watch": [2.0, 1.9, 2.1],  # equal is not worse; larger is
    }
    assert negative_transfer(values, base, LARGER) == NegativeTransfer(5 / 9, 1 / 3)
    # an improvement as clear is none
    assert negative_transfer(base, values, LARGER) == NegativeTransfer(3 / 9, 0.0)


def test_negative_transfer_is_corrected_over_tasks_and_needs_seeds() -> None:
    # p = .03 for one of 2 tasks: below .05, but not after Holm
    differences = [-1.0, -2.0, -3.3]
    values = {"a": differences, "b": [0.1, -0.1, 0.0]}
    base = {"a": [0.0] * 3, "b": [0.0] * 3}
    larger = {"a": True, "b": True}
    assert negative_transfer({"a": differences}, {"a": [0.0] * 3}, {"a": True}, alpha=0.1).significant == 1.0
    assert negative_transfer(values, base, larger, alpha=0.1).significant == 0.0
    assert negative_transfer({"a": [0.1]}, {"a": [0.2]}, {"a": True}) == NegativeTransfer(1.0, None)
    for others in ({"b": [0.1]}, {}):
        with pytest.raises(ValueError, match="same tasks"):
            negative_transfer(others, {"a": [0.1]}, {"a": True})
    with pytest.raises(ValueError):
        negative_transfer({"a": [0.1]}, {"a": [0.1, 0.2]}, {"a": True})


def test_negative_transfer_of_equal_methods() -> None:
    """Two copies that differ by chance: worse in half of the pairs, significantly in 2.5 % of single tasks at most."""
    own, base = np.random.default_rng(3).normal(0.7, 0.01, size=(2, 1000, 5))
    found = [
        negative_transfer({"t": a.tolist()}, {"t": b.tolist()}, {"t": True}) for a, b in zip(own, base, strict=True)
    ]
    assert np.mean([one.rate for one in found]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([one.significant for one in found]) == pytest.approx(0.025, abs=0.015)


def test_hypervolume_by_hand() -> None:
    # two rectangles from (.5, .5) less what both cover; what is not above the reference in all adds nothing
    points = [[0.7, 0.9], [0.8, 0.7], [0.4, 1.0], [0.5, 0.9]]
    assert hypervolume(points, [0.5, 0.5]) == pytest.approx(0.2 * 0.4 + 0.3 * 0.2 - 0.2 * 0.2)
    assert hypervolume([[1.0, 1.0, 1.0]], [0.0, 0.0, 0.0]) == 1.0
    assert hypervolume([], [0.0, 0.0]) == 0.0
    assert hypervolume([[0.1, 0.1]], [0.5, 0.5]) == 0.0


@pytest.mark.parametrize("tasks", [2, 3, 4])
def test_hypervolume_is_the_share_of_random_points_that_are_beaten(tasks: int) -> None:
    rng = np.random.default_rng(tasks)
    points, reference = rng.uniform(0.2, 1, size=(12, tasks)), np.full(tasks, 0.2)
    drawn = rng.uniform(0.2, 1, size=(40_000, tasks))
    share = (drawn[:, None] <= points).all(axis=2).any(axis=1).mean()
    assert hypervolume(points, reference) == pytest.approx(share * 0.8**tasks, abs=0.01)


def test_oracle_share_by_hand() -> None:
    assert oracle_share(0.65, 0.5, 0.8) == pytest.approx(0.5)
    assert oracle_share(0.5, 0.6, 0.2) == pytest.approx(0.25)  # a loss: smaller is better
    assert oracle_share(0.4, 0.5, 0.8) == pytest.approx(-1 / 3)
    assert oracle_share(0.5, 0.5, 0.5) is None
