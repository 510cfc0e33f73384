"""LoRA: low-rank updates of the attention's query and value (Hu et al., ICLR 2022; library `peft`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optuna.distributions import IntDistribution
from torch import nn

from bench.api import Schema
from bench.nn import MakeInputs, MakeTrunk
from methods._peft import Peft

if TYPE_CHECKING:
    from peft import PeftConfig


class Lora(Peft):
    """W x + (alpha / rank) B A x, with B = 0 at the start; A and B are trained."""

    space = {**Peft.space, "rank": IntDistribution(1, 64, log=True), "alpha": IntDistribution(1, 64, log=True)}

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        trunk: MakeTrunk,
        *,
        rank: int = 8,
        alpha: int = 16,
        **settings: Any,
    ) -> None:
        self.rank, self.alpha = rank, alpha
        super().__init__(schema, inputs, trunk, **settings)

    def config(self, net: nn.Module) -> PeftConfig:
        """Returns the adapter's configuration for a network."""
        from peft import LoraConfig

        return LoraConfig(r=self.rank, lora_alpha=self.alpha)
