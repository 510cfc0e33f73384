"""AdaTT-sp: each task mixes all tasks' experts, adding its own (Li et al., Adaptive Task-to-Task Fusion, KDD 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from optuna.distributions import FloatDistribution, IntDistribution
from torch import Tensor, nn

from bench.api import Schema, Task
from bench.nn import Architecture, Gate, MakeInputs, mix, mlps


class Level(nn.Module):
    """Each task's experts, its gate over all experts, and the weights v_t of its residual (none for one expert)."""

    def __init__(
        self, tasks: Sequence[Task], width_in: int, width: int, *, task_experts: int, depth: int, dropout: float
    ) -> None:
        super().__init__()
        self.experts = nn.ModuleDict({t.name: mlps(task_experts, width_in, width, depth, dropout) for t in tasks})
        self.gates = nn.ModuleDict({t.name: Gate(width_in, len(tasks) * task_experts) for t in tasks})
        most = task_experts**-0.5
        self.residual = nn.ParameterDict(
            {t.name: nn.Parameter(torch.empty(task_experts).uniform_(-most, most)) for t in tasks}
            if task_experts > 1
            else {}
        )

    def own(self, name: str, states: Tensor) -> Tensor:
        """A task's residual from its own experts' states [N, task_experts, width] -> [N, width]."""
        return self.residual[name] @ states if self.residual else states.squeeze(1)


class Adatt(Architecture):
    """Level l: h_t^l = sum_k softmax(W_t^l h_t^(l-1))_k E_k over the experts of all tasks, + sum_j v_tj^l E_tj over its
    own. A task's experts read its own h^(l-1); h^0 = x; y_t = tower_t(h_t^L).

    v starts uniform in +-sqrt(1 / task_experts) and is 1 for one expert. The authors' example has one level of 2
    experts a task, of two layers of 128. The paper's general form with shared experts beside the tasks' is left out.
    """

    space = {
        "levels": IntDistribution(1, 3),
        "task_experts": IntDistribution(1, 4),
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
        levels: int = 2,
        task_experts: int = 1,
        width: int = 64,
        depth: int = 1,
        tower: int = 32,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(schema, inputs, width=width, tower=tower, dropout=dropout)
        self.levels = nn.ModuleList(
            Level(
                self.tasks,
                width if i else self.inputs.width,
                width,
                task_experts=task_experts,
                depth=depth,
                dropout=dropout,
            )
            for i in range(levels)
        )

    def represent(self, x: Tensor, tasks: Sequence[Task]) -> dict[str, Tensor]:
        """Level by level; on the last, all experts, but only the mixtures of ``tasks``."""
        here, everywhere = [t.name for t in tasks], [t.name for t in self.tasks]
        own, seen = dict.fromkeys(everywhere, x), dict.fromkeys(everywhere, x.view_as(x))
        for above, level in zip(reversed(range(len(self.levels))), cast(Sequence[Level], self.levels), strict=True):
            specific = {name: level.experts[name](own[name]) for name in everywhere}
            states = torch.cat(list(specific.values()), dim=1)  # [N, tasks * task_experts, width]
            if not above:  # the gates of the first level all read one tensor, those of others each its own
                self.shared += [states, *dict.fromkeys(seen[name] for name in here)]
                specific = dict(zip(everywhere, states.chunk(len(everywhere), dim=1), strict=True))
            own = {
                name: mix(level.gates[name](seen[name]), states) + level.own(name, specific[name])
                for name in (everywhere if above else here)
            }
            seen = {name: state.view_as(state) for name, state in own.items()}  # apart from the experts' way to it
        return own
