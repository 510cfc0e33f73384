"""Encodes texts with a frozen language model, each unique text once, and caches the result on disk by content."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.spec import digest
from bench.storage import cache
from bench.storage.atomic import write_atomically
from bench.text.network import LowerLayers, last_states, network, pool
from bench.text.tokens import MAX_TOKENS, Tokens, tokenise

BATCH = 64
Progress = Callable[[int, int], None]


def vectors(texts: Sequence[str], model: str, report: Progress | None = None, *, pooling: str = "mean") -> np.ndarray:
    """Returns pooled last hidden states [len(texts), width] float32, scaled to length 1 (as MiniLM was trained).

    model: an identity (``bench.text.models.identity``). pooling: ``mean``, ``cls`` or ``last`` token. An empty
    text is the zero vector. ``report(done, total)`` is called as encoding begins and goes on, and never when the cache
    has all.
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
    """Returns the states that layer ``depth`` reads, [tokens of all texts, width] float32, mapped from disk.

    depth: 1, 2, ..., where 0 is the lowest layer. The tokens are those of ``tokenise(texts, model)``. inside: returns
    what ``Inside`` reads in that layer's place instead, twice as wide.
    """
    path = _path(texts, model, f"depth {depth}, inside" if inside else f"depth {depth}")
    if not path.exists():
        tokens = tokenise(texts, model)
        lower = LowerLayers(network(model, attention="sdpa"), depth, inside)
        _saved(path, len(tokens.ids), _encode(texts, tokens, lower))
    found: np.ndarray = np.load(path, mmap_mode="r")
    return found


def _path(texts: Sequence[str], model: str, what: str) -> Path:
    name = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    return cache.root() / "text" / f"{digest([model, MAX_TOKENS, what])}-{name}.npy"


@torch.inference_mode()
def _encode(
    texts: Sequence[str], tokens: Tokens, net: nn.Module, pooling: str | None = None, report: Progress | None = None
) -> Iterator[tuple[Any, np.ndarray]]:
    """Yields pieces of the result: places and what stands there, pooled texts or, without pooling, tokens' states."""
    # Alike lengths together: little padding. By characters, as it always was: the batches decide the last digits.
    order = torch.tensor(sorted(range(len(texts)), key=lambda i: len(texts[i])), dtype=torch.long)
    done = 0
    if report:
        report(0, len(tokens))
    for part in torch.split(order, BATCH):
        places, present = tokens.places(part)
        hidden = last_states(net, tokens, places, present)
        if pooling:
            yield part.numpy(), nn.functional.normalize(pool(hidden, present, pooling), dim=1).numpy()
        else:
            yield places[present].numpy(), hidden[present].numpy()
        done += len(part)
        if report:
            report(done, len(tokens))


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
