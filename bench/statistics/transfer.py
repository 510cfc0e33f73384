"""Negative transfer: how often tasks lose by being learned together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.statistics.many import holm
from bench.statistics.paired import paired

Seeds = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class NegativeTransfer:
    """Share of the (task, seed) pairs that are worse than the baseline, and share of the tasks that are significantly.

    significant is None where no task has two seeds.
    """

    rate: float
    significant: float | None


def negative_transfer(
    values: Seeds, base: Seeds, larger: Mapping[str, bool], *, alpha: float = 0.05
) -> NegativeTransfer:
    """How often tasks lose by being learned together; the seeds of a task in the same order in values and base.

    Significantly worse: the paired t test of the task, Holm's correction over tasks. ValueError if values and base are
    of different tasks or seeds, or of none.
    """
    if values.keys() != base.keys() or not values:
        raise ValueError(f"negative transfer needs the same tasks, got {sorted(values)} and {sorted(base)}")
    sides = [(values[t], base[t]) if larger[t] else (base[t], values[t]) for t in values]
    worse = [own < other for pair in sides for own, other in zip(*pair, strict=True)]
    tests = [paired(own, other) for own, other in sides]
    adjusted = [
        p < alpha and test.mean < 0
        for p, test in zip(holm([test.p for test in tests]), tests, strict=True)
        if p is not None
    ]
    return NegativeTransfer(sum(worse) / len(worse), sum(adjusted) / len(adjusted) if adjusted else None)
