"""What gradient balancers share: each task's gradient at the representations or parameters that several tasks read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from bench.api import Balancer, Task

AT: dict[str, BaseDistribution] = {"at": CategoricalDistribution(["representation", "parameters"])}


class GradientBalancer(Balancer):
    """d = sum_t w_t g_t for what is shared; a task's own parameters get the gradient of its own loss.

    at: where g_t is taken. ``representation``: at the tensors that several tasks read, which costs one more pass a task
        through the towers only. ``parameters``: at all shared parameters, one more pass a task through the whole model.
    A subclass gives ``weigh`` (weights from the Gram matrix) or ``aggregate`` (any combination). The scale is that of
    the sum of the losses: what the papers state for the mean gradient is multiplied by the number of tasks. A task
    without a gradient (no label in the batch) is left out and has weight 1.
    """

    space = AT

    def __init__(self, tasks: Sequence[Task], *, at: str = "representation") -> None:
        super().__init__(tasks)
        if at not in AT["at"].choices:  # type: ignore[attr-defined]
            raise ValueError(f"at '{at}': choose representation or parameters")
        self.at = cast(Literal["representation", "parameters"], at)

    def scale(self, losses: Tensor) -> Tensor:
        """Factors [T] of the losses [T] before anything is differentiated: for towers and shared parts alike."""
        return torch.ones_like(losses)

    def weigh(self, gram: Tensor) -> Tensor:
        """w [T] from gram[i, j] = g_i . g_j, float64 on the CPU with a mean diagonal of 1 and no zero on it.

        Its rows are those of the tasks ``self.live``.
        """
        return torch.ones(len(gram), dtype=gram.dtype)

    def aggregate(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """One gradient for each shared tensor from the rows [T, ...] of all tasks' gradients. Sets ``weights``."""
        gram = gram_of(rows, len(self.tasks))
        live = (gram.diagonal() > 0).nonzero().flatten()
        weights = torch.ones(len(self.tasks), dtype=gram.dtype)
        if len(live):
            part = gram[live][:, live]
            self.live = live.tolist()
            weights[live] = self.weigh(part / part.diagonal().mean()).to(gram.dtype)
        self.weights = weights.to(self.factors) * self.factors
        return [torch.tensordot(weights.to(r), r, dims=1) for r in rows]

    def backward(self, losses: Tensor, shared: Sequence[Tensor]) -> None:
        """Writes the gradients of losses [T]: in what is shared the aggregate, elsewhere each task's own."""
        reached = [s for s in shared if s.requires_grad]
        self.factors = self.scale(losses.detach())
        if not reached:
            self.aggregate([])
            torch.autograd.backward(losses, self.factors)
            return
        rows = self._at_representation(losses, reached)
        if self.at == "representation":
            torch.autograd.backward(reached, cast(Any, self.aggregate(rows)))
            return
        below = leaves([s.grad_fn for s in reached], stop=())
        each = [
            torch.autograd.grad(reached, below, [r[t] for r in rows], retain_graph=True, allow_unused=True)
            for t in range(len(losses))
        ]
        _add(below, self.aggregate(_stack(below, each)))

    def _at_representation(self, losses: Tensor, shared: Sequence[Tensor]) -> list[Tensor]:
        """Each task's gradient at each of ``shared``, [T, ...]. Writes those of the parameters above on the way."""
        stop = [s.grad_fn for s in shared]
        each: list[Sequence[Tensor | None]] = []
        for edge, factor in zip(_edges(losses), self.factors, strict=True):
            if edge is None:
                each.append((None,) * len(shared))
                continue
            own = leaves([edge.node], stop)
            found = torch.autograd.grad(
                [edge], [*shared, *own], [factor.to(losses.dtype)], retain_graph=True, allow_unused=True
            )
            each.append(found[: len(shared)])
            _add(own, found[len(shared) :])
        return _stack(shared, each)


def gram_of(rows: Sequence[Tensor], tasks: int) -> Tensor:
    """gram[i, j] = g_i . g_j over all rows [T, ...], in float64 on the CPU: solvers divide by small differences."""
    gram = torch.zeros(tasks, tasks, dtype=torch.float64)
    for row in rows:
        flat = row.flatten(1).double()
        gram += (flat @ flat.T).cpu()
    return gram


def leaves(roots: Iterable[Any], stop: Iterable[Any]) -> list[Tensor]:
    """The parameters from which autograd nodes were computed, without passing through the nodes ``stop``."""
    seen, todo, found = set(stop), list(roots), []
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        todo += [n for n, _ in node.next_functions]
    return found


def _edges(losses: Tensor) -> list[GradientEdge | None]:
    """Where each loss was computed. Through the stacked vector, a pass for one task would run all tasks' towers."""
    node: Any = losses.grad_fn
    if node.name() == "StackBackward0":
        return [GradientEdge(n, i) if n is not None else None for n, i in node.next_functions]
    return [get_gradient_edge(loss) for loss in losses]


def _stack(at: Sequence[Tensor], each: Sequence[Sequence[Tensor | None]]) -> list[Tensor]:
    """Gradients by task, then tensor -> one [T, ...] a tensor, zero where a task does not reach it."""
    return [
        torch.stack([torch.zeros_like(x) if g is None else g for g in found])
        for x, found in zip(at, zip(*each, strict=True), strict=True)
    ]


def _add(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    for p, g in zip(parameters, gradients, strict=True):
        if g is not None:
            p.grad = g if p.grad is None else p.grad + g
