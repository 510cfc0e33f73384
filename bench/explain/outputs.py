"""What the tasks' outputs on validation rows say about one another: a transparent model, and rules that labels keep."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Any

import numpy as np
import torch

from bench.api import Task
from bench.data.tensors import Split
from bench.metrics import EPSILON

Floats = np.ndarray
CERTAIN = 30  # positives without an exception from which on a rule is taken for one: at 95 %, exceptions are below 3/30


def transparent(split: Split, predictions: Mapping[str, Floats]) -> dict[str, Any]:
    """Each task's output from all others' by a model that can be read: fitted on the first half of the groups, measured
    on the second.

    Inputs are log-odds of binary tasks, values, scores less their group's mean, and log-probabilities of classes; where
    a group is to be predicted, the means over its candidates. ``measure``: R^2 of ridge regression; of the likeliest
    class of a multiclass task, the share of right answers of logistic regression. ``base``: what a constant reaches.
    Both are None where the output never varies. ``coefficients``: for each other task, of the standardised input (and
    output); the Euclidean norm where there are several.
    """
    tasks = split.schema.tasks
    return {t.name: _predicted(split, t, [o for o in tasks if o != t], predictions) for t in tasks}


def _predicted(split: Split, task: Task, others: list[Task], predictions: Mapping[str, Floats]) -> dict[str, Any]:
    columns = {o.name: _on_rows_of(task, o, split, _scale(o, predictions[o.name], split)) for o in others}
    if not columns:
        return {"measure": None, "base": None, "coefficients": {}}
    x = np.concatenate(list(columns.values()), axis=1)
    group = split.group if task.scope == "pair" else np.arange(split.groups)
    fitted = group < split.groups / 2
    x = _standardised(x, fitted)
    blocks = np.repeat(list(columns), [c.shape[1] for c in columns.values()])
    y = _scale(task, predictions[task.name], split)
    model = _ridge if y.shape[1] == 1 else _logistic
    found, base, coefficients = model(x, y, fitted)
    norms = {o.name: coefficients[:, blocks == o.name] for o in others}
    signed = {k: float(c.item() if c.size == 1 else np.linalg.norm(c)) for k, c in norms.items()}
    return {"measure": found, "base": base, "coefficients": signed}


def _ridge(x: Floats, y: Floats, fitted: Floats) -> tuple[float | None, float | None, Floats]:
    from sklearn.linear_model import Ridge

    target = y[:, 0]
    if not np.ptp(target[fitted]) > 0 or not np.ptp(target[~fitted]) > 0:
        return None, None, np.zeros((1, x.shape[1]))
    target = _standardised(y, fitted)[:, 0]
    model = Ridge(alpha=1.0).fit(x[fitted], target[fitted])
    rest = target[~fitted]
    error = ((rest - model.predict(x[~fitted])) ** 2).sum() / ((rest - rest.mean()) ** 2).sum()
    return float(1 - error), 0.0, np.atleast_2d(model.coef_)


def _logistic(x: Floats, y: Floats, fitted: Floats) -> tuple[float | None, float | None, Floats]:
    from sklearn.linear_model import LogisticRegression

    target = y.argmax(axis=1)
    known, count = np.unique(target[fitted], return_counts=True)
    if len(known) < 2 or fitted.all():
        return None, None, np.zeros((1, x.shape[1]))
    model = LogisticRegression(C=1.0, solver="newton-cholesky").fit(x[fitted], target[fitted])
    rest = target[~fitted]
    agreement = float((model.predict(x[~fitted]) == rest).mean())
    return agreement, float((rest == known[count.argmax()]).mean()), model.coef_


def _scale(task: Task, prediction: Floats, split: Split) -> Floats:
    """[N, task.outputs], on the scale on which a linear model is natural."""
    p = task.traits.raw(torch.from_numpy(prediction).double(), EPSILON).numpy().reshape(len(prediction), -1)
    return p - _group_means(p, split)[split.group] if task.traits.grouped else p


def _on_rows_of(task: Task, other: Task, split: Split, values: Floats) -> Floats:
    if task.scope == other.scope:
        return values
    return values[split.group] if other.scope == "user" else _group_means(values, split)


def _group_means(values: Floats, split: Split) -> Floats:
    sums = np.stack([np.bincount(split.group, column, split.groups) for column in values.T], axis=1)
    return np.asarray(sums / split.sizes.numpy()[:, None])


def _standardised(x: Floats, fitted: Floats) -> Floats:
    scale = x[fitted].std(axis=0)
    return np.asarray((x - x[fitted].mean(axis=0)) / np.where(scale > 0, scale, 1.0))


def consistency(train: Split, valid: Split, predictions: Mapping[str, Floats]) -> list[dict[str, Any]]:
    """Rules that the training labels of binary tasks keep without exception, and how far validation predictions do.

    B implies A, and not the reverse (purchase implies click): P(B) <= P(A). ``violations`` is the share of rows with
    P(B) > P(A), ``size`` the mean excess in those. If, beside that, C is B's label where A happened and undefined
    elsewhere (purchase of a clicked row): P(B) = P(A) P(C). ``violations`` is the share of rows that are off by more
    than a tenth of P(B), ``size`` the mean distance over all rows. ``rows``: training rows with B; ``CERTAIN`` or more.
    """
    binary = [t.name for t in valid.schema.tasks if t.traits.marks and not t.traits.grouped and t.scope == "pair"]
    labels = {name: train.labels[name].numpy() for name in binary}
    p = {name: predictions[name].astype(np.float64) for name in binary}
    everywhere = [name for name in binary if not np.isnan(labels[name]).any()]
    found: list[dict[str, Any]] = []
    for a, b in permutations(everywhere, 2):
        rows = int((labels[b] == 1).sum())
        implied = not ((labels[b] == 1) & (labels[a] == 0)).any()
        strict = ((labels[a] == 1) & (labels[b] == 0)).any()
        if rows < CERTAIN or not implied or not strict:
            continue
        excess = p[b] - p[a]
        off = excess > 0
        size = float(excess[off].mean()) if off.any() else 0.0
        found.append({"rule": f"P({b}) <= P({a})", "rows": rows, "violations": float(off.mean()), "size": size})
        for c in binary:
            where = ~np.isnan(labels[c])
            same = np.array_equal(where, labels[a] == 1) and np.array_equal(labels[c][where], labels[b][where])
            if same:
                distance = np.abs(p[b] - p[a] * p[c])
                share = float((distance > 0.1 * p[b]).mean())
                rule = f"P({b}) = P({a}) P({c})"
                found.append({"rule": rule, "rows": rows, "violations": share, "size": float(distance.mean())})
    return found
