"""UPGrad: projection on the dual cone of all gradients (Quinton and Rey, Jacobian Descent, 2024)."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor
from torchjd.aggregation import UPGradWeighting
from torchjd.linalg import DualConeProjector

from baselines.balancers._gradient import GradientBalancer


class UPGrad(GradientBalancer):
    """d = sum_t p_t, p_t the projection of g_t on {x: x . g_u >= 0 for all u}; the paper's mean times T. Paper:
    parameters."""

    def weigh(self, gram: Tensor) -> Tensor:
        """Returns w [T] from the inner products of the gradients [T, T]."""
        return len(gram) * UPGradWeighting(projector=NonNegativeLeastSquares())(gram)


class NonNegativeLeastSquares(DualConeProjector):
    """Exact for a few tasks: min v^T G v with v >= u is min ||R x + R u|| with x = v - u >= 0, where G = R^T R."""

    def __call__(self, U: Tensor, G: Tensor) -> Tensor:
        """U [T, T], one vector to project a row; G [T, T] the Gram matrix. Returns weights [T, T]."""
        values, vectors = np.linalg.eigh(G.numpy())
        root = np.sqrt(values.clip(min=0))[:, None] * vectors.T
        return torch.as_tensor(np.stack([u + nnls(root, -root @ u)[0] for u in U.numpy()]))
