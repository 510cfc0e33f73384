"""Predictions on a split -> metrics by task, also on rows never seen in training, and the two yardsticks.

A large split is scored piece by piece, by ``bench.metrics.streaming``: ``auc`` is then the middle of an interval,
``ece`` is near, and ``xauc`` is None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from bench import metrics
from bench.api import Task
from bench.data.tensors import Split
from bench.metrics.streaming import IN_PIECES
from bench.storage.spill import Spilled

Scores = dict[str, dict[str, float | None]]
Predictions = Mapping[str, np.ndarray | Spilled]
Keep = Callable[[Split], np.ndarray]


def score(split: Split, predictions: Predictions, *, primary_only: bool = False, keep: Keep | None = None) -> Scores:
    """Metrics of every task over the rows where its label is defined.

    predictions: task -> [rows] or [rows, classes] ([groups, ...] for user scope): probabilities for binary and
    multiclass tasks, values for regression, scores for softmax. keep: gives the rows to count [rows] of a split or a
    piece of it (user-scope tasks: groups with any such row). Raises ValueError if predictions are not finite.
    """
    names = {t.name: t.metrics[:1] if primary_only else t.metrics for t in split.schema.tasks}
    if split.large:
        return _in_pieces(split, predictions, names, keep)
    result: Scores = {}
    for task in split.schema.tasks:
        columns = _columns(split, task, predictions[task.name][:], keep)
        result[task.name] = {name: metrics.compute(name, *columns) for name in names[task.name]}
    return result


def slices(split: Split, predictions: Predictions) -> dict[str, Any]:
    """Returns row counts and metrics on the rows of items, and of users, that the training part does not have."""
    cold: dict[str, Keep] = {
        "cold_item": lambda part: part.cold_item.numpy(),
        "cold_user": lambda part: part.cold_user.numpy()[part.group],
    }
    tasks = split.schema.tasks
    result: dict[str, Any] = {}
    for name, keep in cold.items():
        if rows := sum(int(keep(part).sum()) for part in split.pieces()):
            scores = score(split, predictions, keep=keep)
            if name == "cold_item":  # a user-scope task knows no item
                scores = {t.name: scores[t.name] for t in tasks if t.scope == "pair"}
            result[name] = {"rows": rows, "metrics": scores}
    return result


def everything(split: Split, predictions: Predictions) -> dict[str, Any]:
    """Metrics of a final evaluation: on all rows and on the slices."""
    return {split.name: score(split, predictions), "slices": slices(split, predictions)}


def whole(split: Split, predictions: Predictions) -> dict[str, Any]:
    """A further test part in the form of a slice."""
    return {"rows": split.rows, "metrics": score(split, predictions)}


def chance(train: Split, split: Split) -> dict[str, np.ndarray]:
    """Returns the best constant prediction of every task, from the training labels; where a constant says nothing, that
    of an output of 0. Read-only."""
    result = {}
    for task in split.schema.tasks:
        constant = task.traits.constant((label.numpy() for label in train.defined(task.name)), task.outputs)
        if constant is None:
            constant = task.traits.prediction(task.traits.shaped(torch.zeros(1, task.outputs)))[0].numpy()
        size = split.groups if task.scope == "user" else split.rows
        result[task.name] = np.broadcast_to(constant, (size, *constant.shape))  # takes no memory
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


def _in_pieces(split: Split, predictions: Predictions, names: Mapping[str, Sequence[str]], keep: Keep | None) -> Scores:
    totals = {task: {name: IN_PIECES[name]() for name in of if name in IN_PIECES} for task, of in names.items()}
    groups = rows = 0
    for piece in split.pieces():
        for task in split.schema.tasks:
            first, size = (groups, piece.groups) if task.scope == "user" else (rows, piece.rows)
            columns = _columns(piece, task, predictions[task.name][first : first + size], keep)
            for name, total in totals[task.name].items() if len(columns[0]) else ():
                metrics.check(name, *columns)
                total.add(*columns)
        groups, rows = groups + piece.groups, rows + piece.rows
    return {
        task: {name: totals[task][name].value() if name in totals[task] else None for name in names[task]}
        for task in names
    }


def _columns(split: Split, task: Task, prediction: np.ndarray, keep: Keep | None) -> tuple[np.ndarray, ...]:
    """Label, prediction, group and user of the rows that count."""
    label = split.labels[task.name].numpy()
    use = ~np.isnan(label)
    kept = None if keep is None else keep(split)
    if task.scope == "pair":
        group, user = split.group, split.user.numpy()[split.group]
        if kept is not None:
            use &= kept
    else:
        group, user = np.arange(split.groups), split.user.numpy()
        if kept is not None:
            use &= np.bincount(split.group, weights=kept, minlength=split.groups) > 0
    return label[use], prediction[use], group[use], user[use]
