"""Cross-stitch: one network a task, mixed after every layer (Misra et al., Cross-stitch Networks, CVPR 2016)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from optuna.distributions import FloatDistribution, IntDistribution
from torch import Tensor, nn

from bench.api import Schema, Task
from bench.nn import Architecture, MakeInputs, mlp


class CrossStitch(Architecture):
    """h_t^l = sum_s alpha_ts^l relu(W_s^l h_s^(l-1) + b_s^l), h_t^0 = x; y_t = tower_t(h_t^L).

    alpha starts at 0.9 on the diagonal; the other 0.1 of each row is spread evenly. All networks start untrained. The
    paper gives alpha a learning rate 100 to 1000 times as high under SGD; Adam's steps do not shrink with the gradient.
    """

    space = {
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
        width: int = 64,
        depth: int = 1,
        tower: int = 32,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(schema, inputs, width=width, tower=tower, dropout=dropout)
        count = len(self.tasks)
        self.layers = nn.ModuleList(
            nn.ModuleList(mlp(width if i else self.inputs.width, width, 1, dropout) for _ in self.tasks)
            for i in range(depth)
        )
        start = torch.full((count, count), 0.1 / max(count - 1, 1)).fill_diagonal_(0.9)
        # Flat, since weight decay leaves vectors alone: it would pull the units to zero.
        self.alpha = nn.ParameterList(nn.Parameter(start.flatten()) for _ in range(depth))

    def represent(self, x: Tensor, tasks: Sequence[Task]) -> dict[str, Tensor]:
        """Layer by layer, all networks; what several tasks read is the last layer's states before they are mixed."""
        names = [t.name for t in self.tasks]
        own = dict.fromkeys(names, x)
        for layer, alpha in zip(cast(Iterable[nn.ModuleList], self.layers), self.alpha, strict=True):
            states = torch.stack([network(own[name]) for name, network in zip(names, layer, strict=True)], dim=1)
            mixed = alpha.view(len(names), -1) @ states  # [N, tasks, width]
            own = dict(zip(names, mixed.unbind(1), strict=True))
        self.shared.append(states)
        return {t.name: own[t.name] for t in tasks}
