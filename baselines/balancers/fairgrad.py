"""FairGrad: alpha-fair shares of the loss decrease (Ban and Ji, Fair Resource Allocation in MTL, ICML 2024)."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.distributions import FloatDistribution
from torch import Tensor
from torchjd.aggregation import FairGradWeighting

from baselines.balancers._gradient import AT, GradientBalancer
from bench.api import Task


class FairGrad(GradientBalancer):
    """d = sum_t w_t g_t with G w = w^(-1/alpha), w > 0, G as for ``nash_mtl``, which is alpha = 1.
    Paper: parameters."""

    space = {"alpha": FloatDistribution(0.5, 10.0, log=True), **AT}

    def __init__(self, tasks: Sequence[Task], *, alpha: float = 2.0, at: str = "representation") -> None:
        super().__init__(tasks, at=at)
        if not alpha > 0:
            raise ValueError(f"alpha {alpha}: the exponent of fairness must be positive")
        self.alpha = alpha

    def weigh(self, gram: Tensor) -> Tensor:
        """Returns w [T] from the inner products of the gradients [T, T]."""
        return FairGradWeighting(alpha=self.alpha)(gram)
