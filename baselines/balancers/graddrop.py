"""GradDrop: one sign an element, drawn by purity (Chen et al., Just Pick a Sign, NeurIPS 2020)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torchjd.aggregation import GradDrop as Aggregator

from baselines.balancers._gradient import GradientBalancer


class GradDrop(GradientBalancer):
    """Element by element: P = (1 + sum_t g_t / sum_t |g_t|) / 2, u ~ U(0, 1); d is the sum of the positive g_t if
    u < P, else of the negative ones. Paper: representation (there one sign for the whole batch, here one for each
    element, as in LibMTL and torchjd)."""

    weighs = False

    def aggregate(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """Returns one gradient for each shared tensor; where tasks disagree in sign, one sign is kept by chance."""
        return [Aggregator()(r.flatten(1)).view(r.shape[1:]) for r in rows]
