"""HoME: normalised experts, grouped tasks, extra gates (Wang et al., Hierarchy of Multi-Gate Experts, KDD 2025)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from optuna.distributions import FloatDistribution, IntDistribution
from torch import Tensor, nn

from bench.api import Schema, Task
from bench.nn import Architecture, BatchNorm, Dropout, Experts, Gate, MakeInputs, mix


class Expert(nn.Module):
    """f(x * 2 sigmoid(A B x)): the feature gate A B of low rank, then layers f of linear, batch norm, swish."""

    def __init__(self, width_in: int, width: int, depth: int, dropout: float, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width_in, rank, bias=False)
        self.up = nn.Linear(rank, width_in, bias=False)
        layers: list[nn.Module] = []
        for i in range(depth):
            linear = nn.Linear(width if i else width_in, width, bias=False)
            layers += [linear, BatchNorm(width), nn.SiLU(), Dropout(dropout)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, width_in] -> [N, width]."""
        state: Tensor = self.layers(x * (2 * torch.sigmoid(self.up(self.down(x)))))
        return state


class Unit(nn.Module):
    """softmax(W v) over the experts that the unit may see, plus the self gate over its own: sigmoid for one expert,
    softmax for several."""

    def __init__(self, width_in: int, seen: int, own: int) -> None:
        super().__init__()
        self.gate = Gate(width_in, seen)
        self.self_gate = Gate(width_in, own) if own > 1 else nn.Sequential(nn.Linear(width_in, 1), nn.Sigmoid())

    def forward(self, v: Tensor, others: Sequence[Tensor], own: Tensor) -> Tensor:
        """v [N, width_in], states of other experts and of its own [N, experts, width] -> [N, width]."""
        return mix(self.gate(v), torch.cat([*others, own], dim=1)) + mix(self.self_gate(v), own)


def category(task: Task) -> str:
    """The meta-category of a task: its scope and kind."""
    return f"{task.scope}_{task.kind}"


class Home(Architecture):
    """First layer, for each category c of tasks: z_c = U_c(x) over the shared experts and those of c, and
    z_S = U_S(x) over the experts of all categories and its own. Second layer: h_t = U_t([z_c, z_S]) over the shared
    experts, which read z_S, those of the task's category and its own, both of which read z_c; y_t = tower_t(h_t).

    U(v) = sum_k softmax(W v)_k E_k + sum_j g(v)_j E_j, j over the unit's own experts (self gate), g a sigmoid for one
    expert and a softmax for several. E(x) = swish(BN(W (x * 2 sigmoid(A B x)))) (expert norm and feature gate, one of
    low rank for each expert; the paper mixes several ranks). The paper's categories, watching and interaction, are
    Kuaishou's own; here the tasks of one scope and kind form one. ``norm`` concerns the towers only.
    """

    space = {
        "experts": IntDistribution(1, 4),
        "rank": IntDistribution(2, 32),
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
        experts: int = 1,
        rank: int = 8,
        width: int = 64,
        depth: int = 1,
        tower: int = 32,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(schema, inputs, width=width, tower=tower, dropout=dropout)
        read = self.inputs.width

        def make(width_in: int) -> Experts:
            return Experts(Expert(width_in, width, depth, dropout, rank) for _ in range(experts))

        categories = list(dict.fromkeys(map(category, self.tasks)))
        self.first_shared = make(read)
        self.first_category = nn.ModuleDict({c: make(read) for c in categories})
        self.shared_unit = Unit(read, (len(categories) + 1) * experts, experts)
        self.category_units = nn.ModuleDict({c: Unit(read, 2 * experts, experts) for c in categories})
        self.second_shared = make(width)
        self.second_category = nn.ModuleDict({c: make(width) for c in categories})
        self.second_own = nn.ModuleDict({t.name: make(width) for t in self.tasks})
        self.task_units = nn.ModuleDict({t.name: Unit(2 * width, 3 * experts, experts) for t in self.tasks})

    def represent(self, x: Tensor, tasks: Sequence[Task]) -> dict[str, Tensor]:
        """The first layer sees all categories, the second only those of ``tasks``."""
        states = self.first_shared(x)
        of_category = {c: experts(x) for c, experts in self.first_category.items()}
        z_shared = self.shared_unit(x, list(of_category.values()), states)
        shared, seen_shared = self.second_shared(z_shared), z_shared.view_as(z_shared)
        self.shared += [shared, seen_shared]
        seen, common = {}, {}
        for c in dict.fromkeys(map(category, tasks)):
            z = self.category_units[c](x, [states], of_category[c])
            seen[c], common[c] = z.view_as(z), self.second_category[c](z)
            self.shared += [seen[c], common[c]]
        return {t.name: self.unit(t, seen[category(t)], seen_shared, [common[category(t)], shared]) for t in tasks}

    def unit(self, task: Task, z: Tensor, z_shared: Tensor, others: Sequence[Tensor]) -> Tensor:
        """A task's unit of the second layer. z, z_shared [N, width], others [N, experts, width] each -> [N, width]."""
        state: Tensor = self.task_units[task.name](
            torch.cat([z, z_shared], dim=1), others, self.second_own[task.name](z)
        )
        return state
