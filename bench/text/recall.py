"""How near a language model's vectors place what belongs together: the recall of pairs of texts, before and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.statistics.bootstrap import user_bootstrap
from bench.text.encode import BATCH
from bench.text.network import pool, run
from bench.text.tokens import Tokens, tokenise

QUERIES, CANDIDATES, TOP = 1000, 2000, 10  # of held-out pairs
EVENTS, CATALOGUE = 10_000, 20_000  # of next items


@dataclass(frozen=True)
class NextItems:
    """Which text came after which: ``users`` [n] whose events these are, ``pairs`` [n], and all texts to find the
    second one among."""

    users: list[int]
    pairs: list[tuple[str, str]]
    candidates: list[str]


class Recall:
    """``ranks`` of pairs of texts [P, 2], of which it takes at most ``queries`` (``chosen``), among the texts of these
    and the first ``candidates`` of ``texts``, numbers in random order."""

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
        """That of next items; it draws by itself, so that what is learnt does not depend on it."""
        strings = sorted({*coming.candidates, *(text for pair in coming.pairs for text in pair)})
        place = {text: i for i, text in enumerate(strings)}
        generator = torch.Generator().manual_seed(seed)
        shown = torch.tensor([place[text] for text in coming.candidates])
        shown = shown[torch.randperm(len(shown), generator=generator)]
        pairs = torch.tensor([[place[a], place[b]] for a, b in coming.pairs])
        return cls(net, tokenise(strings, lm), shown, pairs, EVENTS, CATALOGUE, generator)

    @torch.no_grad()
    def measure(self) -> Tensor:
        """The ranks [Q] by the network as it is."""
        vectors = torch.cat([encode(self.net, self.tokens, part).cpu() for part in torch.split(self.texts, BATCH)])
        return ranks(vectors, torch.searchsorted(self.texts, self.pairs))

    def recall(self) -> float | None:
        """Share of the pairs whose second text is among the 10 nearest of all others to the first; None: no pairs."""
        return int((self.measure() < TOP).sum()) / len(self.pairs) if len(self.pairs) else None


def encode(net: nn.Module, tokens: Tokens, texts: Tensor) -> Tensor:
    """Mean-pooled vectors of length 1 of texts [n] -> [n, width]."""
    places, present = tokens.places(texts)
    mask = present.to(next(net.parameters()).device)
    return F.normalize(pool(run(net, tokens, places, mask), mask, "mean"), dim=1)


def ranks(vectors: Tensor, pairs: Tensor) -> Tensor:
    """Of pairs [Q, 2] how many others are nearer to the first vector than the second one is, [Q]; those as near count
    half, so that equal vectors gain nothing. vectors [n, d] of length 1."""
    found = []
    for part in torch.split(pairs, BATCH):
        rows, (first, second) = torch.arange(len(part)), part.T
        score = vectors[first] @ vectors.T
        score[rows, first] = -torch.inf
        own = score[rows, second, None]
        found.append((score > own).sum(dim=1) + ((score == own).sum(dim=1) - 1) / 2)
    return torch.cat(found)


def compare(before: np.ndarray, after: np.ndarray, users: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Recall@10, recall@100 and mean reciprocal rank by ranks [n] from 0 before and after, and the 95 % bootstrap
    interval of the difference over users [n]; None for a single user."""
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
