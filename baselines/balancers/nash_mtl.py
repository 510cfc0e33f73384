"""Nash-MTL: the bargaining solution (Navon et al., Multi-Task Learning as a Bargaining Game, ICML 2022)."""

from __future__ import annotations

from torch import Tensor
from torchjd.aggregation import FairGradWeighting

from baselines.balancers._gradient import GradientBalancer


class NashMtl(GradientBalancer):
    """d = sum_t w_t g_t with G w = 1 / w, w > 0. Paper: parameters.

    G is the Gram matrix scaled to a mean diagonal of 1, so that orthogonal gradients of one length are summed; the
    paper's own d has a norm of sqrt(T) in every step. The condition is FairGrad's for alpha = 1; so is the solver.
    """

    def weigh(self, gram: Tensor) -> Tensor:
        """Returns w [T] from the inner products of the gradients [T, T]."""
        return FairGradWeighting(alpha=1.0)(gram)
