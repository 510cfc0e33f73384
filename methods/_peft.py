"""The adapters of the library `peft`, through one base: a subclass gives its configuration."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, cast

from torch import nn

from methods._tuned import Tuned

if TYPE_CHECKING:
    from peft import PeftConfig


class Peft(Tuned):
    """The language model inside ``peft.get_peft_model``. Attributes that ``config`` reads are set before the base's
    constructor runs, as it calls ``adapt``."""

    def config(self, net: nn.Module) -> PeftConfig:
        """The adapter's configuration for a network."""
        raise NotImplementedError

    def adapt(self, net: nn.Module) -> nn.Module:
        """Returns the frozen network with the adapter around it."""
        from peft import get_peft_model
        from transformers import PreTrainedModel

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for what it will rename
            return get_peft_model(cast(PreTrainedModel, net), self.config(net))
