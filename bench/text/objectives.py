"""Computes the losses of continued pretraining: masked tokens, and pairs of texts that belong together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.text.encode import BATCH
from bench.text.models import locate
from bench.text.recall import unit_vectors
from bench.text.tokens import Tokens

OBJECTIVES = ("mlm", "context", "both")
MASKED = 0.15  # share of the tokens that are asked for
TEMPERATURE = 0.05
HEAD_LR = 1e-3  # the head is new, the rest is not

Pairs = Sequence[tuple[str, str]]


def title_and_body(text: str) -> tuple[str, str] | None:
    """Splits a text into its first sentence and the rest; returns None if one of them is empty."""
    title, *rest = re.split(r"(?<=[.!?])\s+|(?<=[。！？])|\n+", text.strip(), maxsplit=1)
    return (title.strip(), rest[0].strip()) if title.strip() and rest and rest[0].strip() else None


def mask_tokens(ids: Tensor, maskable: Tensor, token: int, ordinary: Tensor) -> tuple[Tensor, Tensor]:
    """Returns what the model reads in place of ids [n, L], and which tokens it is asked for, bool [n, L].

    Each ``maskable`` one is asked for with probability 0.15. Of these 80 % read as ``token``, 10 % as any of
    ``ordinary`` [V], 10 % as they are (Devlin et al., BERT, NAACL 2019).
    """
    asked = (torch.rand(ids.shape) < MASKED) & maskable
    how = torch.rand(ids.shape)
    other = ordinary[torch.randint(len(ordinary), ids.shape)]
    read = torch.where(asked & (how < 0.8), token, ids)
    return torch.where(asked & (how >= 0.9), other, read), asked


class Head(nn.Module):
    """Computes logits E norm(gelu(W h + b)) + c with the model's token embeddings E; c starts at the tokens' shares."""

    def __init__(self, width: int, embeddings: nn.Embedding, counts: Tensor) -> None:
        super().__init__()
        self.dense = nn.Linear(width, embeddings.embedding_dim)
        self.norm = nn.LayerNorm(embeddings.embedding_dim)
        self.bias = nn.Parameter(((counts + 1) / (counts + 1).sum()).log())

    def forward(self, hidden: Tensor, embeddings: Tensor) -> Tensor:
        """Returns logits [n, V]. hidden [n, width], embeddings [V, d]."""
        return F.linear(self.norm(F.gelu(self.dense(hidden))), embeddings, self.bias)


class Masked:
    """Computes the cross-entropy of the tokens that ``mask_tokens`` asks for, on texts drawn endlessly."""

    def __init__(self, net: nn.Module, lm: str, tokens: Tokens, texts: Tensor, held: Tensor) -> None:
        from transformers import MODEL_FOR_MASKED_LM_MAPPING, AutoTokenizer

        config = cast(Any, net).config
        tokenizer = AutoTokenizer.from_pretrained(locate(lm), local_files_only=True)
        # A tokenizer without a mask token masks with the one for unknown words.
        token = tokenizer.unk_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id
        if type(config) not in MODEL_FOR_MASKED_LM_MAPPING or getattr(config, "is_decoder", False) or token is None:
            raise BenchError(
                f"language model {lm} reads from left to right or has no token to mask with; use objective context"
            )
        special = torch.tensor(sorted(tokenizer.all_special_ids))
        vocabulary = torch.tensor(sorted(tokenizer.get_vocab().values()))
        ordinary = vocabulary[~torch.isin(vocabulary, special)]
        self.net, self.tokens = net, tokens
        self.maskable = ~torch.isin(tokens.ids, special)
        self.mask = partial(mask_tokens, token=token, ordinary=ordinary)
        self.embeddings = cast(nn.Embedding, cast(Any, net).get_input_embeddings())
        places, present = tokens.places(texts)
        seen = places[present & self.maskable[places]]
        counts = torch.bincount(tokens.ids[seen], minlength=self.embeddings.num_embeddings)
        self.head = Head(config.hidden_size, self.embeddings, counts).to(self.embeddings.weight.device)
        self.batches = _batches(texts)
        self.probe = [self._masked(part) for part in torch.split(held, BATCH)]

    def loss(self) -> tuple[Tensor, int]:
        """Returns the mean loss of the next batch, and how many tokens passed through the model."""
        drawn = self._masked(next(self.batches))
        total, asked = self._total(*drawn)
        return total / max(asked, 1), int(drawn[1].sum())

    @torch.no_grad()
    def measure(self) -> float | None:
        """Returns the mean loss on the held-out texts, always under the same masks; None if these ask for nothing."""
        totals, asked = zip(*(self._total(*drawn) for drawn in self.probe), strict=True)
        return sum(float(t) for t in totals) / sum(asked) if sum(asked) else None

    def _masked(self, texts: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        places, present = self.tokens.places(texts)
        ids = self.tokens.ids[places] * present
        read, asked = self.mask(ids, present & self.maskable[places])
        return ids, present, read, asked

    def _total(self, ids: Tensor, present: Tensor, read: Tensor, asked: Tensor) -> tuple[Tensor, int]:
        """Summed loss of what is asked for, and how much that is."""
        device = self.embeddings.weight.device
        hidden = self.net(input_ids=read.to(device), attention_mask=present.long().to(device)).last_hidden_state
        logits = self.head(hidden[asked.to(device)], self.embeddings.weight)
        return F.cross_entropy(logits, ids[asked].to(device), reduction="sum"), int(asked.sum())


class Context:
    """Computes the ``contrastive`` loss of pairs of texts [P, 2] drawn without end."""

    def __init__(self, net: nn.Module, tokens: Tokens, pairs: Tensor) -> None:
        self.net, self.tokens, self.pairs = net, tokens, pairs
        self.batches = _batches(torch.arange(len(pairs)))
        counts = torch.stack([torch.bincount(side, minlength=len(tokens)) for side in pairs.T], dim=1)
        self.log_share = (counts / len(pairs)).log()

    def loss(self) -> tuple[Tensor, int]:
        """Returns the mean loss of the next batch, and how many tokens passed through the model."""
        drawn = self.pairs[next(self.batches)]
        texts, place = torch.unique(drawn, return_inverse=True)
        encoded = unit_vectors(self.net, self.tokens, texts)
        left, right = encoded[place[:, 0].to(encoded.device)], encoded[place[:, 1].to(encoded.device)]
        log_share = self.log_share[drawn, torch.arange(2)]
        loss = contrastive(left, right, drawn.to(encoded.device), log_share.to(encoded.device))
        return loss, int(self.tokens.lengths[texts].sum())


def contrastive(left: Tensor, right: Tensor, texts: Tensor, log_share: Tensor) -> Tensor:
    """Returns InfoNCE among the pairs of a batch (van den Oord et al., 2018), from left to right and back, halved.

    left, right: vectors of length 1 [n, d]; texts [n, 2]: numbers of the pairs' texts. log_share [n, 2]: log of the
    share of all pairs that have this text on this side. The rivals of a pair (a, b) are the right texts of pairs that
    do not start with a, without a and b themselves; the way back is alike. Texts of many pairs are rivals more often:
    their log share is taken off, so that the scores learn how often b follows a, not how much more often than it
    follows others (Yi et al., Sampling-Bias-Corrected Neural Modeling, RecSys 2019).
    """
    score = left @ right.T / TEMPERATURE
    forth, back = score - log_share[:, 1], score.T - log_share[:, 0]
    return (_one_way(forth, texts) + _one_way(back, texts.flip(1))) / 2


def _one_way(score: Tensor, texts: Tensor) -> Tensor:
    first, second = texts.T
    no_rival = (first[:, None] == first) | (second[:, None] == second) | (first[:, None] == second)
    own = torch.arange(len(score), device=score.device)
    no_rival[own, own] = False
    return F.cross_entropy(score.masked_fill(no_rival, -torch.inf), own)


def _batches(numbers: Tensor) -> Iterator[Tensor]:
    """Batches of numbers without end, each pass in a new order."""
    while True:
        yield from torch.split(numbers[torch.randperm(len(numbers))], BATCH)
