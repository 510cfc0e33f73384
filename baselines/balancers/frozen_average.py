"""The mean weights of another balancer, held fixed: the control that shows whether adapting them mattered."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bench.api import Balancer, Task


class FrozenAverage(Balancer):
    """L = sum_t a_t L_t, a_t the mean over all steps of the weights of the balancer ``of`` in a first training from the
    same initial weights, with the same batches."""

    of = "famo"

    def __init__(self, tasks: Sequence[Task], of: Callable[[Sequence[Task]], Balancer]) -> None:
        super().__init__(tasks)
        first = of(tasks)
        if not first.weighs or first.pilot() is not None:
            raise ValueError(f"of '{type(first).__name__}': it has no changing weight a task that could be averaged")
        self.build = of
        self.register_buffer("alpha", torch.ones(len(tasks)))

    def combine(self, losses: Tensor) -> Tensor:
        """The weighted sum."""
        return losses @ self.get_buffer("alpha")

    def pilot(self) -> Balancer | None:
        """The balancer whose weights are averaged."""
        return self.build(self.tasks)

    def on_pilot(self, weights: Tensor) -> None:
        """Takes the mean weights [T] of the pilot run."""
        self.get_buffer("alpha").copy_(weights)
