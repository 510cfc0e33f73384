"""Reptile: a start from which a few steps on any one task go far (Nichol et al., 2018), for adapters and heads."""

from __future__ import annotations

from typing import Any

import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from torch import Tensor

from baselines.metaheac import halves
from bench.api import Batch, Schema
from bench.nn import MakeInputs, MakeTrunk
from methods.fomaml import OVER
from methods.lora import Lora


class Reptile(Lora):
    """theta += step_size mean_i (theta_i - theta), theta_i after ``inner_steps`` updates from theta on task i alone.

    theta is all that is trained: adapters, trunk and heads. The inner updates are those of the engine's optimiser, at
    its learning rates; they take the two halves of the task's groups in turn.
    over: what a task of meta-learning is. ``users``: the users of one half of a batch's groups, with all losses.
        ``tasks``: a recommendation task, its loss alone; a balancer then has nothing to balance.
    """

    space = {
        **Lora.space,
        "over": CategoricalDistribution(OVER),
        "inner_steps": IntDistribution(1, 10),
        "step_size": FloatDistribution(0.01, 1.0),
    }

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        trunk: MakeTrunk,
        *,
        over: str = "users",
        inner_steps: int = 2,
        step_size: float = 0.5,
        **settings: Any,
    ) -> None:
        if over not in OVER:
            raise ValueError(f"over '{over}': choose {' or '.join(OVER)}")
        if inner_steps < 1 or not 0 < step_size <= 1:
            raise ValueError(f"inner_steps {inner_steps}, step_size {step_size}: at least 1, and in (0, 1]")
        super().__init__(schema, inputs, trunk, **settings)
        self.over, self.inner_steps, self.step_size = over, inner_steps, step_size

    def step(self, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
        """Moves the parameters towards where inner updates lead. Returns the mean losses before each inner update."""
        parts = halves(batch, self.tasks) or (batch,)
        trained = [p for p in self.parameters() if p.requires_grad]
        start = [p.detach().clone() for p in trained]
        moved = [torch.zeros_like(p) for p in start]
        losses = []
        tasks: list[tuple[Batch, int | None]] = [(part, None) for part in parts]
        if self.over == "tasks":
            tasks = [(batch, place) for place in range(len(self.tasks))]
        for of, task in tasks:
            pieces = halves(of, self.tasks) or (of,)
            losses += [self.update(pieces[i % len(pieces)], task, optimizer) for i in range(self.inner_steps)]
            with torch.no_grad():
                for p, first, total in zip(trained, start, moved, strict=True):
                    total += (p - first) / len(tasks)
                    p.copy_(first)
        with torch.no_grad():
            for p, total in zip(trained, moved, strict=True):
                p.add_(total, alpha=self.step_size)
        return torch.stack(losses).mean(dim=0)

    def update(self, batch: Batch, task: int | None, optimizer: torch.optim.Optimizer) -> Tensor:
        """One update of the inner loop, on all losses or on one task's; the losses [T] before it."""
        if task is None:
            return super().step(batch, optimizer)
        optimizer.zero_grad(set_to_none=True)
        losses = self.losses(self(batch), batch)
        torch.autograd.backward(losses[task])
        optimizer.step()
        return losses.detach()
