"""References that compute one score for each candidate, which every task reads on its own scale."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from baselines._fitted import output, prior
from bench.api import Batch, Method, Schema


class OneScore(Method):
    """Binary tasks: sigmoid(a_t s + b_t); regression: a_t s + b_t, by least squares; softmax within a group: s itself.

    User-scope and multi-class tasks, which a score for candidates says nothing about, get their base rates, and so does
    a task where the score or the label never varies.
    """

    reference = True

    def __init__(self, schema: Schema) -> None:
        super().__init__(schema)
        for task in self.tasks:
            self.register_buffer(f"slope_{task.name}", torch.zeros(task.outputs))
            self.register_buffer(f"bias_{task.name}", torch.zeros(task.outputs))

    def score(self, batch: Batch) -> Tensor:
        """The score of every row, [B]."""
        raise NotImplementedError

    def calibrate(self, score: Tensor, labels: Mapping[str, Tensor], everything: Mapping[str, Tensor]) -> None:
        """Fits a and b on scores [R] and their labels; base rates come from ``everything``, the training labels."""
        for task in self.tasks:
            slope, bias = self.get_buffer(f"slope_{task.name}"), self.get_buffer(f"bias_{task.name}")
            constant = prior(task, everything[task.name])
            if constant is not None:
                bias.copy_(constant)
            if task.traits.grouped:
                slope.fill_(1.0)
            elif task.scope == "pair" and not task.traits.classes:
                known = ~labels[task.name].isnan()
                s, y = score[known].double().numpy(), labels[task.name][known].double().numpy()
                if len(s) and np.ptp(s) > 0 and np.ptp(y) > 0:
                    a, b = _line(s, y, logistic=task.traits.marks)
                    slope.fill_(a)
                    bias.fill_(b)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The score on each task's scale."""
        score, outputs = self.score(batch)[:, None], {}
        for task in self.tasks:
            size = len(batch.user_cat) if task.scope == "user" else len(score)
            fitted = self.get_buffer(f"bias_{task.name}").repeat(size, 1)
            if task.scope == "pair":
                fitted = fitted + self.get_buffer(f"slope_{task.name}") * score
            outputs[task.name] = output(task, fitted)
        return outputs


def _line(s: np.ndarray, y: np.ndarray, *, logistic: bool) -> tuple[float, float]:
    """Slope and intercept of y, or of its log-odds, on s: by least squares, or by logistic regression with a standard
    normal prior on the standardised slope, so that separable labels too have an answer."""
    from sklearn.linear_model import LinearRegression, LogisticRegression

    mean, sd = s.mean(), s.std()
    x = ((s - mean) / sd)[:, None]
    if logistic:
        fitted = LogisticRegression(C=1.0, solver="newton-cholesky").fit(x, y > 0)
    else:
        fitted = LinearRegression().fit(x, y)
    slope = float(np.ravel(fitted.coef_)[0]) / sd
    return slope, float(np.ravel(fitted.intercept_)[0]) - slope * mean
