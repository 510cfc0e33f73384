"""DTP: more weight for harder tasks (Guo et al., Dynamic Task Prioritization for Multitask Learning, ECCV 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from optuna.distributions import FloatDistribution
from torch import Tensor

from bench.api import Balancer, Task
from bench.metrics import METRICS

EPS = 1e-3


class Dtp(Balancer):
    """L = sum_t w_t L_t, w_t ~ -(1 - k_t)^gamma log k_t, sum_t w_t = T; k_t the running mean over epochs of the task's
    primary validation metric, k += momentum (metric - k). An error e, smaller being better, counts as exp(-e).

    Equal weights in the first epoch; a task without a metric keeps weight 1.
    """

    space = {"gamma": FloatDistribution(0.0, 5.0), "momentum": FloatDistribution(0.1, 1.0)}

    def __init__(self, tasks: Sequence[Task], *, gamma: float = 1.0, momentum: float = 0.5) -> None:
        super().__init__(tasks)
        if not (gamma >= 0 and 0 < momentum <= 1):
            raise ValueError(f"gamma {gamma}, momentum {momentum}: gamma is at least 0, momentum above 0 and at most 1")
        self.gamma, self.momentum = gamma, momentum
        self.register_buffer("alpha", torch.ones(len(tasks)))
        self.register_buffer("progress", torch.full((len(tasks),), torch.nan))

    def combine(self, losses: Tensor) -> Tensor:
        """The weighted sum."""
        return losses @ self.get_buffer("alpha")

    def on_epoch(self, epoch: int, losses: Tensor, valid: Mapping[str, float]) -> None:
        """Sets the weights from the validation metrics of all epochs so far."""
        progress = self.get_buffer("progress")
        new = torch.tensor([valid.get(t.name, torch.nan) for t in self.tasks], dtype=progress.dtype).to(progress)
        errors = torch.tensor([not METRICS[t.metrics[0]].larger for t in self.tasks]).to(progress.device)
        new = torch.where(errors, (-new).exp(), new)
        moved = torch.where(progress.isnan(), new, progress + self.momentum * (new - progress))
        progress.copy_(torch.where(new.isnan(), progress, moved))
        k = progress.clamp(EPS, 1 - EPS)
        focal = -((1 - k) ** self.gamma) * k.log()
        self.get_buffer("alpha").copy_((focal / focal.nanmean()).nan_to_num(1.0))
