"""Texts -> vectors of a frozen language model, each unique text once, cached on disk by content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from bench.data import cache
from bench.spec import digest
from bench.store import write_atomically
from bench.text.models import locate

MAX_TOKENS = 64
BATCH = 64


def vectors(texts: Sequence[str], model: str, report: Callable[[int, int], None] | None = None) -> np.ndarray:
    """[len(texts), width] float32: mean-pooled last hidden states, scaled to length 1 (as MiniLM was trained).

    model: an identity (``bench.text.models.identity``). An empty text is the zero vector. ``report(done, total)`` is
    called as encoding begins and goes on, and never when the cache has all.
    """
    unique = sorted(set(texts) - {""})
    name = hashlib.sha256("\0".join(unique).encode()).hexdigest()[:16]
    path = cache.root() / "text" / f"{digest([model, MAX_TOKENS])}-{name}.npy"
    if not path.exists():
        write_atomically(path, _npy(_encode(unique, model, report)))
    encoded = np.load(path)
    place = {text: i + 1 for i, text in enumerate(unique)}
    padded = np.concatenate([np.zeros_like(encoded[:1]), encoded])
    result: np.ndarray = padded[[place.get(text, 0) for text in texts]]
    return result


def _npy(array: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@torch.inference_mode()
def _encode(texts: list[str], model: str, report: Callable[[int, int], None] | None) -> np.ndarray:
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    cast(Any, logging).disable_progress_bar()  # loading takes no time; encoding has its own progress
    folder = locate(model)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    network = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # alike lengths together: little padding
    result = np.zeros((len(texts), network.config.hidden_size), dtype=np.float32)
    if report:
        report(0, len(texts))
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        tokens = tokenizer(
            [texts[i] for i in places], padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        states: Tensor = network(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
        pooled = (states * mask).sum(1) / mask.sum(1)
        result[places] = torch.nn.functional.normalize(pooled, dim=1).numpy()
        if report:
            report(start + len(places), len(texts))
    return result
