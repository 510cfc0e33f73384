"""Skill of predictions, (value - chance) / (perfect - chance), and what is kept from training to measure it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench import metrics
from bench.api import Method, Task
from bench.data.tensors import Split
from bench.training.predict import predict
from bench.training.score import Scores, chance, score


def mean_skill(tasks: tuple[Task, ...], scores: Scores, constant: Scores) -> float:
    """Mean over tasks of the primary metric's skill; tasks whose metric is undefined here say nothing."""
    found = skills(tasks, scores, constant)
    return float(np.mean([*found.values()])) if found else 0.0


def skills(tasks: Sequence[Task], scores: Scores, constant: Scores) -> dict[str, float]:
    """The primary metric's skill, (value - chance) / (perfect - chance), of the tasks for which it is defined."""
    found = {}
    for task in tasks:
        name = task.metrics[0]
        value, base = scores[task.name][name], constant[task.name][name]
        if value is not None and base is not None:
            found[task.name] = metrics.skill(name, value, base)
    return found


def constants(train: Split, split: Split) -> Scores:
    """The primary metrics of the best constant of the training part on a split."""
    return score(split, chance(train, split), primary_only=True)


def split_off_meta(train: Split, share: float) -> tuple[Split, Split]:
    """The training part without the latest ``share`` of its groups, and these."""
    return train.cut(round((1 - share) * train.groups))


def on_meta(method: Method, meta: Split, constant: Scores) -> tuple[dict[str, float], dict[str, float]]:
    """Every task's primary metric on meta-validation, and its skill over ``constant``, the scores of the best constant
    there; of the tasks for which they are defined."""
    scores = score(meta, predict(method, meta), primary_only=True)
    primary = {t.name: scores[t.name][t.metrics[0]] for t in method.tasks}
    return {k: v for k, v in primary.items() if v is not None}, skills(method.tasks, scores, constant)
