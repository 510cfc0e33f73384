"""BitFit: only the biases of the language model are trained (Ben Zaken et al., ACL 2022)."""

from __future__ import annotations

from torch import nn

from methods._tuned import Tuned


class BitFit(Tuned):
    """b of every linear layer and norm; all weight matrices stay."""

    def adapt(self, net: nn.Module) -> nn.Module:
        """Trains the biases of a frozen network; returns it. Raises ValueError if it has none."""
        biases = [p for name, p in net.named_parameters() if name.endswith("bias")]
        if not biases:
            raise ValueError("this language model has no biases to train; choose another one, or another method")
        for bias in biases:
            bias.requires_grad_()
        return net
