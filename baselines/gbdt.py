"""Gradient-boosted trees of each task on fields and simple history features (LightGBM: Ke et al., NeurIPS 2017)."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from optuna.distributions import FloatDistribution, IntDistribution
from torch import Tensor, nn

from baselines._fitted import output, prior
from baselines._tabular import columns, fields_of
from bench.api import Batch, Method, Schema, Scope, Task
from bench.errors import extra
from bench.nn import MakeInputs

with extra("baselines"):
    import lightgbm


class Gbdt(Method):
    """o = sum over ``rounds`` trees of shrinkage * tree(x), for each task alone; LambdaRank for softmax within a group.

    x: all codes, as categories, and numbers; of the history its length, its last item's codes and, for pair scope, for
    each code of the candidate the share of the history that has it too. Each tree sees ``column_share`` of x, drawn.
    """

    space = {
        "rounds": IntDistribution(50, 500, step=50),
        "shrinkage": FloatDistribution(0.01, 0.3, log=True),
        "leaves": IntDistribution(4, 128, log=True),
        "leaf_rows": IntDistribution(5, 500, log=True),
        "column_share": FloatDistribution(0.3, 1.0),
    }
    reference = True

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        *,
        rounds: int = 200,
        shrinkage: float = 0.05,
        leaves: int = 15,
        leaf_rows: int = 50,
        column_share: float = 0.8,
    ) -> None:
        super().__init__(schema)
        self.rounds = rounds
        self.growth = {
            "learning_rate": shrinkage,
            "num_leaves": leaves,
            "min_data_in_leaf": leaf_rows,
            "feature_fraction": column_share,
        }
        self.trees = nn.ModuleDict({t.name: Trees(t) for t in self.tasks})

    def on_start(self, train: Any) -> None:
        """Grows the trees of every task, seeded by torch's global generator."""
        settings = self.growth | {"seed": int(torch.randint(2**31 - 1, ()))}
        for scope in {t.scope: None for t in self.tasks}:
            x = self.features(train, scope)
            for task in self.tasks:
                if task.scope == scope:
                    group = train.group if scope == "pair" else np.arange(train.groups)
                    trees = cast(Trees, self.trees[task.name])
                    trees.grow(x, self.categories(scope), train.labels[task.name], group, self.rounds, settings)

    def features(self, source: Any, scope: Scope) -> np.ndarray:
        """x [N, features] of a batch or split; the codes come first."""
        codes, numbers = columns(source, scope)
        if not self.schema.history:
            return torch.cat([codes.float(), numbers], dim=1).cpu().numpy()
        past, filled = source.items.cat[source.history], source.history > 0
        last, length = past[:, -1], filled.sum(dim=1)
        shares = []
        if scope == "pair":
            group = torch.as_tensor(source.group)
            candidate = source.items.cat[source.item]
            for i in range(candidate.shape[1]):  # one by one: [rows, length] is large enough
                same = (past[:, :, i][group] == candidate[:, i, None]) & filled[group]
                shares.append(same.sum(dim=1) / length[group].clamp(min=1))
            last, length = last[group], length[group]
        parts = [codes, last, numbers, length[:, None], *(s[:, None] for s in shares)]
        return torch.cat([p.float() for p in parts], dim=1).cpu().numpy()

    def categories(self, scope: Scope) -> list[int]:
        """The columns of ``features`` that hold codes."""
        last = len(self.schema.side("item")) if self.schema.history else 0
        return list(range(len(fields_of(self.schema, scope)) + last))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The sum of the trees of each task."""
        x = {scope: self.features(batch, scope) for scope in {t.scope: None for t in self.tasks}}
        return {t.name: self.trees[t.name](x[t.scope]) for t in self.tasks}


class Trees(nn.Module):
    """The trees of one task. Where the training labels are all the same, or none is defined: their base rate."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.booster: lightgbm.Booster | None = None
        self.register_buffer("constant", torch.zeros(task.outputs))
        self.register_buffer("seen", torch.zeros(task.outputs, dtype=torch.bool))  # classes in the training part

    def grow(
        self,
        x: np.ndarray,
        categories: list[int],
        label: Tensor,
        group: np.ndarray,
        rounds: int,
        settings: dict[str, Any],
    ) -> None:
        """Fits label [N] (NaN = undefined) on x [N, features]; rows of one ``group`` [N] stand together."""
        constant = prior(self.task, label)
        if constant is not None:
            self.get_buffer("constant").copy_(constant)
        known = (~label.isnan()).numpy()
        y = label.numpy()[known]
        values, place = np.unique(y, return_inverse=True)
        if len(values) < 2:
            return
        goal: dict[str, Any] = {"objective": "regression"}
        if self.task.traits.classes:
            self.get_buffer("seen")[values.astype(np.int64)] = True
            y = place  # LightGBM gives an absent class a probability of 1e-15
            goal = {"objective": "multiclass", "num_class": len(values)}
        elif self.task.traits.marks:
            y, goal = y > 0, {"objective": "lambdarank" if self.task.traits.grouped else "binary"}
        sizes = np.unique(group[known], return_counts=True)[1] if self.task.traits.grouped else None
        data = lightgbm.Dataset(x[known], y, group=sizes, categorical_feature=categories, params={"verbosity": -1})
        fixed = {"num_threads": 1, "deterministic": True, "force_row_wise": True, "verbosity": -1}
        self.booster = lightgbm.train({**goal, **settings, **fixed}, data, num_boost_round=rounds)

    def forward(self, x: np.ndarray) -> Tensor:
        """x [N, features] -> raw outputs [N], or [N, classes]."""
        fitted = self.get_buffer("constant").repeat(len(x), 1)
        if self.booster is not None:
            raw = torch.from_numpy(self.booster.predict(x, raw_score=True, num_threads=1)).to(fitted)
            if self.task.traits.classes:
                fitted[:, self.get_buffer("seen")] = raw.log_softmax(dim=1)
            else:
                fitted = raw[:, None]
        return output(self.task, fitted)

    def get_extra_state(self) -> Tensor:
        """The trees as LightGBM's text, in bytes; none: empty."""
        text = "" if self.booster is None else self.booster.model_to_string()
        return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8) if text else torch.empty(0).byte()

    def set_extra_state(self, state: Tensor) -> None:
        """Reads the trees from such bytes."""
        text = state.cpu().numpy().tobytes().decode()
        self.booster = lightgbm.Booster(model_str=text) if text else None
