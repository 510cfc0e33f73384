"""Predictions on a split -> metrics by task, also on rows never seen in training, and the two yardsticks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench import metrics
from bench.api import Task
from bench.data.tensors import Split

Scores = dict[str, dict[str, float | None]]
Predictions = Mapping[str, np.ndarray]


def score(
    split: Split, predictions: Predictions, *, primary_only: bool = False, keep: np.ndarray | None = None
) -> Scores:
    """Metrics of every task over the rows where its label is defined.

    predictions: task -> [rows] or [rows, classes] ([groups, ...] for user scope): probabilities for binary and
    multiclass tasks, values for regression, scores for softmax. keep: rows to count [rows] (user-scope tasks: groups
    with any such row). Raises ValueError if predictions are not finite.
    """
    return {t.name: _task(split, t, predictions[t.name], primary_only, keep) for t in split.schema.tasks}


def slices(split: Split, predictions: Predictions) -> dict[str, Any]:
    """The same on the rows of items, and of users, that the training part does not have."""
    cold = {"cold_item": split.cold_item.numpy(), "cold_user": split.cold_user.numpy()[split.group]}
    tasks = split.schema.tasks
    result: dict[str, Any] = {}
    for name, keep in cold.items():
        if keep.any():
            scores = score(split, predictions, keep=keep)
            if name == "cold_item":  # a user-scope task knows no item
                scores = {t.name: scores[t.name] for t in tasks if t.scope == "pair"}
            result[name] = {"rows": int(keep.sum()), "metrics": scores}
    return result


def everything(split: Split, predictions: Predictions) -> dict[str, Any]:
    """Metrics of a final evaluation: on all rows and on the slices."""
    return {split.name: score(split, predictions), "slices": slices(split, predictions)}


def whole(split: Split, predictions: Predictions) -> dict[str, Any]:
    """A further test part in the form of a slice."""
    return {"rows": split.rows, "metrics": score(split, predictions)}


def chance(train: Split, split: Split) -> dict[str, np.ndarray]:
    """The best constant prediction: training means, class shares, and for softmax no preference at all."""
    result = {}
    for task in split.schema.tasks:
        label = train.labels[task.name].numpy()
        known = label[~np.isnan(label)]
        size = split.groups if task.scope == "user" else split.rows
        if task.kind == "multiclass":
            share = np.bincount(known.astype(int), minlength=task.outputs) + 1.0
            result[task.name] = np.tile(share / share.sum(), (size, 1))
        else:
            result[task.name] = np.full(size, 0.0 if task.kind == "softmax" else known.mean())
    return result


def oracle(split: Split) -> dict[str, np.ndarray] | None:
    """What a model that knows the simulation would predict; None for real data."""
    return {name: truth.numpy() for name, truth in split.truth.items()} if split.truth else None


def references(train: Split, test: Split, extra: Sequence[Split] = ()) -> dict[str, Any]:
    """Test metrics of the best constant, and of the oracle where there is one."""
    result = {"chance": everything(test, chance(train, test))}
    for part in extra:
        result["chance"]["slices"][part.name] = whole(part, chance(train, part))
    known = oracle(test)
    if known:
        result["oracle"] = everything(test, known)
    return result


def _task(
    split: Split, task: Task, prediction: np.ndarray, primary_only: bool, keep: np.ndarray | None
) -> dict[str, float | None]:
    label = split.labels[task.name].numpy()
    if task.scope == "pair":
        group, user = split.group, split.user.numpy()[split.group]
        use = ~np.isnan(label) if keep is None else ~np.isnan(label) & keep
    else:
        group, user = np.arange(split.groups), split.user.numpy()
        use = ~np.isnan(label)
        if keep is not None:
            use &= np.bincount(split.group, weights=keep, minlength=split.groups) > 0
    names = task.metrics[:1] if primary_only else task.metrics
    columns = label[use], prediction[use], group[use], user[use]
    return {name: metrics.compute(name, *columns) for name in names}
