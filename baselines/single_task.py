"""Single-task models: one full model a task, nothing shared. The yardstick that multi-task learning has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from optuna.distributions import CategoricalDistribution
from torch import Tensor, nn

from baselines.shared_bottom import SharedBottom
from bench.api import Batch, Method, Schema, Task
from bench.nn import MakeInputs


def dense(read: int, width: int, depth: int, tower: int, tasks: Sequence[Task]) -> int:
    """Parameters of a shared-bottom model on inputs of width ``read``, those of the input layer left out."""
    bottom = (read + 1) * width + (depth - 1) * (width + 1) * width
    return bottom + sum((width + 1) * tower + (tower + 1) * t.outputs for t in tasks)


class SingleTask(Method):
    """A one-task shared-bottom model for each task; trained side by side, each keeping its own best epoch.

    match: narrow the bottoms (the largest width that fits) until all models together have no more dense parameters
        than one shared-bottom of these settings. Input layers stay whole: each model has its own embeddings.
    per_task: settings of single tasks, such as {"click": {"width": 64}}; they win over ``match``.
    """

    space = {
        **SharedBottom.space,
        "match": CategoricalDistribution([False]),  # both are chosen, not searched
        "per_task": CategoricalDistribution([None]),
    }

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        *,
        width: int = 128,
        depth: int = 1,
        tower: int = 32,
        dropout: float = 0.1,
        match: bool = False,
        per_task: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(schema)
        common = {"width": width, "depth": depth, "tower": tower, "dropout": dropout}
        given = per_task or {}
        names = [t.name for t in schema.tasks]
        for name, own in given.items():
            if name not in names:
                raise ValueError(f"per_task: '{name}' is not a task; tasks are {', '.join(names)}")
            for key, value in own.items():
                if key not in common or type(value) not in (int, type(common[key])) or value < 0:
                    raise ValueError(f"per_task of '{name}': '{key}' cannot be {value}; settings are {common}")
        if match:
            read = inputs(schema).width
            most = dense(read, width, depth, tower, schema.tasks)
            fits = (
                w for w in range(width, 0, -1) if sum(dense(read, w, depth, tower, [t]) for t in self.tasks) <= most
            )
            common["width"] = next(fits, 1)
        self.models = nn.ModuleDict()
        for task in schema.tasks:
            alone: dict[str, Any] = {**common, **given.get(task.name, {})}
            self.models[task.name] = SharedBottom(replace(schema, tasks=(task,)), inputs, **alone)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Each task's own model."""
        return {name: model(batch)[name] for name, model in self.models.items()}

    def on_start(self, train: Any) -> None:
        """Starts each model on the training split."""
        for model in self.models.values():
            cast(Method, model).on_start(train)

    def parts(self) -> list[tuple[tuple[Task, ...], nn.Module]]:
        """One part a task."""
        return [((task,), self.models[task.name]) for task in self.tasks]
