"""Gains over tasks against values worked out by hand and against a count of drawn points."""

from __future__ import annotations

import numpy as np
import pytest

from bench.metrics.multitask import delta_m, gain, hypervolume

LARGER = {"click": True, "like": True, "watch": False}
BASE = {"click": 0.60, "like": 0.80, "watch": 2.0}
VALUES = {"click": 0.63, "like": 0.76, "watch": 1.5}


def test_delta_m_by_hand() -> None:
    # +.03/.60 = 5 %, -.04/.80 = -5 %, an error that falls by .5/2 = 25 %: mean 25/3
    found = [gain(VALUES[task], BASE[task], larger) for task, larger in LARGER.items()]
    assert found == pytest.approx([5.0, -5.0, 25.0])
    assert delta_m(VALUES, BASE, LARGER) == pytest.approx(25 / 3)
    assert delta_m(BASE, BASE, LARGER) == 0.0


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


def test_better_is_positive_below_zero_too() -> None:
    assert gain(-1.0, -2.0, True) == 50.0 and gain(-1.0, -2.0, False) == -50.0


def test_undefined_gains_are_not_imputed() -> None:
    base = {**BASE, "click": 0.0}
    assert gain(VALUES["click"], 0.0, True) is None
    assert delta_m(VALUES, base, LARGER) is None
    for values in ({}, {"click": 0.5}):
        with pytest.raises(ValueError, match="same tasks"):
            delta_m(values, BASE, LARGER)
    with pytest.raises(ValueError, match="same tasks"):
        delta_m({}, {}, {})


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
