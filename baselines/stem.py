"""STEM-Net: embeddings and experts, shared and of each task (Su et al., STEM: Unleashing the Power, AAAI 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from optuna.distributions import FloatDistribution, IntDistribution
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Schema, Task
from bench.nn import Architecture, Gate, MakeInputs, mix, mlps


class Stem(Architecture):
    """h_t = sum_k softmax(W_t (x_t + x_S))_k E_k over the shared experts, which read x_S, and those of every task s,
    which read x_s; y_t = tower_t(h_t). x_S, x_1, ..., x_T come from an input layer each.

    All forward, task-specific backward: task t's loss does not train the experts and inputs of the other tasks. Those
    of a user-scope task read the user side alone for the other tasks too, since no loss trains them on candidates. The
    paper has 8 shared experts and 1 a task, of three layers of 512, and a gate of two layers, 128 and 64; here the gate
    is linear, as in the other architectures.
    """

    space = {
        "shared_experts": IntDistribution(1, 8),
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
        shared_experts: int = 2,
        task_experts: int = 1,
        width: int = 64,
        depth: int = 1,
        tower: int = 32,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(schema, inputs, width=width, tower=tower, dropout=dropout)
        read, total = self.inputs.width, shared_experts + len(self.tasks) * task_experts
        self.own_inputs = nn.ModuleDict({t.name: inputs(replace(schema, tasks=(t,))) for t in self.tasks})
        self.common = mlps(shared_experts, read, width, depth, dropout)
        self.own = nn.ModuleDict({t.name: mlps(task_experts, read, width, depth, dropout) for t in self.tasks})
        self.gates = nn.ModuleDict({t.name: Gate(read, total) for t in self.tasks})
        self.own_x: dict[str, dict[str, Tensor]] = {}  # scope -> task -> x_t, while a batch is under way

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the raw outputs of all tasks; every task reads its own embeddings and the shared ones."""
        self.own_x = {"pair": {}, "user": {}}
        for task in self.tasks:
            pair, user = self.own_inputs[task.name](batch)
            if task.scope == "user":
                user = F.pad(user, (0, self.inputs.width - user.shape[1]))  # the zeros of a candidate's place
                pair = user.index_select(0, batch.group)
            self.own_x["pair"][task.name], self.own_x["user"][task.name] = pair, user
        outputs = super().forward(batch)
        self.own_x = {}
        return outputs

    def represent(self, x: Tensor, tasks: Sequence[Task]) -> dict[str, Tensor]:
        """x: the shared inputs x_S. Each task mixes all experts, the other tasks' cut off from its gradient."""
        own = self.own_x[tasks[0].scope]
        states, seen = self.common(x), x.view_as(x)
        self.shared += [states, seen]
        specific = {name: self.own[name](own_x) for name, own_x in own.items()}
        mixed = {}
        for task in tasks:
            visible = [s if name == task.name else s.detach() for name, s in specific.items()]
            weights = self.gates[task.name](own[task.name] + seen)
            mixed[task.name] = mix(weights, torch.cat([states, *visible], dim=1))
        return mixed
