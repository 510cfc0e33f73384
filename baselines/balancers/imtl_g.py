"""IMTL-G: equal projections on all gradients (Liu et al., Towards Impartial Multi-Task Learning, ICLR 2021)."""

from __future__ import annotations

from torch import Tensor
from torchjd.aggregation import IMTLGWeighting

from baselines.balancers._gradient import GradientBalancer


class ImtlG(GradientBalancer):
    """d = T sum_t w_t g_t, sum_t w_t = 1, with d . g_t / ||g_t|| the same for all t. Paper: representation."""

    def weigh(self, gram: Tensor) -> Tensor:
        """Returns w [T] from the inner products of the gradients [T, T]."""
        return len(gram) * IMTLGWeighting()(gram)
