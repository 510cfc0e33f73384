"""MGDA: the shortest mean of gradients (Sener and Koltun, MTL as Multi-Objective Optimization, NeurIPS 2018)."""

from __future__ import annotations

from torch import Tensor
from torchjd.aggregation import MGDAWeighting

from baselines.balancers._gradient import GradientBalancer


class Mgda(GradientBalancer):
    """d = T sum_t w_t g_t, w = argmin over the simplex of ||sum_t w_t g_t||. Paper: parameters, or
    representation (UB)."""

    def weigh(self, gram: Tensor) -> Tensor:
        """Returns w [T] from the inner products of the gradients [T, T]."""
        return len(gram) * MGDAWeighting()(gram)
