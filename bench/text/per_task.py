"""Trains a language model that gives each task text vectors of its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from torch import Tensor, nn

from bench.text.tower import Tower


class PerTask(nn.Module):
    """Computes something else for each task, as a part of a network; ``task`` is the place of the one at work."""

    task = 0


class Adapt(Protocol):
    """Takes the frozen network and returns what is trained, with ``PerTask`` modules for so many tasks."""

    def __call__(self, net: nn.Module, *, tasks: int) -> nn.Module: ...


class TaskTower(Tower):
    """Gives the text vectors of one of ``tasks``, which ``turn_to`` names (the first one at first).

    It keeps the cached vectors of each task: ``store`` [T, texts + 1, width] and ``fresh`` [T, texts + 1]. What it
    starts from, the cached states of the layer below, is the same for all. A text that passes through the network for
    several tasks counts as often.
    """

    def __init__(self, tasks: Sequence[str], texts: Sequence[str], lm: str, adapt: Adapt, **settings: Any) -> None:
        super().__init__(texts, lm, partial(adapt, tasks=len(tasks)), **settings)
        self.tasks = tuple(tasks)
        self.task = 0
        for name in ("store", "fresh"):
            self.register_buffer(name, self.get_buffer(name).expand(len(tasks), *self.get_buffer(name).shape).clone())

    def turn_to(self, task: str) -> None:
        """Gives the vectors of a task from now on. Has no effect if it is none of this tower's."""
        if task in self.tasks:
            self.task = self.tasks.index(task)

    def kept(self) -> tuple[Tensor, Tensor]:
        """Returns the task's vectors [texts + 1, width], and which are those of the present weights [texts + 1]."""
        store, fresh = super().kept()
        return store[self.task], fresh[self.task]

    def encode(self, texts: Tensor, *, together: bool = False) -> Tensor:
        """Passes different texts [n] through the network as it is for the task; returns vectors [n, width]."""
        for module in self.network.modules():
            if isinstance(module, PerTask):
                module.task = self.task
        return super().encode(texts, together=together)
