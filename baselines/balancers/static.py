"""Static scalarisation: a fixed weight for each task, from the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bench.api import Balancer, Task


class Static(Balancer):
    """L = sum_t alpha_t L_t; a task that ``weights`` does not name has weight 1."""

    def __init__(self, tasks: Sequence[Task], *, weights: Mapping[str, float] | None = None) -> None:
        super().__init__(tasks)
        given = weights or {}
        names = [t.name for t in tasks]
        wrong = sorted(set(given) - set(names)) or [k for k, v in given.items() if not v >= 0]
        if wrong:
            raise ValueError(f"weight of '{wrong[0]}': tasks are {', '.join(names)}, weights are at least 0")
        self.register_buffer("alpha", torch.tensor([float(given.get(name, 1.0)) for name in names]))

    def combine(self, losses: Tensor) -> Tensor:
        """The weighted sum."""
        return losses @ self.get_buffer("alpha")
