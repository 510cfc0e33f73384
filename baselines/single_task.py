"""Single-task models: one full model a task, nothing shared. The yardstick that multi-task learning has to beat."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from torch import Tensor, nn

from baselines.shared_bottom import SharedBottom
from bench.api import Batch, Method, Schema, Task
from bench.nn import MakeInputs


class SingleTask(Method):
    """A one-task shared-bottom model for each task; trained side by side, each keeping its own best epoch."""

    space = SharedBottom.space

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        *,
        width: int = 128,
        depth: int = 1,
        tower: int = 32,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(schema)
        self.models = nn.ModuleDict()
        for task in schema.tasks:
            alone = replace(schema, tasks=(task,))
            self.models[task.name] = SharedBottom(alone, inputs, width=width, depth=depth, tower=tower, dropout=dropout)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Each task's own model."""
        return {name: model(batch)[name] for name, model in self.models.items()}

    def on_start(self, train: Any) -> None:
        """Passed on to each model."""
        for model in self.models.values():
            cast(Method, model).on_start(train)

    def parts(self) -> list[tuple[tuple[Task, ...], nn.Module]]:
        """One part a task."""
        return [((task,), self.models[task.name]) for task in self.tasks]
