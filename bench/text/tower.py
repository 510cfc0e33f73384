"""Puts a language model into a recommender, frozen or trained with it: item rows in, text vectors out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.machine.processes import spread, union
from bench.nn import HistoryAttention
from bench.nn.augment import swap, token_dropout
from bench.text.encode import BATCH, states, vectors
from bench.text.network import Inside, depth_of, last_states, network, pool
from bench.text.tokens import tokenise

FIXED = ("mean", "cls", "last")  # poolings without weights
POOLINGS = (*FIXED, "attention")
Adapt = Callable[[nn.Module], nn.Module]


class Frozen(nn.Module):
    """Gives the vectors of a language model that is not trained. pooling: ``mean``, ``cls`` or ``last`` token."""

    def __init__(self, texts: Sequence[str], lm: str, pooling: str = "mean") -> None:
        if pooling not in FIXED:
            raise ValueError(f"pooling '{pooling}': the vectors are fixed, so choose {', '.join(FIXED)}")
        super().__init__()
        self.register_buffer("encoded", torch.from_numpy(vectors(texts, lm, pooling=pooling)), persistent=False)
        self.width = self.get_buffer("encoded").shape[1]
        self.texts_encoded = len(set(texts) - {""})

    def forward(self, items: Tensor) -> Tensor:
        """Returns vectors [n, width] of items [n], rows of the item table; zeros for an empty text."""
        return self.get_buffer("encoded")[items]


class Tower(nn.Module):
    """Gives text vectors of length 1: pooled last hidden states of a language model, parts of which are trained.

    adapt: takes the network with all parameters frozen and returns it, or one around it, with some that are not.
    top: how many layers, from the highest down, the network has; it starts from cached states of the layer below, or
        from within the lowest where ``adapt`` put ``Inside`` in its place. 0: all of them and the embeddings, from
        token ids.
    most: how many of a training batch's different texts pass through the model, drawn anew for each batch; the others
        keep the vector of the last time that they did (Xiao et al., Training Large-Scale News Recommenders with
        Pretrained Language Models in the Loop, KDD 2022). 0: all of them, always.
    pooling: ``mean``, ``cls`` or ``last`` token, or ``attention`` (additive, trained).

    At evaluation all vectors are those of the present weights; each text passes through the model once until training
    goes on. They are a part of the state, so that a loaded model answers bit for bit as the saved one.
    ``texts_encoded`` counts the texts that passed through the model.
    """

    def __init__(
        self, texts: Sequence[str], lm: str, adapt: Adapt, *, top: int = 0, most: int = 0, pooling: str = "mean"
    ) -> None:
        super().__init__()
        layers = depth_of(lm)
        if not 0 <= top <= layers:
            raise ValueError(f"layers {top}: {lm} has {layers}; 0 takes all of them and the embeddings")
        if pooling not in POOLINGS:
            raise ValueError(f"pooling '{pooling}': choose {', '.join(POOLINGS)}")
        if most < 0:
            raise ValueError(f"texts {most}: give a number of texts for each batch, or 0 for all of them")
        unique = sorted(set(texts) - {""})
        place = {text: i for i, text in enumerate(unique)}
        self.most, self.pooling, self.adapt = most, pooling, adapt
        self.unique, self.lm, self.depth = unique, lm, layers - top if top else 0
        self.hidden, self.swapped = 0.0, 0.0
        net = network(lm, self.depth).requires_grad_(False)
        self.width: int = cast(Any, net).config.hidden_size
        self.attention = HistoryAttention(self.width) if pooling == "attention" else None
        self.network = adapt(net)
        self.read(unique)
        self.register_buffer("text", torch.tensor([place.get(t, len(unique)) for t in texts]), persistent=False)
        self.register_buffer("store", torch.from_numpy(vectors([*unique, ""], lm)))
        self.register_buffer("fresh", torch.zeros(len(unique) + 1, dtype=torch.bool))
        self.texts_encoded = 0

    def read(self, texts: Sequence[str]) -> None:
        """Tokenises the texts, and gets the states that the network starts from."""
        self.tokens = tokenise(texts, self.lm)
        inside = any(isinstance(module, Inside) for module in self.network.modules())
        self.states = states(texts, self.lm, self.depth, inside=inside) if self.depth else None

    def restart(self, lm: str) -> None:
        """Starts over from another language model of the same shape, with new adapters."""
        self.lm = lm
        store = self.get_buffer("store")
        self.network = self.adapt(network(lm, self.depth).requires_grad_(False)).to(store.device)
        self.read([*self.unique, *(swap(self.unique) if self.swapped else ())])
        store.copy_(torch.from_numpy(vectors([*self.unique, ""], lm)))
        self.get_buffer("fresh").zero_()

    def augment(self, name: str, rate: float) -> None:
        """Makes training hide a share of each text's tokens, or swap title and body of a share of texts."""
        if name == "token_dropout":
            self.hidden = rate
        else:
            self.swapped = rate
            self.read([*self.unique, *swap(self.unique)])

    def forward(self, items: Tensor) -> Tensor:
        """Returns vectors [n, width] of items [n], rows of the item table; zeros for an empty text."""
        (store, fresh), text = self.kept(), self.get_buffer("text")[items]
        distinct = torch.unique(text)
        distinct = distinct[distinct < len(self.unique)]
        if not (self.training and any(p.requires_grad for p in self.parameters())):
            stale = union(distinct[~fresh[distinct]], len(fresh))
            if len(stale):
                with torch.no_grad():
                    store[stale] = self.encode(stale, together=True)
                fresh[stale] = True
            return store[text]
        self.get_buffer("fresh").zero_()  # an update of the weights follows
        if self.most and len(distinct) > self.most:
            distinct = distinct[torch.randperm(len(distinct))[: self.most].to(distinct.device)]
        if not len(distinct):
            return store[text]
        encoded = self.encode(distinct)
        store[distinct] = encoded.detach()
        place = torch.full((len(store),), -1, device=items.device)
        place[distinct] = torch.arange(len(distinct), device=items.device)
        place = place[text]
        return torch.where((place >= 0)[:, None], encoded[place.clamp(min=0)], store[text])

    def kept(self) -> tuple[Tensor, Tensor]:
        """Returns the texts' vectors [texts + 1, width], and which are those of the present weights [texts + 1]."""
        return self.get_buffer("store"), self.get_buffer("fresh")

    def encode(self, texts: Tensor, *, together: bool = False) -> Tensor:
        """Passes different texts [n] through the model, those of like length together; returns [n, width].

        together: all processes ask for the same texts, and share the work.
        """
        if self.training and self.swapped:
            other = torch.rand(len(texts), device=texts.device) < self.swapped
            texts = texts + other * len(self.unique)
        order = torch.argsort(self.tokens.lengths[texts.cpu()], stable=True)
        parts, pooled = torch.split(texts.cpu()[order], BATCH), partial(self._pooled, device=texts.device)
        if together:
            encoded = spread(parts, pooled, self.width, texts.device)
        else:
            encoded = torch.cat([pooled(part) for part in parts])
        return encoded[torch.argsort(order).to(texts.device)]

    def _pooled(self, texts: Tensor, device: torch.device) -> Tensor:
        self.texts_encoded += len(texts)
        places, present = self.tokens.places(texts)
        mask = present.to(device)
        if self.training and self.hidden:
            mask = token_dropout(mask, self.hidden)
        if self.states is None:
            hidden = last_states(self.network, self.tokens, places, mask)
        else:
            below = torch.from_numpy(self.states[places.numpy()]).to(device)
            hidden = self.network(inputs_embeds=below, attention_mask=mask.long()).last_hidden_state
        hidden = hidden[:, -mask.shape[1] :]  # what prompt tuning puts in front is no part of the text
        pooled = self.attention(hidden, mask) if self.attention else pool(hidden, mask, self.pooling)
        return nn.functional.normalize(pooled.float(), dim=1)
