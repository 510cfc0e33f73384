"""Texts -> what a frozen language model makes of them, each unique text once, cached on disk by content."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from bench.data import cache
from bench.spec import digest
from bench.store import write_atomically
from bench.text.models import locate
from bench.text.tokens import MAX_TOKENS, Tokens, tokenise

BATCH = 64
Report = Callable[[int, int], None]


class Given(nn.Module):
    """Takes the place of a network's embeddings: the hidden states that come in are what its first layer reads."""

    def forward(self, inputs_embeds: Tensor, **_: Any) -> Tensor:
        """inputs_embeds [n, L, width], unchanged."""
        return inputs_embeds


class Inside(nn.Module):
    """Takes the place of the lowest layer where training begins behind its last linear layer: what that layer gave and
    what is added to it are read side by side, and neither attention nor the feed-forward network runs.

    For layers built like BERT's (``fits``), in which both meet in ``output``; its linear layer has given way to what is
    trained behind it.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.output = cast(nn.Module, block.output)

    @staticmethod
    def fits(net: nn.Module) -> bool:
        """Whether a network from ``network`` reads hidden states, and has a layer that can go on inside."""
        output = getattr(layers(net)[0], "output", None)
        return isinstance(getattr(net, "embeddings", None), Given) and isinstance(
            getattr(output, "dense", None), nn.Linear
        )

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """hidden_states [n, L, 2 width] -> [n, L, width]."""
        given, added = hidden_states.chunk(2, dim=-1)
        out: Tensor = self.output(given, added)
        return out


def network(model: str, depth: int = 0, *, attention: str = "eager") -> nn.Module:
    """A language model from layer ``depth`` on, without dropout, its pooler and any head, in evaluation mode.

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
            net.embeddings = Given()
        else:
            net.set_input_embeddings(None)  # decoders do not touch it when states are given
    return cast(nn.Module, net)


def layers(net: nn.Module) -> nn.ModuleList:
    """The layers of a transformer from ``network``, lowest first."""
    size = cast(Any, net).config.num_hidden_layers
    return next(m for m in net.modules() if isinstance(m, nn.ModuleList) and len(m) == size)


def depth_of(model: str) -> int:
    """How many layers a language model has."""
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(locate(model), local_files_only=True).num_hidden_layers)


def vectors(texts: Sequence[str], model: str, report: Report | None = None, *, pooling: str = "mean") -> np.ndarray:
    """[len(texts), width] float32: pooled last hidden states, scaled to length 1 (as MiniLM was trained).

    model: an identity (``bench.text.models.identity``). pooling: see ``pool``. An empty text is the zero vector.
    ``report(done, total)`` is called as encoding begins and goes on, and never when the cache has all.
    """
    unique = sorted(set(texts) - {""})
    path = _path(unique, model, pooling)
    if not path.exists():
        net = network(model, attention="sdpa")
        _saved(path, len(unique), _encode(unique, tokenise(unique, model), net, pooling, report))
    encoded = np.load(path)
    place = {text: i + 1 for i, text in enumerate(unique)}
    padded = np.concatenate([np.zeros_like(encoded[:1]), encoded])
    result: np.ndarray = padded[[place.get(text, 0) for text in texts]]
    return result


def states(texts: Sequence[str], model: str, depth: int, *, inside: bool = False) -> np.ndarray:
    """[tokens of all texts, width] float32, mapped from disk: what layer ``depth`` (1, 2, ...) reads, where 0 is the
    lowest, of ``tokenise(texts, model)``. inside: what ``Inside`` reads in that layer's place, twice as wide."""
    path = _path(texts, model, f"depth {depth}, inside" if inside else f"depth {depth}")
    if not path.exists():
        tokens = tokenise(texts, model)
        upto = UpTo(network(model, attention="sdpa"), depth, inside)
        _saved(path, len(tokens.ids), _encode(texts, tokens, upto))
    found: np.ndarray = np.load(path, mmap_mode="r")
    return found


def pool(hidden: Tensor, present: Tensor, how: str) -> Tensor:
    """hidden [n, L, width], present [n, L] -> [n, width]: of the tokens present the ``mean``, or the first (``cls``) or
    ``last``."""
    if how == "mean":
        mask = present.unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1)
    last = present.sum(1) - 1 if how == "last" else torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)
    return hidden[torch.arange(len(hidden), device=hidden.device), last]


def _path(texts: Sequence[str], model: str, what: str) -> Path:
    name = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    return cache.root() / "text" / f"{digest([model, MAX_TOKENS, what])}-{name}.npy"


@torch.inference_mode()
def _encode(
    texts: Sequence[str], tokens: Tokens, net: nn.Module, pooling: str | None = None, report: Report | None = None
) -> Iterator[tuple[Any, np.ndarray]]:
    """Yields pieces of the result: places and what stands there, pooled texts or, without pooling, tokens' states."""
    # Alike lengths together: little padding. By characters, as it always was: the batches decide the last digits.
    order = torch.tensor(sorted(range(len(texts)), key=lambda i: len(texts[i])), dtype=torch.long)
    done = 0
    if report:
        report(0, len(tokens))
    for part in torch.split(order, BATCH):
        places, present = tokens.places(part)
        hidden = run(net, tokens, places, present)
        if pooling:
            yield part.numpy(), nn.functional.normalize(pool(hidden, present, pooling), dim=1).numpy()
        else:
            yield places[present].numpy(), hidden[present].numpy()
        done += len(part)
        if report:
            report(done, len(tokens))


def run(net: nn.Module, tokens: Tokens, places: Tensor, present: Tensor) -> Tensor:
    """The last hidden states [n, L, width] of the tokens at ``places`` [n, L], of which those ``present`` exist."""
    ids = tokens.ids[places].to(present.device)
    hidden: Tensor = net(input_ids=ids * present, attention_mask=present.long()).last_hidden_state
    return hidden


class Reached(Exception):
    """Carries the hidden states out of a network that need not go on."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden


class UpTo(nn.Module):
    """A network that stops before layer ``depth`` and gives what that layer would read; ``inside``: what ``Inside``
    would read in its place."""

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
        raise Reached(args[0] if args else kwargs["hidden_states"])

    @staticmethod
    def _stop_inside(output: nn.Module, args: tuple[Tensor, Tensor]) -> None:
        read, added = args
        raise Reached(torch.cat([cast(Any, output).dense(read), added], dim=-1))

    def forward(self, **inputs: Tensor) -> Reached:
        """``last_hidden_state`` of what is returned: [n, L, width]."""
        try:
            self.net(**inputs)
        except Reached as reached:
            return reached
        raise AssertionError("the layer was not reached")


def _saved(path: Path, rows: int, pieces: Iterator[tuple[Any, np.ndarray]]) -> None:
    """Writes [rows, width] float32 once all pieces are there; one process makes them, the others wait for it."""
    with cache.only_one(path.stem):
        if path.exists():  # by a process that was faster
            return
        result = np.zeros((rows, 0), dtype=np.float32)
        for places, values in pieces:
            if not result.size:
                result = np.zeros((rows, values.shape[1]), dtype=np.float32)
            result[places] = values
        buffer = io.BytesIO()
        np.save(buffer, result)
        write_atomically(path, buffer.getbuffer())
