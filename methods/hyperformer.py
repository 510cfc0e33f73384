"""HyperFormer++: a hypernetwork writes the adapters of all tasks and layers (Mahabadi et al., ACL 2021)."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from optuna.distributions import IntDistribution
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Schema
from bench.nn import MakeInputs, MakeTrunk
from bench.text.network import layers
from bench.text.per_task import PerTask
from methods._conditioned import Conditioned
from methods.adapter import ends

PLACES = 2  # adapters in a layer: behind attention, and behind the feed-forward network
Weights = tuple[Tensor, Tensor, Tensor, Tensor]


class Hypernetwork(PerTask):
    """(D, U, gamma, beta) = (W^D, W^U, W^gamma, W^beta) I, with I = W_2 relu(W_1 [z_t, l, p] + b_1) + b_2.

    z_t, l and p are trained embeddings of the task at work, a layer and a place in it. W^gamma and W^beta start at 0.
    """

    def __init__(self, tasks: int, depth: int, *, width: int, bottleneck: int, code: int) -> None:
        super().__init__()
        self.bottleneck = bottleneck
        self.of_task = nn.ParameterList(torch.randn(code) for _ in range(tasks))
        self.of_layer = nn.Parameter(torch.randn(depth, code))
        self.of_place = nn.Parameter(torch.randn(PLACES, code))
        self.project = nn.Sequential(nn.Linear(3 * code, code), nn.ReLU(), nn.Linear(code, code))
        self.down = nn.Linear(code, bottleneck * width, bias=False)
        self.up = nn.Linear(code, width * bottleneck, bias=False)
        self.gain = nn.Linear(code, width, bias=False)
        self.shift = nn.Linear(code, width, bias=False)
        # What is written is to have the variance of a linear layer's weights, one over the number of its inputs.
        nn.init.normal_(self.down.weight, std=1 / math.sqrt(code * width))
        nn.init.normal_(self.up.weight, std=1 / math.sqrt(code * bottleneck))
        nn.init.zeros_(self.gain.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, layer: int, place: int) -> Weights:
        """D [bottleneck, width], U [width, bottleneck], gamma and beta [width] of an adapter."""
        code = self.project(torch.cat([self.of_task[self.task], self.of_layer[layer], self.of_place[place]]))
        down, up = self.down(code).view(self.bottleneck, -1), self.up(code).view(-1, self.bottleneck)
        return down, up, self.gain(code), self.shift(code)


class Written(nn.Module):
    """A linear layer, and an adapter on what it gives: f(h) + gamma * norm(U gelu(D f(h))) + beta, norm to mean 0 and
    variance 1, before the residual and the layer norm of the model."""

    def __init__(self, layer: nn.Linear, source: Hypernetwork, at: tuple[int, int]) -> None:
        super().__init__()
        self.layer = layer
        self.source = (source,)  # in a tuple it is no submodule: it belongs to the network, which has it once
        self.at = at

    def forward(self, h: Tensor) -> Tensor:
        """h [..., width of the layer's input] -> [..., width]."""
        plain: Tensor = self.layer(h)
        down, up, gain, shift = self.source[0](*self.at)
        inner = F.linear(F.gelu(F.linear(plain, down)), up)
        given: Tensor = plain + gain * F.layer_norm(inner, inner.shape[-1:]) + shift
        return given


class Hyperformer(Conditioned):
    """f(h) + LN_t(U_t gelu(D_t f(h))) behind attention and feed-forward network of each layer that is tuned.

    D_t, U_t and the gain and bias of the layer norm LN_t are written by one hypernetwork for all tasks, layers and
    places, from embeddings of width ``code``. Gain and bias are 0 at the start, so that all begins as the identity. The
    paper also trains the model's own layer norms; here they stay.
    """

    space = {
        **Conditioned.space,
        "bottleneck": IntDistribution(4, 64, log=True),
        "code": IntDistribution(8, 128, log=True),
    }

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        trunk: MakeTrunk,
        *,
        bottleneck: int = 12,
        code: int = 64,
        **settings: Any,
    ) -> None:
        if bottleneck < 1 or code < 1:
            raise ValueError(f"bottleneck {bottleneck}, code {code}: each is at least 1")
        self.bottleneck, self.code = bottleneck, code
        super().__init__(schema, inputs, trunk, **settings)

    def adapt(self, net: nn.Module, *, tasks: int = 1) -> nn.Module:
        """Puts adapters, which one hypernetwork generates for so many tasks, into every layer; returns the network."""
        width = cast(Any, net).config.hidden_size
        blocks = layers(net)
        source = Hypernetwork(tasks, len(blocks), width=width, bottleneck=self.bottleneck, code=self.code)
        for i, block in enumerate(blocks):
            for place, (name, layer) in enumerate(ends(block, width)):
                block.set_submodule(name, Written(layer, source, (i, place)))
        net.add_module("hypernetwork", source)
        return net
