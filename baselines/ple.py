"""PLE: levels of shared and task-specific experts (Tang et al., Progressive Layered Extraction, RecSys 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from optuna.distributions import FloatDistribution, IntDistribution
from torch import Tensor, nn

from bench.api import Schema, Task
from bench.nn import Architecture, Gate, MakeInputs, mix, mlps


class Level(nn.Module):
    """Shared experts, each task's own experts, a gate a task and, except on the last level, the shared unit's gate."""

    def __init__(
        self,
        tasks: Sequence[Task],
        width_in: int,
        width: int,
        *,
        shared_experts: int,
        task_experts: int,
        depth: int,
        dropout: float,
        last: bool,
    ) -> None:
        super().__init__()
        self.common = mlps(shared_experts, width_in, width, depth, dropout)
        self.own = nn.ModuleDict({t.name: mlps(task_experts, width_in, width, depth, dropout) for t in tasks})
        self.gates = nn.ModuleDict({t.name: Gate(width_in, shared_experts + task_experts) for t in tasks})
        self.shared_gate = None if last else Gate(width_in, shared_experts + len(tasks) * task_experts)


class Ple(Architecture):
    """Level l: h_t^l = sum_k softmax(W_t^l h_t^(l-1))_k E_k over the shared experts, which read h_S^(l-1), and the
    task's own, which read h_t^(l-1); the shared unit h_S^l = sum_k softmax(W_S^l h_S^(l-1))_k E_k over all experts of
    the level, those of every task included. h^0 = x; the last level has no shared unit; y_t = tower_t(h_t^L).

    The shared unit sees the experts of tasks of the other scope too. MTReclib has 4 shared and 4 task-specific experts
    on 2 levels, MMLRec 2 and 3, TorchEasyRec 2 and 2 on the first level, 1 and 1 on the second.
    """

    space = {
        "levels": IntDistribution(2, 3),
        "shared_experts": IntDistribution(1, 4),
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
        shared_experts: int = 2,
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
                shared_experts=shared_experts,
                task_experts=task_experts,
                depth=depth,
                dropout=dropout,
                last=i == levels - 1,
            )
            for i in range(levels)
        )

    def represent(self, x: Tensor, tasks: Sequence[Task]) -> dict[str, Tensor]:
        """Level by level; on the last, only what ``tasks`` read."""
        here, everywhere = [t.name for t in tasks], [t.name for t in self.tasks]
        shared, own = x, dict.fromkeys(everywhere, x.view_as(x))
        for above, level in zip(reversed(range(len(self.levels))), cast(Sequence[Level], self.levels), strict=True):
            states = level.common(shared)
            specific = {name: level.own[name](own[name]) for name in (everywhere if above else here)}
            if level.shared_gate is not None:
                shared = mix(level.shared_gate(shared), torch.cat([states, *specific.values()], dim=1))
            else:  # on the first level all tasks read one tensor, on others each its own
                self.shared += [states, *dict.fromkeys(own[name] for name in here)]
            # The unit of an absent task matters only while a shared gate above still sees the experts that read it.
            own = {
                name: mix(level.gates[name](own[name]), torch.cat([states, specific[name]], dim=1))
                for name in (everywhere if above > 1 else here)
            }
        return own
