"""Gradual unfreezing from the top, with smaller rates further down (Howard and Ruder, ULMFiT, ACL 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import FloatDistribution, IntDistribution
from torch import nn

from bench.api import Schema
from bench.nn import MakeInputs, MakeTrunk
from bench.text.network import layers
from methods._tuned import Tuned


class Unfreeze(Tuned):
    """In epoch 1 the highest layer is trained; each ``every`` epochs the next one below joins, down to the lowest of
    the ``layers`` that are tuned. The rate of a layer is that of the one above it divided by ``decay``.

    The paper also anneals the rates within an epoch; that is the common setting ``schedule``.
    """

    space = {
        **Tuned.space,
        "every": IntDistribution(1, 4),
        "decay": FloatDistribution(1.0, 4.0),
    }

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        trunk: MakeTrunk,
        *,
        every: int = 1,
        decay: float = 2.6,
        lm_lr: float = 1e-4,
        **settings: Any,
    ) -> None:
        if every < 1 or not decay > 0:
            raise ValueError(f"every {every}, decay {decay}: an epoch at least, and a positive number")
        self.every, self.decay = every, decay
        super().__init__(schema, inputs, trunk, lm_lr=lm_lr, **settings)

    def adapt(self, net: nn.Module) -> nn.Module:
        """Trains the last layer of a frozen network, to begin with; returns it."""
        layers(net)[-1].requires_grad_()
        return net

    def on_epoch(self, epoch: int, valid: Mapping[str, float]) -> None:
        """Unfreezes the next layer when its time has come."""
        super().on_epoch(epoch, valid)
        for tower in self.towers():
            for layer in list(layers(tower.network))[-1 - epoch // self.every :]:
                layer.requires_grad_()

    def rates(self, lr: float) -> list[tuple[nn.Module, float]]:
        """A rate for each layer."""
        each = [reversed(layers(tower.network)) for tower in self.towers()]
        own = [(layer, self.lm_lr / self.decay**i) for of_tower in each for i, layer in enumerate(of_tower)]
        return [*super().rates(lr), *own]
