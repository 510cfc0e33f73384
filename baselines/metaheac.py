"""MetaHeac: gated experts and critics, trained for what one step of adaptation makes of them (Zhu et al., KDD 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from optuna.distributions import FloatDistribution, IntDistribution
from torch import Tensor, nn
from torch.func import functional_call

from bench.api import Batch, Method, Schema, Task
from bench.nn import Architecture, Gate, MakeInputs, mix, mlps


def halves(batch: Batch, tasks: Sequence[Task]) -> tuple[Batch, Batch] | None:
    """A batch in two by its groups, the first half and the rest; None for a single group."""
    groups = batch.user_cat.shape[0]
    middle = groups // 2
    if middle == 0:
        return None
    row = int((batch.group < middle).sum())  # groups are non-decreasing

    def part(of: slice, rows: slice) -> Batch:
        return replace(
            batch,
            user_cat=batch.user_cat[of],
            user_num=batch.user_num[of],
            history=batch.history[of],
            item=batch.item[rows],
            pair_cat=batch.pair_cat[rows],
            pair_num=batch.pair_num[rows],
            group=batch.group[rows] - of.start,
            labels={t.name: batch.labels[t.name][of if t.scope == "user" else rows] for t in tasks},
        )

    return part(slice(0, middle), slice(0, row)), part(slice(middle, groups), slice(row, batch.item.shape[0]))


class MetaHeac(Architecture):
    """h_t = sum_k softmax(W [x, e_t])_k E_k(x), c_t = sum_j softmax(V [x, e_t])_j C_j(h_t), y_t = w_t c_t + b_t.

    e_t is the task's embedding; experts E_k, critics C_j and both gates are shared by all tasks.

    Update: theta' = theta - local_lr grad L_support(theta), then the gradient of L_query at theta' is applied to theta
    (first order: theta' - theta counts as a constant). Each half of a batch's groups is support once and query once,
    and the two query losses are averaged, so that every row trains, as it does for other methods.
    """

    space = {
        "experts": IntDistribution(2, 8),
        "critics": IntDistribution(2, 8),
        "local_lr": FloatDistribution(1e-5, 1e-1, log=True),
        "task_width": IntDistribution(4, 32, step=4),
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
        critics: int = 5,
        local_lr: float = 2e-4,
        task_width: int = 16,
        width: int = 64,
        depth: int = 1,
        tower: int = 32,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(schema, inputs, width=width, tower=tower, dropout=dropout)
        self.local_lr = local_lr
        self.place = {t.name: i for i, t in enumerate(self.tasks)}
        self.codes = nn.Embedding(len(self.tasks), task_width)
        self.experts = mlps(experts, self.inputs.width, width, depth, dropout)
        self.critics = mlps(critics, width, tower, 1, dropout)
        self.expert_gate = Gate(self.inputs.width + task_width, experts)
        self.critic_gate = Gate(self.inputs.width + task_width, critics)
        # The critics take the place of the towers' hidden layers; an output of its own is left to each task.
        self.towers = nn.ModuleDict({t.name: nn.Sequential(nn.Linear(tower, t.outputs)) for t in self.tasks})

    def represent(self, x: Tensor, tasks: Sequence[Task]) -> dict[str, Tensor]:
        """[N, tower] for each task: its mixture of critics on its mixture of experts."""
        states = self.experts(x)
        seen = x.view_as(x)  # what the gates read, apart from the experts' way to the same input
        self.shared += [states, seen]
        return {t.name: self.judge(states, seen, self.place[t.name]) for t in tasks}

    def judge(self, states: Tensor, seen: Tensor, place: int) -> Tensor:
        """states [N, experts, width], seen [N, inputs.width] -> [N, tower] for one task."""
        read = torch.cat([seen, self.codes.weight[place].expand(seen.shape[0], -1)], dim=1)
        mixed = mix(self.expert_gate(read), states)
        return mix(self.critic_gate(read), self.critics(mixed))

    def step(self: Method, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
        """Makes one update by two halves of the batch. ``self`` may be a method built on this architecture: then its
        forward and losses count."""
        parts = halves(batch, self.tasks)
        if parts is None:
            return Method.step(self, batch, optimizer)
        rate = next(m.local_lr for m in self.modules() if isinstance(m, MetaHeac))
        losses, shared = [], []
        for support, query in (parts, parts[::-1]):
            adapted = adapt(self, support, rate)
            losses.append(self.losses(functional_call(self, adapted, (query,)), query))
            shared += self.shared
        total = torch.stack(losses).mean(dim=0)
        self.shared = shared
        return self.backward_and_step(total, batch, optimizer)


def adapt(method: Method, support: Batch, rate: float) -> dict[str, Tensor]:
    """Parameters after a step of gradient descent on the summed losses of ``support``; the step is a constant."""
    trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
    loss = method.losses(method(support), support).sum()
    gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    return {n: p - rate * g for (n, p), g in zip(trained.items(), gradients, strict=True) if g is not None}
