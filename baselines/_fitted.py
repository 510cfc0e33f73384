"""The scale on which ordinary models fit a task: log-odds of marks, log shares of classes, or the values themselves."""

from __future__ import annotations

from torch import Tensor

from bench.api import Task
from bench.nn import base_rate


def prior(task: Task, label: Tensor) -> Tensor | None:
    """Returns what fits the defined labels best if it may not vary, [task.outputs]; None as for ``base_rate``."""
    found = base_rate(task, label)
    return found if found is None or _is_raw(task) else task.traits.prediction(found)


def output(task: Task, fitted: Tensor) -> Tensor:
    """Returns the method's output for a task, [N] or [N, classes], from what was fitted, [N, task.outputs]."""
    return task.traits.shaped(fitted if _is_raw(task) else task.traits.raw(fitted))


def _is_raw(task: Task) -> bool:
    return task.traits.marks or task.traits.classes
