"""Frozen language model: candidate and history as fixed text vectors, under any multi-task architecture."""

from __future__ import annotations

from functools import partial

from optuna.distributions import CategoricalDistribution, IntDistribution

from bench.api import Schema
from bench.nn import USER_ENCODERS, MakeInputs, MakeTrunk, OnTrunk
from bench.text import tower
from bench.text.inputs import TextInputs


class Frozen(OnTrunk):
    """The architecture ``trunk`` over features and frozen text vectors.

    pooling: ``mean``, ``cls`` or ``last`` token. user: what pools the history, of ``bench.nn.history.USER_ENCODERS``.
    """

    space = {
        "text_width": IntDistribution(16, 128, step=16),
        "pooling": CategoricalDistribution(tower.FIXED),
        "user": CategoricalDistribution(tuple(USER_ENCODERS)),
    }
    later = ("pooling", "user")
    trunk = "shared_bottom"

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        trunk: MakeTrunk,
        *,
        lm: str = "all-MiniLM-L6-v2",
        text_width: int = 64,
        pooling: str = "mean",
        user: str = "additive",
    ) -> None:
        encoded = partial(tower.Frozen, schema.texts, lm, pooling)
        read = partial(TextInputs, features=inputs, tower=encoded, width=text_width, user=user)
        super().__init__(schema, read, trunk)
