"""LP-FT: a linear probe first, then full fine-tuning (Kumar et al., Fine-Tuning can Distort Features, ICLR 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import IntDistribution
from torch import nn

from bench.api import Schema
from bench.nn import MakeInputs, MakeTrunk
from methods._tuned import Tuned


class LpFt(Tuned):
    """For ``probe`` epochs the language model is frozen and all else is trained; after them it is trained too.

    What the paper calls the linear probe is here the whole recommender above the text vectors.
    """

    space = {**Tuned.space, "probe": IntDistribution(1, 10)}

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        trunk: MakeTrunk,
        *,
        probe: int = 3,
        lm_lr: float = 1e-4,
        **settings: Any,
    ) -> None:
        if probe < 1:
            raise ValueError(f"probe {probe}: one epoch at least; without any this is the method full")
        self.probe = probe
        super().__init__(schema, inputs, trunk, lm_lr=lm_lr, **settings)

    def adapt(self, net: nn.Module) -> nn.Module:
        """Returns the network, frozen at first."""
        return net

    def on_epoch(self, epoch: int, valid: Mapping[str, float]) -> None:
        """Unfreezes the language model after the last epoch of the probe."""
        super().on_epoch(epoch, valid)
        if epoch == self.probe:
            for tower in self.towers():
                tower.network.requires_grad_()
