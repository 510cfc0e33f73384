"""DBMTL: each task also reads the hidden layers of those before it (Wang et al., Deep Bayesian MTL, arXiv 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from optuna.distributions import FloatDistribution, IntDistribution
from torch import Tensor, nn

from baselines.esmm import find_funnel
from bench.api import Schema, Task
from bench.nn import Architecture, MakeInputs, mlp


class Dbmtl(Architecture):
    """h = MLP(x); r_t = MLP_t([task_t(h), r_s for each s before t]); y_t = tower_t(r_t): p(y_t | x, what comes before).

    Order of the pair-scope tasks: the funnel's steps if there is a funnel, then the others as the data set lists them.
    A task with nothing before it, as every user-scope task, has r_t = task_t(h).
    """

    space = {
        "width": IntDistribution(32, 256, step=32),
        "hidden": IntDistribution(16, 128, step=16),
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
        hidden: int = 32,
        depth: int = 1,
        tower: int = 32,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(schema, inputs, width=hidden, tower=tower, dropout=dropout)
        self.bottom = mlp(self.inputs.width, width, depth, dropout)
        self.own = nn.ModuleDict({t.name: mlp(width, hidden, 1, dropout) for t in self.tasks})
        found = find_funnel(schema)
        first = found.steps if found is not None else ()
        order = [*first, *(t for t in self.tasks if t.scope == "pair" and t not in first)]
        self.before = {t.name: [s.name for s in order[:i]] for i, t in enumerate(order)}
        self.relations = nn.ModuleDict(
            {name: mlp((1 + len(above)) * hidden, hidden, 1, dropout) for name, above in self.before.items() if above}
        )

    def represent(self, x: Tensor, tasks: Sequence[Task]) -> dict[str, Tensor]:
        """In causal order, so that what a task reads is there."""
        bottom = self.bottom(x)
        self.shared.append(bottom)
        states = {t.name: self.own[t.name](bottom) for t in tasks}
        for name, above in self.before.items():
            if above and name in states:
                states[name] = self.relations[name](torch.cat([states[s] for s in (name, *above)], dim=1))
        return states
