"""GradVac: gradients turned towards their usual angle (Wang et al., Gradient Vaccine, ICLR 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from optuna.distributions import FloatDistribution
from torch import Tensor

from baselines.balancers._gradient import AT, GradientBalancer
from bench.api import Task

EPS = 1e-8


class GradVac(GradientBalancer):
    """For j in random order, r_ij = cos(g_i, g_j) and q_ij its running mean: where r_ij < q_ij,
    g_i += g_j ||g_i|| (q sqrt(1 - r^2) - r sqrt(1 - q^2)) / (||g_j|| sqrt(1 - q^2)); d = sum_i g_i. Paper: parameters.

    torchjd's does not save its running means.
    """

    space = {"beta": FloatDistribution(0.01, 0.9), **AT}

    def __init__(self, tasks: Sequence[Task], *, beta: float = 0.5, at: str = "representation") -> None:
        super().__init__(tasks, at=at)
        if not 0 <= beta <= 1:
            raise ValueError(f"beta {beta}: the share of the new cosine is between 0 and 1")
        self.beta = beta
        self.register_buffer("usual", torch.zeros(len(tasks), len(tasks), dtype=torch.float64))

    def weigh(self, gram: Tensor) -> Tensor:
        """Returns w [T] from the inner products of the gradients [T, T], and updates the usual cosines."""
        g, live = gram.tolist(), range(len(gram))
        usual = self.get_buffer("usual")[self.live][:, self.live].tolist()
        mixed = [[float(i == j) for j in live] for i in live]  # of g_i, in terms of the gradients as they came
        for i in live:
            others = [j for j in live if j != i]
            for j in (others[k] for k in torch.randperm(len(others)).tolist()):
                along = [sum(c * g[k][m] for k, c in enumerate(mixed[i])) for m in live]
                norm = sqrt(max(sum(c * a for c, a in zip(mixed[i], along, strict=True)), 0.0))
                q, r = usual[i][j], along[j] / (norm * sqrt(g[j][j]) + EPS)
                if r < q:
                    up, down = q * sqrt(max(1 - r * r, 0.0)), r * sqrt(max(1 - q * q, 0.0))
                    mixed[i][j] += norm * (up - down) / (sqrt(g[j][j] * max(1 - q * q, 0.0)) + EPS)
                usual[i][j] = (1 - self.beta) * q + self.beta * r
        places = torch.tensor(self.live, device=self.get_buffer("usual").device)
        self.get_buffer("usual")[places[:, None], places] = self.get_buffer("usual").new_tensor(usual)
        return torch.tensor(mixed, dtype=gram.dtype).sum(dim=0)
