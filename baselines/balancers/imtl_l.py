"""IMTL-L: losses scaled to one size (Liu et al., Towards Impartial Multi-Task Learning, ICLR 2021)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torchjd.scalarization import IMTLL

from bench.api import Balancer, Task


class ImtlL(Balancer):
    """L = sum_t exp(s_t) L_t - s_t, s_t trained beside the model from 0.

    With s = -s' it is twice ``uncertainty``: the two differ in how fast s moves.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__(tasks)
        self.scalarizer = IMTLL(len(tasks))

    def combine(self, losses: Tensor) -> Tensor:
        """Returns the sum of the scaled losses [T]."""
        return self.scalarizer(losses)
