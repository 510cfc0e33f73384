"""GradNorm: gradient norms that follow the training rates (Chen et al., Gradient Normalization, ICML 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from optuna.distributions import FloatDistribution
from torch import Tensor, nn

from baselines.balancers._gradient import AT, GradientBalancer, gram_of
from bench.api import Task


class GradNorm(GradientBalancer):
    """L = sum_t w_t L_t, w = T softmax(s); s descends sum_t |w_t ||g_t|| - mean_u(w_u ||g_u||) r_t^alpha| with the
    target held fixed; r_t = (L_t / L_t of the first batch) over its mean. Paper: parameters of the last shared layer.

    The softmax keeps the weights positive with sum T; the paper renormalises them after each step. A task without a
    loss in the first batch takes its first one from a later batch.
    """

    space = {"alpha": FloatDistribution(0.0, 3.0), **AT}

    def __init__(self, tasks: Sequence[Task], *, alpha: float = 1.5, at: str = "representation") -> None:
        super().__init__(tasks, at=at)
        if not alpha >= 0:
            raise ValueError(f"alpha {alpha}: the strength of the pull to one rate is at least 0")
        self.alpha = alpha
        self.s = nn.Parameter(torch.zeros(len(tasks)))
        self.register_buffer("first", torch.zeros(len(tasks)))

    def scale(self, losses: Tensor) -> Tensor:
        """The weights."""
        first = self.get_buffer("first")
        first.copy_(torch.where(first > 0, first, losses))
        self.progress = torch.where(first > 0, losses / first, torch.ones_like(losses))
        return len(losses) * self.s.detach().softmax(0)

    def aggregate(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """The sum of the gradients, which are weighted already; the gradient of s on the way."""
        norm = gram_of(rows, len(self.tasks)).diagonal().sqrt().to(self.s) / self.factors  # of g_t
        weighted = len(norm) * self.s.softmax(0) * norm
        target = weighted.detach().mean() * (self.progress / self.progress.mean().clamp(min=1e-8)) ** self.alpha
        torch.autograd.backward((weighted - target).abs().sum())
        self.weights = self.factors
        return [r.sum(dim=0) for r in rows]
