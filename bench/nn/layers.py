"""Defines blocks that methods share: multi-layer perceptron, experts and gates."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.api import Method
from bench.nn.norms import NORMS, Dropout, FusedLayer


class Mlp(nn.Sequential):
    """Applies linear layers with ReLU and dropout, as ``mlp`` makes them, and takes a norm behind each linear layer."""

    def normalise(self, kind: str) -> None:
        """Puts a norm of ``NORMS`` behind each linear layer; ``batch_fused`` is ``batch``, by ``FusedLayer``."""
        for i in reversed(range(len(self))):
            layer = self[i]
            if not isinstance(layer, nn.Linear):
                continue
            if kind == "batch_fused":
                self[i] = FusedLayer(layer, cast(Dropout, self[i + 2]))
                del self[i + 1 : i + 3]
            else:
                self.insert(i + 1, NORMS[kind](layer.out_features))


def mlp(width_in: int, width: int, depth: int, dropout: float) -> Mlp:
    """Makes ``depth`` layers of linear, ReLU and dropout, all of one width. Setting ``norm`` adds a norm to each."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width_in, width), nn.ReLU(), Dropout(dropout)]
        width_in = width
    return Mlp(*layers)


class Gate(nn.Linear):
    """Computes softmax(W x + b) over K experts. At evaluation it adds up each expert's weight, for the record."""

    def __init__(self, width_in: int, experts: int) -> None:
        super().__init__(width_in, experts)
        self.register_buffer("usage", torch.zeros(experts), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns weights [N, experts] that sum to 1 for x [N, width_in]."""
        weights = torch.softmax(super().forward(x), dim=1)
        if not self.training:
            self.get_buffer("usage").add_(weights.detach().sum(dim=0))
        return weights

    def utilisation(self) -> dict[str, Any]:
        """Returns each expert's share of the weight since ``usage`` was last zero, and the share of dead experts.

        An expert is dead with less than a tenth of an equal share. Returns nothing if nothing has passed the gate.
        """
        usage = self.get_buffer("usage").double()
        if not usage.sum() > 0:
            return {}
        share = usage / usage.sum()
        return {"usage": share.tolist(), "dead": (share < 0.1 / len(share)).double().mean().item()}


class Experts(nn.ModuleList):
    """Applies several networks, with outputs of one width, to the same input."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns the experts' outputs [N, experts, width] for x [N, width_in]."""
        if any(isinstance(module, FusedLayer) for module in self.modules()):
            x = FusedLayer.ready(x)  # once for all
        return torch.stack([expert(x) for expert in self], dim=1)


def mlps(count: int, width_in: int, width: int, depth: int, dropout: float) -> Experts:
    """Makes ``count`` networks as ``mlp`` does, with the same arguments."""
    return Experts(mlp(width_in, width, depth, dropout) for _ in range(count))


def mix(weights: Tensor, states: Tensor) -> Tensor:
    """Returns sum_k w_k s_k [N, width]. weights [N, K], states [N, K, width]."""
    mixed = torch.bmm(weights.unsqueeze(1), states.detach()).squeeze(1)
    if not states.requires_grad:
        return mixed
    return cast(Tensor, _GradientOfStates.apply(mixed, weights.detach(), states))  # type: ignore[no-untyped-call]


class _GradientOfStates(torch.autograd.Function):
    """The gradient of ``mix`` at the states, w_k g: on a CPU, a product element by element takes a third of the time
    that the same product of matrices takes, with the same bits."""

    @staticmethod
    def forward(ctx: Any, mixed: Tensor, weights: Tensor, states: Tensor) -> Tensor:
        ctx.save_for_backward(weights)
        return mixed.view_as(mixed)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor]:
        (weights,) = ctx.saved_tensors
        return gradient, None, weights.to(gradient.dtype).unsqueeze(2) * gradient.unsqueeze(1)


def normalise(method: Method, kind: str) -> None:
    """Puts a norm of ``NORMS`` behind every linear layer that an ``mlp`` of the method has."""
    for module in method.modules():
        if isinstance(module, Mlp):
            module.normalise(kind)
