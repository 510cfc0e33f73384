"""LayerNorm tuning: only the norms of the language model are trained (Zhao et al., Tuning LayerNorm, ICLR 2024)."""

from __future__ import annotations

from torch import nn

from methods._tuned import Tuned


class LnTuning(Tuned):
    """Gain and bias of every norm in the layers that are tuned."""

    def adapt(self, net: nn.Module) -> nn.Module:
        """Trains the normalisation layers of a frozen network; returns it."""
        for module in net.modules():
            if "norm" in type(module).__name__.lower():
                module.requires_grad_()
        return net
