"""GLS: the geometric mean of the losses (Chennupati et al., MultiNet++, CVPR Workshops 2019)."""

from __future__ import annotations

from torch import Tensor
from torchjd.scalarization import GeometricMean

from bench.api import Balancer


class Gls(Balancer):
    """L = T (prod_t L_t)^(1/T), so that equal losses have weight 1. A loss of 0 or less is added as it is."""

    def combine(self, losses: Tensor) -> Tensor:
        """Returns T times the geometric mean of the losses [T] above 0."""
        positive = losses > 0
        rest = losses[~positive].sum()
        return len(losses) * GeometricMean()(losses[positive]) + rest if positive.any() else rest
