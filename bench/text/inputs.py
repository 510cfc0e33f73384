"""Defines the input layer of methods that read texts: features, the candidate's text, and the history's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.api import Batch, Inputs, Schema
from bench.nn import USER_ENCODERS, MakeInputs
from bench.text.tower import Frozen, Tower


class TextInputs(Inputs):
    """Puts beside the features the candidate's projected text vector, the history's pooled ones, and their product.

    tower: makes what gives the language model's vectors of items, one for each input layer of an architecture. Each
    different item of a batch is looked at once. user: what pools the history, of ``bench.nn.USER_ENCODERS``; the one
    without weights for places where there is no history, for which all give zeros.
    """

    def __init__(
        self, schema: Schema, *, features: MakeInputs, tower: Callable[[], Frozen | Tower], width: int, user: str
    ) -> None:
        if user not in USER_ENCODERS:
            raise ValueError(f"user '{user}': choose {', '.join(USER_ENCODERS)}")
        super().__init__()
        self.features = features(schema)
        self.tower = tower()
        self.project = nn.Linear(self.tower.width, width)
        self.attention = USER_ENCODERS[user if schema.history else "additive"](width, schema.history)
        self.user_width = self.features.user_width + width
        self.candidate_width = self.features.candidate_width + 2 * width

    def sides(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the user side [G, user_width] and the candidate side [B, candidate_width]."""
        user, candidate = self.features.sides(batch)
        ids, place = torch.unique(torch.cat([batch.item, batch.history.flatten()]), return_inverse=True)
        projected = self.project(self.tower(ids))
        item, history = (projected[p] for p in place.split([batch.item.numel(), batch.history.numel()]))
        pooled = self.attention(history.unflatten(0, batch.history.shape), batch.history > 0)
        product = item * pooled.index_select(0, batch.group)
        return torch.cat([user, pooled], dim=1), torch.cat([candidate, item, product], dim=1)
