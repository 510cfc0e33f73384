"""IA3: keys, values and feed-forward activations scaled (Liu et al., Few-Shot PEFT, NeurIPS 2022; library `peft`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from methods._peft import Peft

if TYPE_CHECKING:
    from peft import PeftConfig


class Ia3(Peft):
    """l * (W x) with a vector l, 1 at the start."""

    def config(self, net: nn.Module) -> PeftConfig:
        """Returns the adapter's configuration for a network."""
        from peft import IA3Config

        return IA3Config()
