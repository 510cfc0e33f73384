"""CAGrad: the largest decrease of the worst task (Liu et al., Conflict-Averse Gradient Descent, NeurIPS 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from optuna.distributions import FloatDistribution
from scipy.optimize import LinearConstraint, minimize
from torch import Tensor

from baselines.balancers._gradient import AT, GradientBalancer
from bench.api import Task


class CAGrad(GradientBalancer):
    """d = T (g_0 + c ||g_0|| g_w / ||g_w||), g_0 the mean gradient and g_w = sum_t w_t g_t, w on the simplex the
    minimiser of g_w . g_0 + c ||g_0|| ||g_w||. Paper: parameters."""

    space = {"c": FloatDistribution(0.1, 0.9), **AT}

    def __init__(self, tasks: Sequence[Task], *, c: float = 0.5, at: str = "representation") -> None:
        super().__init__(tasks, at=at)
        if not 0 <= c < 1:
            raise ValueError(f"c {c}: the radius is at least 0 and below 1 times the norm of the mean gradient")
        self.c = c

    def weigh(self, gram: Tensor) -> Tensor:
        """Returns w [T] from the inner products of the gradients [T, T]."""
        g, n = gram.numpy(), len(gram)
        mean = g.mean(axis=1)  # g_t . g_0
        radius = self.c * np.sqrt(max(mean.mean(), 0.0))

        def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
            across = g @ w
            norm = np.sqrt(max(w @ across, 1e-12))
            return float(w @ mean + radius * norm), mean + radius * across / norm

        start = np.full(n, 1 / n)
        on_simplex = LinearConstraint(np.ones(n), 1, 1)
        w = minimize(
            objective, start, jac=True, method="SLSQP", bounds=[(0, 1)] * n, constraints=on_simplex, tol=1e-10
        ).x
        norm = np.sqrt(max(w @ g @ w, 0.0))
        pull = radius / norm if norm > 1e-6 else 0.0  # at a Pareto-stationary point there is no direction to pull in
        return torch.as_tensor(1 + n * pull * w)
