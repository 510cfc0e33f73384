"""Popularity: each item's mean label in the training part, shrunk towards the overall mean; not personal at all."""

from __future__ import annotations

from typing import Any

import torch
from optuna.distributions import FloatDistribution
from torch import Tensor

from bench.api import Batch, Method, Schema
from bench.nn import MakeInputs, base_rate


class Popularity(Method):
    """m_i = (sum of labels + shrinkage * overall mean) / (count + shrinkage); user-scope tasks get overall rates."""

    space = {"shrinkage": FloatDistribution(1.0, 100.0, log=True)}
    reference = True

    def __init__(self, schema: Schema, inputs: MakeInputs, *, shrinkage: float = 10.0) -> None:
        super().__init__(schema)
        self.shrinkage = shrinkage
        for task in self.tasks:
            size = len(schema.texts) if task.scope == "pair" else 1
            self.register_buffer(f"of_{task.name}", torch.zeros(size, task.outputs))

    def on_start(self, train: Any) -> None:
        """Counts the training labels."""
        for task in self.tasks:
            label = train.labels[task.name]
            if task.scope == "user":
                estimate = base_rate(task, label)
            else:
                known = ~label.isnan()
                index, value, size = train.item[known].long(), label[known], len(self.schema.texts)
                values = [value == c for c in range(task.outputs)] if task.traits.classes else [value]
                count = torch.bincount(index, minlength=size) + self.shrinkage
                shrunk = [torch.bincount(index, v, size) + self.shrinkage * v.mean() for v in map(Tensor.float, values)]
                estimate = task.traits.raw(torch.stack(shrunk, dim=1) / count[:, None])
            if estimate is not None:
                self.get_buffer(f"of_{task.name}").copy_(estimate)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Looks the candidates up."""
        outputs = {}
        for task in self.tasks:
            stored = self.get_buffer(f"of_{task.name}")
            output = stored[batch.item] if task.scope == "pair" else stored.expand(len(batch.user_cat), -1)
            outputs[task.name] = task.traits.shaped(output)
        return outputs
