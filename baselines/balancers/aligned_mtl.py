"""Aligned-MTL: gradients made orthogonal and equal (Senushkin et al., Independent Component Alignment, CVPR 2023)."""

from __future__ import annotations

from torch import Tensor
from torchjd.aggregation import AlignedMTLWeighting

from baselines.balancers._gradient import GradientBalancer


class AlignedMtl(GradientBalancer):
    """d = sum_t w_t g_t, w = sqrt(l_min) V L^(-1/2) V^T 1, where G = V L V^T is the Gram matrix. Paper: parameters, or
    representation (UB)."""

    def weigh(self, gram: Tensor) -> Tensor:
        """Returns w [T] from the inner products of the gradients [T, T]."""
        return len(gram) * AlignedMTLWeighting()(gram)
