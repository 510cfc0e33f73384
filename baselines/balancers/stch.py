"""STCH: a smooth maximum of relative losses (Lin et al., Smooth Tchebycheff Scalarization, ICML 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from optuna.distributions import FloatDistribution, IntDistribution
from torch import Tensor
from torchjd.scalarization import STCH

from bench.api import Balancer, Task

EPS = 1e-8


class Stch(Balancer):
    """L = T mu log sum_t exp(log(L_t / nadir_t) / mu), nadir_t the mean loss of the last of ``warmup`` epochs, in which
    L = sum_t log L_t. A loss of 1e-8 or less has no weight."""

    space = {"mu": FloatDistribution(0.01, 10.0, log=True), "warmup": IntDistribution(1, 8)}

    def __init__(self, tasks: Sequence[Task], *, mu: float = 1.0, warmup: int = 4) -> None:
        super().__init__(tasks)
        if not mu > 0 or warmup < 1:
            raise ValueError(
                f"mu {mu}, warmup {warmup}: mu must be positive, and one epoch at least measures the losses"
            )
        self.warmup = warmup
        self.scalarizer = STCH(mu / len(tasks))  # which gives every loss a weight of 1 / T
        self.register_buffer("nadir", torch.zeros(len(tasks)))

    def combine(self, losses: Tensor) -> Tensor:
        """Returns the smooth maximum of the losses [T] over their nadir; before there is one, the sum of logarithms."""
        log, nadir = losses.clamp(min=EPS).log(), self.get_buffer("nadir")
        if not nadir.any():
            return log.sum()
        return len(losses) ** 2 * self.scalarizer(log - nadir.log())

    def on_epoch(self, epoch: int, losses: Tensor, valid: Mapping[str, float]) -> None:
        """Keeps the mean losses of the last epoch of the warm-up as the nadir."""
        if epoch == self.warmup:
            self.get_buffer("nadir").copy_(losses.clamp(min=EPS))
