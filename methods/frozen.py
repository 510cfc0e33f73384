"""Frozen language model: candidate and history as fixed text vectors, under any multi-task architecture."""

from __future__ import annotations

from functools import partial

from optuna.distributions import IntDistribution

from bench.api import Schema
from bench.nn import MakeInputs, MakeTrunk, OnTrunk
from bench.text import tower
from bench.text.inputs import TextInputs


class Frozen(OnTrunk):
    """The architecture ``trunk`` over features and frozen text vectors."""

    space = {"text_width": IntDistribution(16, 128, step=16)}
    trunk = "shared_bottom"

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        trunk: MakeTrunk,
        *,
        lm: str = "all-MiniLM-L6-v2",
        text_width: int = 64,
    ) -> None:
        encoded = partial(tower.Frozen, schema.texts, lm)
        super().__init__(schema, partial(TextInputs, features=inputs, tower=encoded, width=text_width), trunk)
