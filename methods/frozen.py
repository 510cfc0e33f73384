"""Frozen language model: candidate and history as fixed text vectors, under any multi-task architecture."""

from __future__ import annotations

from functools import partial

import torch
from optuna.distributions import IntDistribution
from torch import Tensor, nn

from bench.api import Batch, Inputs, Schema
from bench.nn import HistoryAttention, MakeInputs, MakeTrunk, OnTrunk
from bench.text.encode import vectors


class TextInputs(Inputs):
    """Beside the features: the candidate's projected text vector, the history's pooled by attention, and their product.

    ``encoded`` [items, width]: the language model's vectors. Each distinct item of a batch is projected once.
    """

    def __init__(self, schema: Schema, *, features: MakeInputs, encoded: Tensor, width: int) -> None:
        super().__init__()
        self.features = features(schema)
        self.register_buffer("encoded", encoded, persistent=False)
        self.project = nn.Linear(encoded.shape[1], width)
        self.attention = HistoryAttention(width)
        self.user_width = self.features.user_width + width
        self.candidate_width = self.features.candidate_width + 2 * width

    def sides(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See ``Inputs.sides``."""
        user, candidate = self.features.sides(batch)
        ids, place = torch.unique(torch.cat([batch.item, batch.history.flatten()]), return_inverse=True)
        projected = self.project(self.get_buffer("encoded")[ids])
        item, history = (projected[p] for p in place.split([batch.item.numel(), batch.history.numel()]))
        pooled = self.attention(history.unflatten(0, batch.history.shape), batch.history > 0)
        product = item * pooled.index_select(0, batch.group)
        return torch.cat([user, pooled], dim=1), torch.cat([candidate, item, product], dim=1)


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
        encoded = torch.from_numpy(vectors(schema.texts, lm))
        super().__init__(schema, partial(TextInputs, features=inputs, encoded=encoded, width=text_width), trunk)
