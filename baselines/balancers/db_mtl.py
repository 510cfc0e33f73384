"""DB-MTL: log losses and gradients of one norm (Lin et al., Dual-Balancing for Multi-Task Learning, 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from optuna.distributions import FloatDistribution
from torch import Tensor

from baselines.balancers._gradient import GradientBalancer, gram_of
from bench.api import Task

EPS = 1e-8


class DbMtl(GradientBalancer):
    """g_t the gradient of log(L_t + 1e-8), b_t += (1 - beta / k^sigma) (g_t - b_t) in step k = 1, 2, ...;
    d = max_u ||b_u|| sum_t b_t / ||b_t||. Paper: parameters, and only there, since b_t runs over the batches.

    A loss below 0 counts as 0.
    """

    space = {"beta": FloatDistribution(0.0, 0.95), "sigma": FloatDistribution(0.0, 1.0)}

    def __init__(self, tasks: Sequence[Task], *, beta: float = 0.9, sigma: float = 0.0) -> None:
        super().__init__(tasks, at="parameters")
        if not (0 <= beta < 1 and sigma >= 0):
            raise ValueError(f"beta {beta}, sigma {sigma}: beta is at least 0 and below 1, sigma at least 0")
        self.beta, self.sigma = beta, sigma
        self.register_buffer("step", torch.zeros(()))
        self.running = torch.zeros(len(tasks), 0)

    def get_extra_state(self) -> Tensor:
        """All b_t [T, parameters]: their number is known only after the first step."""
        return self.running

    def set_extra_state(self, state: Tensor) -> None:
        """Takes the running gradients back."""
        self.running = state

    def scale(self, losses: Tensor) -> Tensor:
        """The derivative of the logarithm."""
        return 1 / (losses.clamp(min=0) + EPS)

    def aggregate(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """Returns the sum of the running gradients, all scaled to the largest norm."""
        flat = torch.cat([r.flatten(1) for r in rows], dim=1) if rows else self.running
        if self.running.shape != flat.shape:
            self.running = torch.zeros_like(flat)
        self.running = self.running.to(flat)
        step = self.get_buffer("step").add_(1)
        self.running = self.running + (1 - self.beta / step**self.sigma) * (flat - self.running)
        norm = gram_of([self.running], len(self.tasks)).diagonal().sqrt().to(flat)
        ratio = torch.where(norm > 0, norm.max() / norm, torch.ones_like(norm))
        self.weights = ratio * self.factors
        pieces = torch.split(ratio @ self.running, [r[0].numel() for r in rows]) if rows else ()
        return [piece.view(r.shape[1:]) for piece, r in zip(pieces, rows, strict=True)]
