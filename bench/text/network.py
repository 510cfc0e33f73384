"""Loads and runs a language model's network: whole, up to a layer, or without its first layers."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.text.models import locate
from bench.text.tokens import Tokens


class PassThrough(nn.Module):
    """Takes the place of a network's embeddings: the hidden states that come in are what its first layer reads."""

    def forward(self, inputs_embeds: Tensor, **_: Any) -> Tensor:
        """Returns inputs_embeds [n, L, width] unchanged."""
        return inputs_embeds


class Inside(nn.Module):
    """Takes the place of the lowest layer where training begins behind its last linear layer.

    What that linear layer gave and what is added to it are read side by side, and neither attention nor the
    feed-forward network runs.

    For layers built like BERT's (``fits``), in which both meet in ``output``; its linear layer has given way to what is
    trained behind it.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.output = cast(nn.Module, block.output)

    @staticmethod
    def fits(net: nn.Module) -> bool:
        """Says whether a network from ``network`` reads hidden states, and has a layer that can go on inside."""
        output = getattr(layers(net)[0], "output", None)
        return isinstance(getattr(net, "embeddings", None), PassThrough) and isinstance(
            getattr(output, "dense", None), nn.Linear
        )

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """Returns the layer's output [n, L, width] for hidden_states [n, L, 2 width]."""
        given, added = hidden_states.chunk(2, dim=-1)
        out: Tensor = self.output(given, added)
        return out


def network(model: str, depth: int = 0, *, attention: str = "eager") -> nn.Module:
    """Loads a language model from layer ``depth`` on, without dropout, pooler and head, in evaluation mode.

    With a depth it reads hidden states (``inputs_embeds``) in place of token ids. Without dropout, tuned layers give
    the same whether the ones below are cached or computed. Weights kept in half precision become float32.
    attention: its implementation in transformers. On a CPU the gradient of ``sdpa`` in bfloat16 takes up to 20 times as
    long as that of ``eager``; without gradients, ``sdpa`` is a little faster.
    """
    from transformers import AutoModel
    from transformers.utils import logging

    cast(Any, logging).disable_progress_bar()  # loading takes no time; encoding has its own progress
    net = AutoModel.from_pretrained(
        locate(model), local_files_only=True, use_safetensors=True, attn_implementation=attention, dtype=torch.float32
    ).eval()
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if getattr(net, "pooler", None) is not None:
        net.pooler = None
    if depth:
        del layers(net)[:depth]
        cast(Any, net).config.num_hidden_layers -= depth
        for place, layer in enumerate(layers(net)):  # their place in a cache of keys and values (prefix tuning)
            for module in layer.modules():
                if hasattr(module, "layer_idx"):
                    cast(Any, module).layer_idx = place
        if hasattr(net, "embeddings"):
            net.embeddings = PassThrough()
        else:
            net.set_input_embeddings(None)  # decoders do not touch it when states are given
    return cast(nn.Module, net)


def layers(net: nn.Module) -> nn.ModuleList:
    """Returns the layers of a transformer from ``network``, lowest first."""
    size = cast(Any, net).config.num_hidden_layers
    return next(m for m in net.modules() if isinstance(m, nn.ModuleList) and len(m) == size)


def depth_of(model: str) -> int:
    """Returns how many layers a language model has, by its identity."""
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(locate(model), local_files_only=True).num_hidden_layers)


def pool(hidden: Tensor, present: Tensor, how: str) -> Tensor:
    """Returns one vector a text [n, width]: the ``mean`` of the tokens present, or the first (``cls``) or ``last``.

    hidden [n, L, width], present [n, L].
    """
    if how == "mean":
        mask = present.unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1)
    last = present.sum(1) - 1 if how == "last" else torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)
    return hidden[torch.arange(len(hidden), device=hidden.device), last]


def last_states(net: nn.Module, tokens: Tokens, places: Tensor, present: Tensor) -> Tensor:
    """Returns last hidden states [n, L, width] of the tokens at ``places`` [n, L], of which those ``present`` exist."""
    ids = tokens.ids[places].to(present.device)
    hidden: Tensor = net(input_ids=ids * present, attention_mask=present.long()).last_hidden_state
    return hidden


class EarlyExit(Exception):
    """Carries the hidden states out of a network that need not go on."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden


class LowerLayers(nn.Module):
    """Runs a network up to layer ``depth`` and gives what that layer would read.

    inside: gives what ``Inside`` would read in the place of that layer instead.
    """

    def __init__(self, net: nn.Module, depth: int, inside: bool) -> None:
        super().__init__()
        self.net = net
        layer = layers(net)[depth]
        if inside:
            cast(nn.Module, layer.output).register_forward_pre_hook(self._stop_inside)
        else:
            layer.register_forward_pre_hook(self._stop, with_kwargs=True)

    @staticmethod
    def _stop(layer: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        raise EarlyExit(args[0] if args else kwargs["hidden_states"])

    @staticmethod
    def _stop_inside(output: nn.Module, args: tuple[Tensor, Tensor]) -> None:
        read, added = args
        raise EarlyExit(torch.cat([cast(Any, output).dense(read), added], dim=-1))

    def forward(self, **inputs: Tensor) -> EarlyExit:
        """Returns the states [n, L, width] as ``last_hidden_state``."""
        try:
            self.net(**inputs)
        except EarlyExit as reached:
            return reached
        raise AssertionError("the layer was not reached")
