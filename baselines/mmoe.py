"""MMoE: shared experts, mixed by one gate a task (Ma et al., Multi-gate Mixture-of-Experts, KDD 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from optuna.distributions import FloatDistribution, IntDistribution
from torch import Tensor, nn

from bench.api import Schema, Task
from bench.nn import Architecture, Gate, MakeInputs, mlps


class Mmoe(Architecture):
    """h_t = sum_k softmax(W_t x)_k E_k(x) (eq. 6-7); y_t = tower_t(h_t)."""

    space = {
        "experts": IntDistribution(2, 8),
        "width": IntDistribution(16, 128, step=16),
        "depth": IntDistribution(1, 3),
        "tower": IntDistribution(16, 64, step=16),
        "dropout": FloatDistribution(0.0, 0.5),
    }

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        *,
        experts: int = 4,
        width: int = 64,
        depth: int = 1,
        tower: int = 32,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(schema, inputs, width=width, tower=tower, dropout=dropout)
        self.experts = mlps(experts, self.inputs.width, width, depth, dropout)
        self.gates = nn.ModuleDict({t.name: Gate(self.inputs.width, experts) for t in self.tasks})

    def represent(self, x: Tensor, tasks: Sequence[Task]) -> dict[str, Tensor]:
        """Each task mixes the experts by its own gate."""
        states = self.experts(x)
        seen = x.view_as(x)  # what the gates read, apart from the experts' way to the same input
        self.shared += [states, seen]
        weights = torch.stack([self.gates[t.name](seen) for t in tasks], dim=1)
        mixed = torch.bmm(weights, states)  # [N, tasks, width]
        return {t.name: mixed[:, i] for i, t in enumerate(tasks)}
