"""DWA: dynamic weight average (Liu et al., End-to-End Multi-Task Learning with Attention, CVPR 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from optuna.distributions import FloatDistribution
from torch import Tensor

from bench.api import Balancer, Task


class Dwa(Balancer):
    """L = sum_t w_t L_t, w = T softmax(r / temperature), r_t the mean loss of the last epoch over that of the one
    before; equal weights in the first two epochs. torchjd's does not save its history."""

    space = {"temperature": FloatDistribution(0.1, 10.0, log=True)}

    def __init__(self, tasks: Sequence[Task], *, temperature: float = 2.0) -> None:
        super().__init__(tasks)
        if not temperature > 0:
            raise ValueError(f"temperature {temperature}: it must be positive")
        self.temperature = temperature
        self.register_buffer("alpha", torch.ones(len(tasks)))
        self.register_buffer("last", torch.zeros(len(tasks)))

    def combine(self, losses: Tensor) -> Tensor:
        """The weighted sum."""
        return losses @ self.get_buffer("alpha")

    def on_epoch(self, epoch: int, losses: Tensor, valid: Mapping[str, float]) -> None:
        """Sets the weights from the mean losses of this epoch and the one before."""
        last = self.get_buffer("last")
        if epoch > 1:
            rate = torch.where(last > 0, losses / last, torch.ones_like(losses))
            self.get_buffer("alpha").copy_(len(losses) * torch.softmax(rate / self.temperature, dim=0))
        last.copy_(losses)
