"""Defines the usual skeleton of a method (inputs, shared representation, one tower a task) and methods on top."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.api import Batch, Inputs, Method, Schema, Scope, Task
from bench.nn.layers import mlp
from bench.nn.norms import BatchNorm

MakeInputs = Callable[[Schema], Inputs]
MakeTrunk = Callable[[Schema, MakeInputs], Method]


def base_rate(task: Task, label: Tensor) -> Tensor | None:
    """Returns the constant output [task.outputs] that fits the labels best where they are not NaN: log-odds, mean or
    log shares. None where a constant says nothing, and where no label is defined."""
    return base_rate_of(task, [label[~label.isnan()]])


def base_rate_of(task: Task, pieces: Iterable[Tensor]) -> Tensor | None:
    """Returns the ``base_rate`` for pieces of the label column that leave out what is undefined."""
    found = task.traits.constant((piece.double().numpy() for piece in pieces), task.outputs)
    return None if found is None else task.traits.raw(torch.from_numpy(found).float().reshape(-1))


class Architecture(Method):
    """Computes inputs, then a representation for each task, then one tower and output a task.

    A subclass writes ``represent``. tower: width of each task's hidden layer. A user-scope task is computed once a
    group, from the user side alone.
    """

    def __init__(self, schema: Schema, inputs: MakeInputs, *, width: int, tower: int, dropout: float) -> None:
        super().__init__(schema)
        self.inputs = inputs(schema)
        self.towers = nn.ModuleDict(
            {t.name: nn.Sequential(mlp(width, tower, 1, dropout), nn.Linear(tower, t.outputs)) for t in self.tasks}
        )

    def represent(self, x: Tensor, tasks: Sequence[Task]) -> dict[str, Tensor]:
        """Returns a representation [N, width] of x [N, inputs.width] for each task; extends ``self.shared``."""
        raise NotImplementedError

    @torch.no_grad()
    def on_start(self, train: Any) -> None:
        """Starts output biases at the training part's base rates and means, so that no epochs go into finding them."""
        for task in self.tasks:
            prior = base_rate_of(task, train.defined(task.name))
            if prior is not None:
                cast(nn.Linear, cast(nn.Sequential, self.towers[task.name])[-1]).bias.copy_(prior)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the output of each task, as ``Method.forward`` defines it."""
        pair, user = self.inputs(batch)
        self.shared = []
        outputs: dict[str, Tensor] = {}
        scopes: tuple[tuple[Scope, Tensor], ...] = (("pair", pair), ("user", user))
        for scope, x in scopes:
            tasks = [t for t in self.tasks if t.scope == scope]
            for module in self.modules():
                if isinstance(module, BatchNorm):
                    module.scope = scope
            states = self.represent(x, tasks) if tasks else {}
            outputs |= {name: self.towers[name](state) for name, state in states.items()}
        return {t.name: t.traits.shaped(outputs[t.name]) for t in self.tasks}


class OnTrunk(Method):
    """Gives an architecture other inputs. Whatever a subclass does not override is the architecture's doing."""

    data_parallel = True  # if the architecture is

    def __init__(self, schema: Schema, inputs: MakeInputs, trunk: MakeTrunk) -> None:
        super().__init__(schema)
        self.model = trunk(schema, inputs)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the architecture's outputs."""
        outputs: dict[str, Tensor] = self.model(batch)
        self.shared = self.model.shared
        return outputs

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Returns the architecture's losses."""
        return self.model.losses(outputs, batch)

    def step(self, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
        """Updates as the architecture does, with the forward pass, losses, parameters and balancer of this method."""
        return type(self.model).step(self, batch, optimizer)

    def on_start(self, train: Any) -> None:
        """Tells the architecture that training starts."""
        self.model.on_start(train)

    def on_epoch(self, epoch: int, valid: Mapping[str, float]) -> None:
        """Tells the architecture that an epoch has ended."""
        self.model.on_epoch(epoch, valid)

    def rates(self, lr: float) -> list[tuple[nn.Module, float]]:
        """Returns the architecture's learning rates."""
        return self.model.rates(lr)

    def parts(self) -> list[tuple[tuple[Task, ...], nn.Module]]:
        """Returns the architecture's parts."""
        return self.model.parts()
