"""Logistic regression of each task on the one-hot fields (scikit-learn; Richardson et al., WWW 2007, for clicks)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from optuna.distributions import FloatDistribution
from torch import Tensor

from baselines._fitted import output, prior
from baselines._tabular import columns, fields_of
from bench.api import Batch, Method, Schema, Scope, Task
from bench.nn import MakeInputs

if TYPE_CHECKING:
    from scipy.sparse import csr_array

ITERATIONS, TOLERANCE = 300, 1e-5


class LogisticRegression(Method):
    """o = W x + b, x the one-hot codes and the numbers; W, b minimise |W|^2 / 2 + C * sum of losses.

    Each task alone. Losses: cross-entropy, and half the squared error for regression (ridge, alpha = 1 / C). For
    softmax within a group the row's label is regressed, and its log-odds are the score. At most 300 steps of L-BFGS.
    """

    space = {"C": FloatDistribution(1e-4, 1e2, log=True)}
    reference = True

    def __init__(self, schema: Schema, inputs: MakeInputs, *, C: float = 0.1) -> None:
        super().__init__(schema)
        if not C > 0:
            raise ValueError(f"C must be positive, got {C}")
        self.C = C
        scopes: tuple[Scope, ...] = ("pair", "user")
        self.sizes = {s: [schema.cardinality[f.name] for f in fields_of(schema, s)] for s in scopes}
        for task in self.tasks:
            width = sum(self.sizes[task.scope]) + len(fields_of(schema, task.scope, "numerical"))
            self.register_buffer(f"weight_{task.name}", torch.zeros(width, task.outputs))
            self.register_buffer(f"bias_{task.name}", torch.zeros(task.outputs))

    def offsets(self, scope: Scope) -> np.ndarray:
        """The one-hot column of each field's code 0."""
        return np.cumsum([0, *self.sizes[scope]], dtype=np.int64)[:-1]

    def on_start(self, train: Any) -> None:
        """Solves every task."""
        design = {scope: self.design(train, scope) for scope in {t.scope: None for t in self.tasks}}
        for task in self.tasks:
            label = train.labels[task.name]
            constant = prior(task, label)
            if constant is not None:
                self.get_buffer(f"bias_{task.name}").copy_(constant)
            known = (~label.isnan()).numpy()
            y = label.numpy()[known].astype(np.float64)
            if len(np.unique(y)) > 1:
                self.solve(task, design[task.scope][known], y)

    def design(self, train: Any, scope: Scope) -> csr_array:
        """The sparse design matrix [N, one-hot columns + numbers]."""
        from scipy.sparse import csr_array, hstack

        codes, numbers = (c.numpy() for c in columns(train, scope))
        place = (codes + self.offsets(scope)).ravel()
        start = np.arange(len(codes) + 1) * codes.shape[1]
        one_hot = csr_array((np.ones(len(place)), place, start), shape=(len(codes), sum(self.sizes[scope])))
        return hstack([one_hot, csr_array(numbers.astype(np.float64))], format="csr")

    def solve(self, task: Task, x: csr_array, y: np.ndarray) -> None:
        """Fits one task and keeps its coefficients."""
        from sklearn import linear_model
        from sklearn.exceptions import ConvergenceWarning

        weight, bias = self.get_buffer(f"weight_{task.name}"), self.get_buffer(f"bias_{task.name}")
        if not (task.traits.marks or task.traits.classes):
            ridge = linear_model.Ridge(alpha=1 / self.C, solver="sparse_cg", tol=TOLERANCE).fit(x, y)
            weight[:, 0].copy_(torch.from_numpy(ridge.coef_))
            bias.fill_(float(ridge.intercept_))
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the cap on the steps is meant
            model = linear_model.LogisticRegression(C=self.C, tol=TOLERANCE, max_iter=ITERATIONS)
            model.fit(x, y.astype(np.int64) if task.traits.classes else y > 0)
        coefficients, intercept = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
        if not task.traits.classes:
            weight.copy_(coefficients.T)
            bias.copy_(intercept)
            return
        if len(coefficients) == 1:  # of two classes scikit-learn gives the second one's log-odds
            coefficients = torch.cat([torch.zeros_like(coefficients), coefficients])
            intercept = torch.cat([torch.zeros_like(intercept), intercept])
        seen = torch.from_numpy(model.classes_).to(bias.device)  # the others keep their base rate
        weight[:, seen] = coefficients.T.to(weight)
        bias[seen] = intercept.log_softmax(0).to(bias)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The linear predictor of each task."""
        outputs = {}
        for task in self.tasks:
            codes, numbers = columns(batch, task.scope)
            weight, width = self.get_buffer(f"weight_{task.name}"), sum(self.sizes[task.scope])
            place = codes + torch.from_numpy(self.offsets(task.scope)).to(codes.device)
            fitted = weight[place].sum(dim=1) + numbers @ weight[width:] + self.get_buffer(f"bias_{task.name}")
            outputs[task.name] = output(task, fitted)
        return outputs
