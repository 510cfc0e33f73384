"""Prompt tuning: trained vectors in front of a text's (Lester et al., EMNLP 2021; library `peft`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optuna.distributions import IntDistribution
from torch import nn

from bench.api import Schema
from bench.nn import MakeInputs, MakeTrunk
from methods._peft import Peft

if TYPE_CHECKING:
    from peft import PeftConfig


class Prompt(Peft):
    """The lowest layer that is tuned reads [P, h]: ``length`` trained vectors, then the text's."""

    space = {**Peft.space, "length": IntDistribution(1, 64, log=True)}

    def __init__(
        self, schema: Schema, inputs: MakeInputs, trunk: MakeTrunk, *, length: int = 16, **settings: Any
    ) -> None:
        self.length = length
        super().__init__(schema, inputs, trunk, **settings)

    def config(self, net: nn.Module) -> PeftConfig:
        """Returns the adapter's configuration for a network."""
        from peft import PromptTuningConfig

        return PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=self.length)
