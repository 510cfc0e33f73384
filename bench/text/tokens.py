"""Turns texts into token ids, each text once, kept end to end: a batch of texts is an index into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.text.models import locate

MAX_TOKENS = 64


@dataclass(frozen=True)
class Tokens:
    """Holds the tokens of n texts, text after text. ids: [tokens]; start: [n + 1], the first token of each text."""

    ids: Tensor
    start: Tensor

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def lengths(self) -> Tensor:
        """Number of tokens of each text [n]."""
        return self.start.diff()

    def places(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Returns where the tokens of ``texts`` [m] stand, [m, longest of them], and which exist, bool of that shape.

        A place without a token points at token 0.
        """
        length = self.lengths[texts]
        step = torch.arange(int(length.max()))
        present = step < length[:, None]
        return torch.where(present, self.start[:-1][texts][:, None] + step, 0), present


def tokenise(texts: Sequence[str], model: str) -> Tokens:
    """Returns at most 64 tokens of every text, special ones included.

    model: an identity (``bench.text.models.identity``).
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(locate(model), local_files_only=True)
    found = tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"] if texts else []
    start = torch.from_numpy(np.cumsum([0, *map(len, found)], dtype=np.int64))
    return Tokens(torch.tensor([i for ids in found for i in ids], dtype=torch.long), start)
