"""First-order MAML: a start that is good after one step of adaptation (Finn et al., MAML, ICML 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution
from torch import Tensor
from torch.func import functional_call

from baselines.metaheac import adapt, halves
from bench.api import Batch, Schema
from bench.nn import MakeInputs, MakeTrunk
from methods.lora import Lora

OVER = ("users", "tasks")


class Fomaml(Lora):
    """theta' = theta - inner_lr grad L_support(theta); the gradient of L_query at theta' is applied to theta.

    theta is all that is trained: adapters, trunk and heads. First order: theta' - theta counts as a constant. Each half
    of a batch's groups is support once and query once; the two query losses are averaged.
    over: what a task of meta-learning is. ``users``: the users of a half, L the sum of all losses. ``tasks``: a
        recommendation task, L its own loss, so that each has a theta' of its own; the gradients of its query loss are
        taken there (one more pass a task). They are not taken at the same representations then: a balancer of
        gradients compares them with ``balancer.at=parameters``.
    """

    space = {
        **Lora.space,
        "over": CategoricalDistribution(OVER),
        "inner_lr": FloatDistribution(1e-5, 1.0, log=True),
    }

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        trunk: MakeTrunk,
        *,
        over: str = "users",
        inner_lr: float = 0.01,
        **settings: Any,
    ) -> None:
        if over not in OVER:
            raise ValueError(f"over '{over}': choose {' or '.join(OVER)}")
        if inner_lr < 0:
            raise ValueError(f"inner_lr {inner_lr}: it must not be negative")
        super().__init__(schema, inputs, trunk, **settings)
        self.over, self.inner_lr = over, inner_lr

    def step(self, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
        """Makes one update by two halves of the batch. A batch of one group, which has none, makes an ordinary one."""
        parts = halves(batch, self.tasks)
        if parts is None:
            return super().step(batch, optimizer)
        losses, shared = [], []
        for support, query in (parts, parts[::-1]):
            found = []
            for adapted in self.adapted(support):
                found.append(self.losses(functional_call(self, adapted, (query,)), query))
                shared += self.shared
            losses.append(found[0] if self.over == "users" else torch.stack(found).diagonal())
        total = torch.stack(losses).mean(dim=0)
        self.shared = shared
        return self.backward_and_step(total, batch, optimizer)

    def adapted(self, support: Batch) -> Sequence[dict[str, Tensor]]:
        """theta' of every task of meta-learning: one for all users of the half, or one for each recommendation task."""
        if self.over == "users":
            return [adapt(self, support, self.inner_lr)]
        trained = {name: p for name, p in self.named_parameters() if p.requires_grad}
        losses = self.losses(self(support), support)
        return [descended(trained, loss, self.inner_lr) for loss in losses]


def descended(trained: Mapping[str, Tensor], loss: Tensor, rate: float) -> dict[str, Tensor]:
    """Parameters after a step of gradient descent, of those that the loss depends on; its graph is kept."""
    gradients = torch.autograd.grad(loss, list(trained.values()), retain_graph=True, allow_unused=True)
    return {n: p - rate * g for (n, p), g in zip(trained.items(), gradients, strict=True) if g is not None}
