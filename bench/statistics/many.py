"""The level of all tests, and corrections for many of them."""

from __future__ import annotations

from collections.abc import Sequence

ALPHA = 0.05  # a test finds something where its p, corrected, is below


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Adjusted p of each of several tests: those below alpha reject, and the chance of any false one is below alpha.

    None (no test) stays None and isn't counted. Source: Holm, Scandinavian Journal of Statistics 1979.
    """
    tests = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    reached = 0.0
    for rank, (p, i) in enumerate(tests):
        reached = max(reached, min(1.0, p * (len(tests) - rank)))
        adjusted[i] = reached
    return adjusted
