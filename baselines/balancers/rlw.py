"""RLW: random loss weights (Lin et al., Reasonable Effectiveness of Random Weighting, TMLR 2022)."""

from __future__ import annotations

from torch import Tensor
from torchjd.scalarization import Random

from bench.api import Balancer


class Rlw(Balancer):
    """L = T sum_t w_t L_t, w = softmax(z), z ~ N(0, I) drawn anew in every step."""

    data_parallel = False  # processes would draw apart

    def combine(self, losses: Tensor) -> Tensor:
        """Returns the sum of the losses [T] under weights drawn anew."""
        return len(losses) * Random()(losses)
