"""Full fine-tuning: every weight of the language model's tuned layers is trained (Devlin et al., BERT, NAACL 2019)."""

from __future__ import annotations

from typing import Any

from torch import nn

from bench.api import Schema
from bench.nn import MakeInputs, MakeTrunk
from methods._tuned import Tuned


class Full(Tuned):
    """All parameters of the layers that are tuned; of the embeddings too where these are all (``layers`` 0)."""

    def __init__(
        self, schema: Schema, inputs: MakeInputs, trunk: MakeTrunk, *, lm_lr: float = 1e-4, **settings: Any
    ) -> None:
        super().__init__(schema, inputs, trunk, lm_lr=lm_lr, **settings)

    def adapt(self, net: nn.Module) -> nn.Module:
        """Trains the whole network; returns it."""
        return net.requires_grad_()
