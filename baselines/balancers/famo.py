"""FAMO: losses that fall at one relative rate (Liu et al., Fast Adaptive Multitask Optimization, NeurIPS 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from optuna.distributions import FloatDistribution
from torch import Tensor

from bench.api import Balancer, Task

EPS = 1e-8


class Famo(Balancer):
    """L = T c sum_t z_t log L_t with z = softmax(w) and c = 1 / sum_t (z_t / L_t) held fixed: the weights of the
    gradients sum to T. After each update w descends J_softmax^T (log L_before - log L_after) + decay w by Adam.

    T is not the paper's. Tasks with a loss of 0 or less (no label in the batch) are left out. torchjd's does not save
    the state of its Adam.
    """

    looks_again = True
    space = {"lr": FloatDistribution(1e-3, 0.1, log=True), "decay": FloatDistribution(1e-5, 1e-1, log=True)}

    def __init__(self, tasks: Sequence[Task], *, lr: float = 0.025, decay: float = 1e-3) -> None:
        super().__init__(tasks)
        if not (lr > 0 and decay >= 0):
            raise ValueError(f"lr {lr}, decay {decay}: lr must be positive, decay at least 0")
        self.lr, self.decay = lr, decay
        for name in ("w", "mean", "square", "before"):  # mean and square: Adam's moments
            self.register_buffer(name, torch.zeros(len(tasks)))
        self.register_buffer("step", torch.zeros(()))

    def combine(self, losses: Tensor) -> Tensor:
        """Returns the weighted sum of the logarithms of the losses [T]."""
        self.get_buffer("before").copy_(losses.detach())
        present = losses > 0
        if not present.any():
            return losses.sum()
        shifted = torch.where(present, losses + EPS, torch.ones_like(losses))
        z = torch.where(present, self.get_buffer("w").softmax(0), torch.zeros_like(losses))
        c = 1 / (z / shifted).sum().detach()
        return len(losses) * c * (z * shifted.log()).sum()

    def observe(self, losses: Tensor) -> None:
        """One step of Adam (Kingma and Ba, ICLR 2015) on w."""
        w, mean, square = (self.get_buffer(name) for name in ("w", "mean", "square"))
        before, step = self.get_buffer("before"), self.get_buffer("step").add_(1)
        both = (before > 0) & (losses > 0)
        fall = torch.where(both, ((before + EPS) / (losses + EPS).clamp(min=EPS)).log(), torch.zeros_like(losses))
        z = w.softmax(0)
        gradient = z * (fall - z @ fall) + self.decay * w
        mean.lerp_(gradient, 1 - 0.9)
        square.lerp_(gradient.square(), 1 - 0.999)
        w.sub_(self.lr * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8))
