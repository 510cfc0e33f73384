"""DoRA: LoRA for the direction of a weight, a trained size for each output (Liu et al., ICML 2024; library `peft`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optuna.distributions import IntDistribution
from torch import nn

from bench.api import Schema
from bench.nn import MakeInputs, MakeTrunk
from methods._peft import Peft

if TYPE_CHECKING:
    from peft import PeftConfig


class Dora(Peft):
    """m (W + B A) / ||W + B A|| column by column, with m = ||W|| and B = 0 at the start; query and value."""

    space = {**Peft.space, "rank": IntDistribution(1, 64, log=True)}

    def __init__(self, schema: Schema, inputs: MakeInputs, trunk: MakeTrunk, *, rank: int = 8, **settings: Any) -> None:
        self.rank = rank
        super().__init__(schema, inputs, trunk, **settings)

    def config(self, net: nn.Module) -> PeftConfig:
        """Returns the adapter's configuration for a network."""
        from peft import LoraConfig

        return LoraConfig(r=self.rank, lora_alpha=self.rank, use_dora=True)
