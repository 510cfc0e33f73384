"""Measures how near a language model's vectors place what belongs together: the recall of pairs of texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.statistics.bootstrap import user_bootstrap
from bench.text.encode import BATCH
from bench.text.network import last_states, pool
from bench.text.tokens import Tokens, tokenise

QUERIES, CANDIDATES, TOP = 1000, 2000, 10  # of held-out pairs
EVENTS, CATALOGUE = 10_000, 20_000  # of next items


@dataclass(frozen=True)
class NextItems:
    """Holds which text came after which: the user and the pair of texts of each of n events.

    candidates: all texts to find the second text of a pair among.
    """

    users: list[int]
    pairs: list[tuple[str, str]]
    candidates: list[str]


class Recall:
    """Ranks the second text of pairs [P, 2] by its distance to the first, among other texts.

    At most ``queries`` pairs are drawn (``chosen``). The texts are those of the drawn pairs and the first
    ``candidates`` of ``texts``, which are numbers of texts in random order.
    """

    def __init__(
        self,
        net: nn.Module,
        tokens: Tokens,
        texts: Tensor,
        pairs: Tensor,
        queries: int = QUERIES,
        candidates: int = CANDIDATES,
        generator: torch.Generator | None = None,
    ) -> None:
        self.net, self.tokens = net, tokens
        self.chosen = torch.randperm(len(pairs), generator=generator)[:queries]
        self.pairs = pairs[self.chosen]
        self.texts = torch.unique(torch.cat([texts[:candidates], self.pairs.flatten().long()]))

    @classmethod
    def of(cls, net: nn.Module, lm: str, coming: NextItems, seed: int) -> Recall:
        """Makes the measurement of next items; it draws by itself, so that what is learnt does not depend on it."""
        strings = sorted({*coming.candidates, *(text for pair in coming.pairs for text in pair)})
        place = {text: i for i, text in enumerate(strings)}
        generator = torch.Generator().manual_seed(seed)
        shown = torch.tensor([place[text] for text in coming.candidates])
        shown = shown[torch.randperm(len(shown), generator=generator)]
        pairs = torch.tensor([[place[a], place[b]] for a, b in coming.pairs])
        return cls(net, tokenise(strings, lm), shown, pairs, EVENTS, CATALOGUE, generator)

    @torch.no_grad()
    def measure(self) -> Tensor:
        """Returns the ranks [Q] of the drawn pairs by the network as it is."""
        parts = torch.split(self.texts, BATCH)
        vectors = torch.cat([unit_vectors(self.net, self.tokens, part).cpu() for part in parts])
        return ranks(vectors, torch.searchsorted(self.texts, self.pairs))

    def recall(self) -> float | None:
        """Returns the share of pairs whose second text is among the 10 nearest to the first; None without pairs."""
        return int((self.measure() < TOP).sum()) / len(self.pairs) if len(self.pairs) else None


def unit_vectors(net: nn.Module, tokens: Tokens, texts: Tensor) -> Tensor:
    """Returns mean-pooled vectors of length 1 [n, width] of texts [n], given by number."""
    places, present = tokens.places(texts)
    mask = present.to(next(net.parameters()).device)
    return F.normalize(pool(last_states(net, tokens, places, mask), mask, "mean"), dim=1)


def ranks(vectors: Tensor, pairs: Tensor) -> Tensor:
    """Returns how many others are nearer to a pair's first vector than its second one is, [Q].

    vectors: [n, d], of length 1. pairs: [Q, 2], numbers of vectors. Others that are as near count half, so that equal
    vectors gain nothing.
    """
    found = []
    for part in torch.split(pairs, BATCH):
        rows, (first, second) = torch.arange(len(part)), part.T
        score = vectors[first] @ vectors.T
        score[rows, first] = -torch.inf
        own = score[rows, second, None]
        found.append((score > own).sum(dim=1) + ((score == own).sum(dim=1) - 1) / 2)
    return torch.cat(found)


def compare_ranks(before: np.ndarray, after: np.ndarray, users: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Returns recall@10, recall@100 and mean reciprocal rank before and after, and how sure their difference is.

    before, after: ranks [n] from 0. users: [n]. ``low`` and ``high`` are the ends of the 95 % bootstrap interval of the
    difference over users; None for a single user.
    """
    measures: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "recall@10": lambda rank: rank < 10,
        "recall@100": lambda rank: rank < 100,
        "mrr": lambda rank: 1 / (1 + rank),
    }
    found: dict[str, dict[str, float | None]] = {}
    for name, of in measures.items():
        old, new = of(before).astype(np.float64), of(after).astype(np.float64)
        gain = user_bootstrap(lambda _, values, *__: float(values.mean()), users, users, [new], [old])
        found[name] = {"before": float(old.mean()), "after": float(new.mean()), "low": gain.low, "high": gain.high}
    return found
