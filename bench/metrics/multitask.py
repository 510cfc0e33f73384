"""What multi-task papers report over tasks: gains over a baseline, hypervolume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

K = TypeVar("K")


def gain(value: float, base: float, larger: bool) -> float | None:
    """Gain on a baseline in percent, ±100 (value - base) / |base|: above 0 is better. None where the baseline is 0."""
    return 100 * (value - base if larger else base - value) / abs(base) if base else None


def delta_m(values: Mapping[K, float], base: Mapping[K, float], larger: Mapping[K, bool]) -> float | None:
    """Delta_m: mean of the ``gain`` of each task over its baseline, in percent; None if one of them is undefined.

    All are keyed by task. ValueError if values and base are of different tasks, or of none. Source: Maninis et al.,
    Attentive Single-Tasking of Multiple Tasks, CVPR 2019; as in LibMTL with one metric a task.
    """
    if values.keys() != base.keys() or not values:
        raise ValueError(f"gains need the same tasks, got {list(values)} and {list(base)}")
    found = [one for task in values if (one := gain(values[task], base[task], larger[task])) is not None]
    # np.mean in its own words: it is called for each run of a leaderboard
    return float(np.add.reduce(found)) / len(found) if len(found) == len(values) else None


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Volume between a reference [T] and the points [n, T] that are above it in all T tasks, larger being better.

    With skills and reference 0, a perfect point gives 1. Source: Zitzler and Thiele, IEEE TEC 1999.
    """
    from optuna._hypervolume import compute_hypervolume  # optuna is slow to import, and most tables do without

    worst = np.asarray(reference, np.float64)
    found = np.asarray(points, np.float64).reshape(-1, len(worst))
    above = found[(found > worst).all(axis=1)]
    return float(compute_hypervolume(-above, -worst)) if len(above) else 0.0
