"""Takes a share of the users of a large data set."""

from __future__ import annotations

from bench.errors import BenchError


class Thinned:
    """Gives a data set the knob ``one_in``: one user in so many is taken."""

    def __init__(self, *, one_in: int = 1) -> None:
        if one_in < 1:
            raise BenchError(f"one_in must be at least 1, got {one_in}")
        self.one_in = one_in
