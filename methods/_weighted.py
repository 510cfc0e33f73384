"""What methods share that weigh the tasks by what they read on meta-validation, and log what they decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bench.api import Batch, Schema
from bench.nn import MakeInputs, MakeTrunk
from methods.lora import Lora


class Weighted(Lora):
    """Losses w_t L_t, before the balancer; what is reported of training stays L_t. Weights must be positive."""

    meta_share = 0.1

    def __init__(self, schema: Schema, inputs: MakeInputs, trunk: MakeTrunk, **settings: Any) -> None:
        super().__init__(schema, inputs, trunk, **settings)
        self.register_buffer("weights", torch.ones(len(self.tasks)), persistent=False)
        self.decisions: list[dict[str, Any]] = []

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The weighted losses [T]."""
        return super().losses(outputs, batch) * self.get_buffer("weights")

    def step(self, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
        """An update with the weighted losses; returns the losses without their weights."""
        return super().step(batch, optimizer) / self.get_buffer("weights")
