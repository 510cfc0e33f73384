"""MetaBalance: auxiliary gradients brought to the norm of the target's (He et al., MetaBalance, WWW 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution
from torch import Tensor

from baselines.balancers._gradient import AT, GradientBalancer
from bench.api import Task


class MetaBalance(GradientBalancer):
    """For each shared tensor: m_t = beta m_t + (1 - beta) ||g_t||; d = sum_t (r m_0 / m_t + 1 - r) g_t, 0 the target
    task. Paper: parameters.

    target: name of the task to serve; empty for the first one.
    """

    weighs = False
    space = {
        "target": CategoricalDistribution([""]),  # which task to serve is the user's question, not the search's
        "relax": FloatDistribution(0.0, 1.0),
        "beta": FloatDistribution(0.0, 0.99),
        **AT,
    }

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        target: str = "",
        relax: float = 0.7,
        beta: float = 0.9,
        at: str = "representation",
    ) -> None:
        super().__init__(tasks, at=at)
        names = [t.name for t in tasks]
        if target and target not in names:
            raise ValueError(f"target '{target}': tasks are {', '.join(names)}")
        if not (0 <= relax <= 1 and 0 <= beta < 1):
            raise ValueError(f"relax {relax}, beta {beta}: relax is between 0 and 1, beta at least 0 and below 1")
        self.target = names.index(target) if target else 0
        self.relax, self.beta = relax, beta
        self.running = torch.zeros(0, len(tasks))

    def get_extra_state(self) -> Tensor:
        """m [shared tensors, T]: how many there are is known only after the first step."""
        return self.running

    def set_extra_state(self, state: Tensor) -> None:
        """Takes the running norms back."""
        self.running = state

    def aggregate(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """Returns the sum of the gradients, each moved towards the norm of the target's."""
        if not rows:
            return []
        norm = torch.stack([r.flatten(1).float().norm(dim=1) for r in rows])
        if self.running.shape != norm.shape:
            self.running = torch.zeros_like(norm)
        self.running = self.running.to(norm)
        self.running = self.beta * self.running + (1 - self.beta) * norm
        target = self.running[:, self.target : self.target + 1]
        both = (self.running > 0) & (target > 0)  # a tensor that one of the two does not read sets no norm
        weights = torch.where(both, self.relax * target / self.running + 1 - self.relax, torch.ones_like(norm))
        return [torch.tensordot(w.to(r), r, dims=1) for w, r in zip(weights, rows, strict=True)]
