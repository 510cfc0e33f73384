"""What multi-task papers report over tasks: gains over a baseline, hypervolume, share of the oracle.

Values are keyed by task; ``larger`` says for each task whether larger is better.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

Values = Mapping[str, float]


def gains(
    values: Values, base: Values, larger: Mapping[str, bool], chance: Values | None = None
) -> dict[str, float | None]:
    """Gain of each task over the baseline in percent, ±100 (value - base) / |base - chance|; above 0 is better.

    chance: value of a prediction without skill, 0 where it isn't given. Relative changes of an AUC hide effects, since
    half of it is chance: with chance .5 the gain is in (AUC - .5). None where the baseline is at chance. ValueError if
    values and base are of different tasks, or of none.
    """
    if values.keys() != base.keys() or not values:
        raise ValueError(f"gains need the same tasks, got {sorted(values)} and {sorted(base)}")
    found: dict[str, float | None] = {}
    for task, value in values.items():
        scale = abs(base[task] - (chance or {}).get(task, 0.0))
        gain = value - base[task] if larger[task] else base[task] - value
        found[task] = 100 * gain / scale if scale else None
    return found


def delta_m(values: Values, base: Values, larger: Mapping[str, bool], chance: Values | None = None) -> float | None:
    """Delta_m: mean over tasks of the ``gains``, in percent; None if one of them is undefined.

    Source: Maninis et al., Attentive Single-Tasking of Multiple Tasks, CVPR 2019; as in LibMTL with one metric a task.
    """
    found = [gain for gain in gains(values, base, larger, chance).values() if gain is not None]
    # np.mean in its own words: it is called for each run of a leaderboard
    return float(np.add.reduce(found)) / len(found) if len(found) == len(values) else None


def worst_task(
    values: Values, base: Values, larger: Mapping[str, bool], chance: Values | None = None
) -> tuple[str, float] | None:
    """The task with the smallest of the ``gains``, the first of equals, and its gain; None if one is undefined."""
    found = [(task, gain) for task, gain in gains(values, base, larger, chance).items() if gain is not None]
    return min(found, key=lambda pair: pair[1]) if len(found) == len(values) else None


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Volume between a reference [T] and the points [n, T] that are above it in all T tasks, larger being better.

    With skills and reference 0, a perfect point gives 1. Source: Zitzler and Thiele, IEEE TEC 1999.
    """
    from optuna._hypervolume import compute_hypervolume  # optuna is slow to import, and most tables do without

    worst = np.asarray(reference, np.float64)
    found = np.asarray(points, np.float64).reshape(-1, len(worst))
    above = found[(found > worst).all(axis=1)]
    return float(compute_hypervolume(-above, -worst)) if len(above) else 0.0


def oracle_share(value: float, chance: float, oracle: float) -> float | None:
    """Share of the oracle's gain over chance: 0 is chance, 1 the best any method could do; None if they are equal."""
    return (value - chance) / (oracle - chance) if oracle != chance else None
