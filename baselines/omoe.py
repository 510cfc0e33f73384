"""OMoE: shared experts, mixed by one gate for all tasks (Jacobs et al., Adaptive Mixtures of Local Experts, 1991)."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.distributions import FloatDistribution, IntDistribution
from torch import Tensor

from bench.api import Schema, Task
from bench.nn import Architecture, Gate, MakeInputs, mix, mlps


class Omoe(Architecture):
    """h = sum_k softmax(W x)_k E_k(x); y_t = tower_t(h): MMoE without a gate of its own for each task.

    MTReclib has 8 experts of two layers, 512 and 256.
    """

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
        self.gate = Gate(self.inputs.width, experts)

    def represent(self, x: Tensor, tasks: Sequence[Task]) -> dict[str, Tensor]:
        """Every task reads the same mixture."""
        state = mix(self.gate(x), self.experts(x))
        self.shared.append(state)
        return {t.name: state for t in tasks}
