"""Encodes a user's history in one vector."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd

import torch
from torch import Tensor, nn

from bench.nn.layers import mix


class HistoryAttention(nn.Module):
    """Pools a history by additive attention, a = softmax(q . tanh(W h + b)) (Wu et al., NRMS, EMNLP 2019, eq. 5-6)."""

    def __init__(self, width: int, hidden: int = 32) -> None:
        super().__init__()
        self.project = nn.Linear(width, hidden)
        self.query = nn.Linear(hidden, 1, bias=False)

    def forward(self, states: Tensor, present: Tensor) -> Tensor:
        """Returns [G, width], zeros for an empty history. states [G, L, width], present [G, L] bool."""
        score = self.query(torch.tanh(self.project(states))).squeeze(-1)
        return mix(torch.softmax(score.masked_fill(~present, -1e9), dim=1) * present, states)


class HistoryTransformer(nn.Module):
    """Pools a history by self-attention among its items, then additive attention (Wu et al., NRMS, EMNLP 2019).

    z = h + p; u = z + A(n(z)); v = u + W_2 relu(W_1 n(u)); ``HistoryAttention`` of v. p are trained vectors of the
    places, the last one that of the latest item, A is attention of four heads (fewer where the width is no multiple of
    4) without the padding, n layer norm (pre-norm), and W_1 doubles the width. Dropout is 0.1.
    """

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.empty(length, width))
        nn.init.normal_(self.positions, std=0.02)
        self.layer = nn.TransformerEncoderLayer(
            width, gcd(width, 4), 2 * width, dropout=0.1, batch_first=True, norm_first=True
        )
        self.attention = HistoryAttention(width)

    def forward(self, states: Tensor, present: Tensor) -> Tensor:
        """Returns [G, width], zeros for an empty history. states [G, L, width], present [G, L] bool."""
        # Where all is padding, none is hidden: attention over nothing would be NaN. Nothing of it is pooled.
        hidden = ~present & present.any(dim=1, keepdim=True)
        mixed = self.layer(states + self.positions, src_key_padding_mask=hidden)
        pooled: Tensor = self.attention(mixed, present)
        return pooled


USER_ENCODERS: dict[str, Callable[[int, int], nn.Module]] = {
    "additive": lambda width, length: HistoryAttention(width),
    "transformer": HistoryTransformer,
}
