"""Implicit matrix factorisation by alternating least squares (Hu et al., ICDM 2008; the library `implicit`)."""

from __future__ import annotations

from typing import Any

import torch
from optuna.distributions import FloatDistribution, IntDistribution
from torch import Tensor

from baselines._one_score import OneScore
from bench.api import Batch, Schema, Task
from bench.errors import extra
from bench.nn import MakeInputs

with extra("baselines"):
    from implicit.cpu.als import AlternatingLeastSquares

SWEEPS = 15
FITTED = 0.8  # share of the groups that the factors see while the tasks are calibrated on the rest


class Mf(OneScore):
    """s = x_u . y_i; X, Y minimise sum_ui c_ui (p_ui - x_u . y_i)^2 + regularization * (|X|^2 + |Y|^2).

    n_ui: positive rows of user and item in the first binary or softmax task of the pairs. p = 1 and c = confidence *
    n_ui where n_ui > 0, else p = 0 and c = 1. A user without positives, or unseen, is the average one; an item without
    them scores 0. Factors have seen their own positives, so the tasks are calibrated on the last fifth of the training
    groups with the factors of the rest; then the factors are fitted to all of them.
    """

    space = {
        "factors": IntDistribution(8, 128, log=True),
        "regularization": FloatDistribution(1e-2, 1e3, log=True),
        "confidence": FloatDistribution(1.0, 40.0, log=True),
    }

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        *,
        factors: int = 32,
        regularization: float = 10.0,
        confidence: float = 10.0,
    ) -> None:
        super().__init__(schema)
        self.factors = factors
        self.regularization = regularization
        self.confidence = confidence
        self.column = next(i for i, f in enumerate(schema.side("user")) if f.kind == "id")
        users = schema.cardinality[schema.side("user")[self.column].name]
        self.register_buffer("users", torch.zeros(users, factors))
        self.register_buffer("items", torch.zeros(len(schema.texts), factors))

    @classmethod
    def declines(cls, schema: Schema) -> str:
        """It needs users and positives."""
        if not schema.side("user", "id"):
            return "no field names the user"
        return "" if _clicks(schema) else "no binary or softmax task of the pairs says what a positive is"

    def on_start(self, train: Any) -> None:
        """Calibrates, then fits the factors that stay."""
        seed = int(torch.randint(2**31 - 1, ()))
        user, cut = train.user_cat[:, self.column].long()[torch.from_numpy(train.group)], self._cut(train)
        positive = train.labels[_clicks(self.schema)[0].name] > 0
        x, y = self.fit(user[:cut][positive[:cut]], train.item[:cut][positive[:cut]], seed)
        score = (x[user[cut:]] * y[train.item[cut:]]).sum(dim=1)
        later = {t.name: train.labels[t.name][cut:] for t in self.tasks if t.scope == "pair"}
        self.calibrate(score, later, train.labels)
        x, y = self.fit(user[positive], train.item[positive], seed)
        self.get_buffer("users").copy_(x)
        self.get_buffer("items").copy_(y)

    def _cut(self, train: Any) -> int:
        """The first row of the last fifth of the groups, which are in time order."""
        return int(train.start[int(FITTED * train.groups)])

    def fit(self, user: Tensor, item: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Factors of all users and items from the positives, user [P] and item [P]."""
        from scipy.sparse import csr_matrix

        shape = len(self.get_buffer("users")), len(self.get_buffer("items"))
        counts = csr_matrix((torch.ones(len(user)).numpy(), (user.numpy(), item.numpy())), shape=shape)
        model = AlternatingLeastSquares(
            factors=self.factors,
            regularization=self.regularization,
            alpha=self.confidence,
            iterations=SWEEPS,
            use_cg=False,
            num_threads=1,
            random_state=seed,
        )
        model.fit(counts, show_progress=False)
        x, y = torch.from_numpy(model.user_factors), torch.from_numpy(model.item_factors)
        known = torch.bincount(user, minlength=shape[0]) > 0
        known[0] = False  # not a user, but all that are unknown
        x[~known] = x[known].mean(dim=0) if known.any() else 0.0
        return x, y

    def score(self, batch: Batch) -> Tensor:
        """x_u . y_i of every row."""
        user = self.get_buffer("users")[batch.user_cat[:, self.column]]
        return (user.index_select(0, batch.group) * self.get_buffer("items")[batch.item]).sum(dim=1)


def _clicks(schema: Schema) -> list[Task]:
    return [t for t in schema.tasks if t.scope == "pair" and t.traits.marks]
