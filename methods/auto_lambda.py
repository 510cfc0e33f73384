"""Auto-Lambda: task weights that lower the loss on meta-validation after a virtual step (Liu et al., TMLR 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from optuna.distributions import FloatDistribution
from torch import Tensor
from torch.func import functional_call

from bench.api import Batch, Schema
from bench.nn import MakeInputs, MakeTrunk
from methods._weighted import Weighted

LEAST = 1e-3  # no weight is less


class AutoLambda(Weighted):
    """min over lambda of sum_t L_t(theta'; meta batch) with theta' = theta - inner_lr sum_t lambda_t grad L_t(theta).

    The gradient, -inner_lr grad L_t(theta) . grad L_meta(theta'), is exact, as theta' is linear in lambda: every task's
    own gradient (one backward pass a task) takes the place of the paper's finite difference, which dropout would drown.
    lambda starts at 1, descends by Adam with rate ``weight_lr`` before each update, and stays positive; it multiplies
    the losses before the balancer. Meta batches come from the latest tenth of the training groups.
    """

    space = {
        **Weighted.space,
        "inner_lr": FloatDistribution(1e-4, 1.0, log=True),
        "weight_lr": FloatDistribution(1e-4, 0.1, log=True),
    }

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        trunk: MakeTrunk,
        *,
        inner_lr: float = 0.1,
        weight_lr: float = 0.01,
        **settings: Any,
    ) -> None:
        if not (inner_lr > 0 and weight_lr > 0):
            raise ValueError(f"inner_lr {inner_lr}, weight_lr {weight_lr}: both must be positive")
        super().__init__(schema, inputs, trunk, **settings)
        self.inner_lr, self.weight_lr = inner_lr, weight_lr

    def on_start(self, train: Any) -> None:
        """Adam on the weights starts, and so does the stream of meta batches."""
        super().on_start(train)
        weights = self.get_buffer("weights")
        self.adam = torch.optim.Adam([weights], lr=self.weight_lr)
        self.before = weights.tolist()
        self.generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
        self.stream: Iterator[Batch] = iter(())
        self.order, self.size, self.drawn = self.generator.get_state(), 0, 0  # of the stream: its start, rows a batch

    def on_resume(self) -> None:
        """The stream of meta batches, where it was."""
        if self.drawn:
            self._begin_stream()
            self.stream = islice(self.stream, self.drawn, None)

    def step(self, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
        """Moves the weights, then updates as usual."""
        if self.meta is not None:
            weights = self.get_buffer("weights")
            weights.grad = self.gradient(batch, self.meta_batch(batch.item.shape[0]))
            self.adam.step()
            weights.clamp_(min=LEAST)
        return super().step(batch, optimizer)

    def gradient(self, batch: Batch, meta: Batch) -> Tensor:
        """Returns the gradient [T], in the weights, of the summed losses on ``meta`` after the virtual step."""
        weights = self.get_buffer("weights")
        trained = {name: p for name, p in self.named_parameters() if p.requires_grad}
        each = [
            torch.autograd.grad(loss, list(trained.values()), retain_graph=True, materialize_grads=True)
            for loss in self.losses(self(batch), batch) / weights
        ]
        ahead = {
            name: (p - self.inner_lr * torch.tensordot(weights, torch.stack(of), dims=1)).detach().requires_grad_()
            for (name, p), *of in zip(trained.items(), *each, strict=True)
        }
        loss = (self.losses(functional_call(self, ahead, (meta,)), meta) / weights).sum()
        there = torch.autograd.grad(loss, list(ahead.values()), materialize_grads=True)
        along = [torch.stack([(g * m).sum() for g, m in zip(own, there, strict=True)]).sum() for own in each]
        return -self.inner_lr * torch.stack(along)

    def meta_batch(self, size: int) -> Batch:
        """The next one; a new random order begins where one ends."""
        batch = next(self.stream, None)
        if batch is None:
            self.order, self.size, self.drawn = self.generator.get_state(), size, 0
            self._begin_stream()
            batch = next(self.stream)
        self.drawn += 1
        return batch

    def _begin_stream(self) -> None:
        self.generator.set_state(self.order)
        self.stream = self.meta.to(self.get_buffer("weights").device).batches(self.size, self.generator)

    def on_meta(self, epoch: int, metrics: Mapping[str, float], skills: Mapping[str, float]) -> None:
        """Logs the weights."""
        after = self.get_buffer("weights").tolist()
        changes = [
            {"what": f"weight of {task.name}", "from": old, "to": new}
            for task, old, new in zip(self.tasks, self.before, after, strict=True)
        ]
        why = "gradient of the loss on meta-validation after a virtual step, batch by batch"
        self.decisions.append({"epoch": epoch, "metrics": dict(metrics), "changes": changes, "why": why})
        self.before = after
