"""What the kind of a task decides: one class a kind, known by its name in lower case.

A task names its kind and hands it out as ``task.traits``; no other code asks for the name. A new kind is one more
subclass of ``Kind``. Metrics are named here and computed in ``bench.metrics``.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.collective import batch_mean
from bench.errors import BenchError

KINDS: dict[str, Kind] = {}


class Kind:
    """A kind of task. This base gives one number a row, which is the prediction; a subclass gives the loss.

    metrics: what is reported of each task, the primary metric first. others: what a task may name as primary instead.
    labels: the least and the largest label. classes: a label is the place of one of the task's classes, and the output
    has a number for each of them. marks: a label above 0 marks a positive row, 0 a negative one. grouped: only
    differences within a group mean anything.
    """

    metrics: ClassVar[tuple[str, ...]] = ("rmse", "mae", "xauc")
    others: ClassVar[tuple[str, ...]] = ("ndcg@5", "ndcg@10", "mrr", "hr@1", "hr@3")
    labels: ClassVar[tuple[float, float]] = (-inf, inf)
    classes: ClassVar[bool] = False
    marks: ClassVar[bool] = False
    grouped: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        if KINDS.setdefault(cls.__name__.lower(), cls()).__class__ is not cls:
            raise BenchError(f"the kind of task '{cls.__name__.lower()}' is already taken; rename the class")

    def shaped(self, output: Tensor) -> Tensor:
        """Returns a network's output [N, task.outputs] in the shape that a method gives: [N], or [N, classes]."""
        return output if self.classes else output.squeeze(1)

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        """Returns the loss of each row [N] for raw outputs. target: labels [N], or another model's predictions."""
        raise NotImplementedError

    def loss(self, output: Tensor, label: Tensor, group: Tensor, groups: int) -> Tensor:
        """Returns the mean loss over the rows where the label is not NaN; 0 with a gradient of 0 if there is none.

        output: [N] or [N, classes]; label: [N]; group: [N], from 0 to ``groups`` - 1, read by grouped kinds alone.
        """
        known = ~label.isnan()
        target = torch.where(known, label, torch.zeros_like(label))
        return batch_mean((self.each(output, target) * known).sum(), known.sum())

    def prediction(self, output: Tensor) -> Tensor:
        """Returns what metrics read, made from raw outputs: values, scores or probabilities."""
        return output

    def raw(self, prediction: Tensor, least: float = 1e-6) -> Tensor:
        """Returns the raw output that gives a prediction. Probabilities are kept ``least`` away from 0 (and from 1)."""
        return prediction

    def constant(self, labels: Iterable[np.ndarray], outputs: int) -> np.ndarray | None:
        """Returns the best constant prediction for pieces of the defined labels, here their mean, [] or [classes].

        One piece is averaged in its own precision, several in float64. None if there is no label, or if a constant
        says nothing.
        """
        parts = [(label.mean(), label.size) for label in labels if label.size]
        if len(parts) < 2:
            return np.asarray(parts[0][0]) if parts else None
        means, sizes = zip(*parts, strict=True)
        return np.asarray(np.average(means, weights=sizes))


class Binary(Kind):
    """Yes or no: the output is the log-odds, the loss cross-entropy."""

    metrics = ("auc", "gauc", "log_loss", "ece")
    labels = (0, 1)
    marks = True

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        """Returns the cross-entropy."""
        return F.binary_cross_entropy_with_logits(output, target, reduction="none")

    def prediction(self, output: Tensor) -> Tensor:
        """Returns probabilities."""
        return output.sigmoid()

    def raw(self, prediction: Tensor, least: float = 1e-6) -> Tensor:
        """Returns log-odds."""
        return prediction.clamp(least, 1 - least).logit()


class Regression(Kind):
    """A value: the loss is the squared error."""

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        """Returns the squared error."""
        return (output - target).square()


class Multiclass(Kind):
    """One of several classes: the outputs are logits, the loss cross-entropy."""

    metrics = ("top1", "top3", "log_loss_multiclass")
    others = ()
    classes = True

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        """Returns the cross-entropy; target: places of classes [N], or probabilities [N, classes]."""
        return F.cross_entropy(output, target if target.ndim > 1 else target.long(), reduction="none")

    def prediction(self, output: Tensor) -> Tensor:
        """Returns probabilities."""
        return output.softmax(dim=1)

    def raw(self, prediction: Tensor, least: float = 1e-6) -> Tensor:
        """Returns log-probabilities."""
        return prediction.clamp(min=least).log()

    def constant(self, labels: Iterable[np.ndarray], outputs: int) -> np.ndarray | None:
        """Returns the share of each class, one label of each added to the count."""
        counts = sum((np.bincount(label.astype(int), minlength=outputs) for label in labels), np.zeros(outputs))
        return (counts + 1) / (counts + 1).sum() if counts.any() else None


class Softmax(Kind):
    """Which row of a group: the output is a score, the loss cross-entropy of each positive against the negatives."""

    metrics = ("ndcg@10", "mrr", "hr@1")
    labels = (0, 1)
    marks = grouped = True

    def loss(self, output: Tensor, label: Tensor, group: Tensor, groups: int) -> Tensor:
        """Returns the mean over positive rows, p with score s_p, of -log(exp s_p / (exp s_p + sum of exp s over the
        group's negative rows)). Groups without a positive or without a negative row say nothing."""
        positive, negative = label > 0, label == 0
        index = group.long()
        masked = torch.where(negative, output, torch.full_like(output, -torch.inf))
        top = output.new_full((groups,), -torch.inf).scatter_reduce(0, index, masked.detach(), "amax")
        usable = top.isfinite()
        top = torch.where(usable, top, torch.zeros_like(top))
        total = output.new_zeros(groups).index_add(0, index, (masked - top[index]).exp())
        against = torch.where(usable, total, torch.ones_like(total)).log() + top
        counted = positive & usable[index]
        loss = F.softplus(against[index] - output)
        return batch_mean(torch.where(counted, loss, torch.zeros_like(loss)).sum(), counted.sum())

    def constant(self, labels: Iterable[np.ndarray], outputs: int) -> np.ndarray | None:
        """Returns None: equal scores prefer nothing."""
        return None
