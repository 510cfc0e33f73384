"""PCGrad: gradient surgery (Yu et al., Gradient Surgery for Multi-Task Learning, NeurIPS 2020)."""

from __future__ import annotations

from torch import Tensor
from torchjd.aggregation import PCGradWeighting

from baselines.balancers._gradient import GradientBalancer


class PCGrad(GradientBalancer):
    """For j in random order: g_i -= (g_i . g_j / ||g_j||^2) g_j where g_i . g_j < 0; d = sum_i g_i. Paper:
    parameters."""

    def weigh(self, gram: Tensor) -> Tensor:
        """Returns w [T]: each gradient without what conflicts with the others, summed."""
        return PCGradWeighting()(gram)
