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
            size = (len(schema.texts),) if task.scope == "pair" else (task.outputs,)
            self.register_buffer(f"of_{task.name}", torch.zeros(size))

    def on_start(self, train: Any) -> None:
        """Counts the training labels."""
        for task in self.tasks:
            label = train.labels[task.name]
            if task.scope == "user":
                estimate = base_rate(task, label)
            else:
                known = ~label.isnan()
                index, value, size = train.item[known].long(), label[known], len(self.schema.texts)
                total, count = torch.bincount(index, value, minlength=size), torch.bincount(index, minlength=size)
                estimate = (total + self.shrinkage * value.mean()) / (count + self.shrinkage)
                if task.kind == "binary":
                    estimate = estimate.clamp(1e-6, 1 - 1e-6).logit()
            if estimate is not None:
                self.get_buffer(f"of_{task.name}").copy_(estimate)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Looks the candidates up."""
        outputs = {}
        for task in self.tasks:
            stored = self.get_buffer(f"of_{task.name}")
            if task.scope == "pair":
                outputs[task.name] = stored[batch.item]
            else:
                outputs[task.name] = stored.expand(len(batch.user_cat), -1)
                if task.kind != "multiclass":
                    outputs[task.name] = outputs[task.name].squeeze(1)
        return outputs
