"""Bottleneck adapters (Houlsby et al., ICML 2019; Pfeiffer et al., EACL 2021; He et al., Unified View, ICLR 2022)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from optuna.distributions import CategoricalDistribution, IntDistribution
from torch import Tensor, nn

from bench.api import Schema
from bench.nn import MakeInputs, MakeTrunk
from bench.text.network import Inside, layers
from methods._tuned import Tuned

PLACES = ("houlsby", "pfeiffer", "parallel")


class Bottleneck(nn.Module):
    """W_up relu(W_down h + b_down) + b_up, with W_up and b_up 0 at the start."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, h: Tensor) -> Tensor:
        """h [..., width] -> what is added to it, alike."""
        added: Tensor = self.up(torch.relu(self.down(h)))
        return added


class After(nn.Module):
    """A linear layer, and a bottleneck on what it gives: f(h) + B(f(h)), before the residual and the norm."""

    def __init__(self, layer: nn.Linear, bottleneck: int) -> None:
        super().__init__()
        self.layer: nn.Module = layer
        self.adapter = Bottleneck(layer.out_features, bottleneck)

    def forward(self, h: Tensor) -> Tensor:
        """h [..., width of the layer's input] -> [..., width]."""
        plain: Tensor = self.layer(h)
        given: Tensor = plain + self.adapter(plain)
        return given


class Beside(nn.Module):
    """The last linear layer of a feed-forward network, and a bottleneck on what the network reads: f(h) + B(h)."""

    def __init__(self, entrance: nn.Linear, layer: nn.Linear, bottleneck: int) -> None:
        super().__init__()
        self.layer = layer
        self.adapter = Bottleneck(layer.out_features, bottleneck)
        self.read: Tensor | None = None
        entrance.register_forward_pre_hook(self._see)

    def _see(self, _: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.read = args[0]

    def forward(self, h: Tensor) -> Tensor:
        """h [..., width of the layer's input] -> [..., width]."""
        assert self.read is not None, "the feed-forward network has not run"
        read, self.read = self.read, None
        given: Tensor = self.layer(h) + self.adapter(read)
        return given


def linears(block: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of a transformer's layer by name, in the order in which they are declared."""
    return {name: m for name, m in block.named_modules() if isinstance(m, nn.Linear)}


def ends(block: nn.Module, width: int) -> list[tuple[str, nn.Linear]]:
    """By name the linear layers in which attention and the feed-forward network end, in this order: the last two that
    give the model's width."""
    return [(name, m) for name, m in linears(block).items() if m.out_features == width][-2:]


def replace(block: nn.Module, name: str, make: Callable[[nn.Linear, int], nn.Module], bottleneck: int) -> None:
    """Puts what ``make`` makes of a linear layer in its place."""
    block.set_submodule(name, make(linears(block)[name], bottleneck))


def begin_inside(net: nn.Module) -> None:
    """Puts ``Inside`` in the place of the lowest layer, whose feed-forward network ends in ``After``."""
    lowest = Inside(layers(net)[0])
    cast(After, lowest.output.dense).layer = nn.Identity()  # its output is what comes in
    layers(net)[0] = lowest


class Adapter(Tuned):
    """A small network in each layer that is tuned; the language model's own weights stay.

    place: ``houlsby`` puts one behind attention and one behind the feed-forward network, ``pfeiffer`` one behind the
    feed-forward network, ``parallel`` one beside it, on the same input: f(h) + B(h). All start as the identity.
    With ``pfeiffer`` all that the lowest layer computes up to its adapter stays as it is, and is cached.
    """

    version = 2

    space = {
        **Tuned.space,
        "place": CategoricalDistribution(PLACES),
        "bottleneck": IntDistribution(8, 128, log=True),
    }

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        trunk: MakeTrunk,
        *,
        place: str = "pfeiffer",
        bottleneck: int = 32,
        **settings: Any,
    ) -> None:
        if place not in PLACES:
            raise ValueError(f"place '{place}': choose {', '.join(PLACES)}")
        if bottleneck < 1:
            raise ValueError(f"bottleneck {bottleneck}: it is at least 1")
        self.place, self.bottleneck = place, bottleneck
        super().__init__(schema, inputs, trunk, **settings)

    def adapt(self, net: nn.Module) -> nn.Module:
        """Puts adapters into every layer of a frozen network; returns it."""
        width = cast(Any, net).config.hidden_size
        inside = self.place == "pfeiffer" and Inside.fits(net)
        for block in layers(net):
            found = linears(block)
            attention, feed_forward = (name for name, _ in ends(block, width))
            if self.place == "parallel":
                entrance = next(m for m in found.values() if m.out_features == found[feed_forward].in_features != width)
                replace(block, feed_forward, partial(Beside, entrance), self.bottleneck)
            else:
                replace(block, feed_forward, After, self.bottleneck)
            if self.place == "houlsby":
                replace(block, attention, After, self.bottleneck)
        if inside:
            begin_inside(net)
        return net
