"""Shared-bottom: one bottom network for all tasks, one tower each (Caruana, Machine Learning 1997)."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.distributions import FloatDistribution, IntDistribution
from torch import Tensor

from bench.api import Schema, Task
from bench.nn import Architecture, MakeInputs, mlp


class SharedBottom(Architecture):
    """h = MLP(x); y_t = tower_t(h)."""

    space = {
        "width": IntDistribution(32, 256, step=32),
        "depth": IntDistribution(1, 3),
        "tower": IntDistribution(16, 64, step=16),
        "dropout": FloatDistribution(0.0, 0.5),
    }

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        *,
        width: int = 128,
        depth: int = 1,
        tower: int = 32,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(schema, inputs, width=width, tower=tower, dropout=dropout)
        self.bottom = mlp(self.inputs.width, width, depth, dropout)

    def represent(self, x: Tensor, tasks: Sequence[Task]) -> dict[str, Tensor]:
        """Every task reads the same representation."""
        state = self.bottom(x)
        self.shared.append(state)
        return {t.name: state for t in tasks}
