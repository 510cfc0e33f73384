"""VeRA: one frozen random low-rank pair for all layers, scaled (Kopiczko et al., ICLR 2024; library `peft`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optuna.distributions import IntDistribution
from torch import nn

from bench.api import Schema
from bench.nn import MakeInputs, MakeTrunk
from methods._peft import Peft

if TYPE_CHECKING:
    from peft import PeftConfig


class Vera(Peft):
    """W x + b * (B (d * (A x))), A and B random and shared, d and b trained, b = 0 at the start; query and value."""

    space = {**Peft.space, "rank": IntDistribution(8, 256, log=True)}

    def __init__(
        self, schema: Schema, inputs: MakeInputs, trunk: MakeTrunk, *, rank: int = 64, **settings: Any
    ) -> None:
        self.rank = rank
        super().__init__(schema, inputs, trunk, **settings)

    def config(self, net: nn.Module) -> PeftConfig:
        """Returns the adapter's configuration for a network."""
        from peft import VeraConfig

        return VeraConfig(r=self.rank, projection_prng_key=0)
