"""Uncertainty weighting (Kendall et al., Multi-Task Learning Using Uncertainty to Weigh Losses, CVPR 2018)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torchjd.scalarization import UW

from bench.api import Balancer, Task


class Uncertainty(Balancer):
    """L = sum_t exp(-s_t) L_t / 2 + s_t / 2, s_t = log sigma_t^2 trained beside the model from 0."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__(tasks)
        self.scalarizer = UW(len(tasks))

    def combine(self, losses: Tensor) -> Tensor:
        """Returns the sum of the losses [T] under the learned weights, and what keeps these from 0."""
        return self.scalarizer(losses)
