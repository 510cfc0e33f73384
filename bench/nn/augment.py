"""Augments training batches (CL4SRec, Xie et al., ICDE 2022; mixup, Zhang et al., ICLR 2018).

The history operations act on the input alone, without a contrastive loss (compared by Zhou et al., WWW 2024).

``rate``, at least 0 and below 1, is the expected share of things that an operation alters; at 0 it alters nothing.

| name       | what it does                                                   | share of            |
|------------|----------------------------------------------------------------|---------------------|
| none       | nothing                                                        |                     |
| crop       | keeps a random contiguous stretch of a history                 | its items, cut away |
| mask       | removes random items of a history                              | its items           |
| reorder    | shuffles a random contiguous stretch of a history              | its items           |
| substitute | puts others that share a category for random items of history  | its items           |
| mixup      | blends what the input layer makes of a group with another      | the batch's groups  |
| token_dropout | hides tokens from a language model that is trained          | a text's tokens     |
| swap       | puts the title behind the body, for such a language model      | the texts it reads  |

Of n items, CL4SRec takes floor(rate n). Here it is k = floor(rate n + u) with u uniform in [0, 1), so that k is rate n
on average and short histories are altered as often as long ones.

Candidates, labels and the order of groups stay as they are, so a run makes the same steps on the same labels with and
without. A history only loses items or gets items of the training part's histories. Random numbers come from torch's
global generator.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Inputs, Schema

if TYPE_CHECKING:
    from bench.data.tensors import Split

HISTORY = ("crop", "mask", "reorder", "substitute")
TEXT = ("token_dropout", "swap")


def augmentation(name: str, rate: float, train: Split) -> Callable[[Batch], Batch]:
    """Returns what to call on every training batch: it alters the history, or returns the batch as it is.

    train: the training part, on the device of the batches. A batch holds codes, which cannot be blended, and no texts,
    so ``mixup`` and the operations on texts leave it as it is; ``install`` puts them into the model. Raises ValueError
    for a rate outside [0, 1).
    """
    _check(rate)
    if name not in HISTORY or rate == 0:
        return lambda batch: batch
    simple: dict[str, Callable[[Tensor, float], Tensor]] = {"crop": crop, "mask": mask, "reorder": reorder}
    alter = simple[name] if name in simple else Substitute(train)
    return lambda batch: replace(batch, history=alter(batch.history, rate))


def install(method: nn.Module, name: str, rate: float) -> None:
    """Makes a model alter its inputs, or the texts that it reads, where ``name`` is an operation on these.

    Raises ValueError for a rate outside [0, 1), and where a text operation has no language model to act on.
    """
    if name == "mixup":
        mix_inputs(method, rate)
    elif name in TEXT:
        _check(rate)
        towers: list[Any] = [m for m in method.modules() if hasattr(m, "augment")]
        if not towers:
            raise ValueError(f"augment '{name}': no language model is trained here")
        for tower in towers:
            tower.augment(name, rate)


def declines(name: str, schema: Schema) -> str:
    """Says why an augmentation can alter nothing in such data; empty if it can."""
    return "no histories" if name in HISTORY and not schema.history else ""


def crop(history: Tensor, rate: float) -> Tensor:
    """Keeps [v_(c+1), ..., v_(c+n-k)] of [v_1, ..., v_n], with c uniform in 0, ..., k. history and result: [G, L]."""
    length = (history > 0).sum(dim=1, keepdim=True)
    return _keep(history, _stretch(history, length - _count(length, rate))[1])


def mask(history: Tensor, rate: float) -> Tensor:
    """Keeps [v_i : i not in M], with M k random places. history and result: [G, L].

    CL4SRec puts a mask token there. A batch has none, so what remains moves up: padding stays in front.
    """
    return _keep(history, (history > 0) & ~_chosen(history > 0, rate))


def reorder(history: Tensor, rate: float) -> Tensor:
    """Shuffles v_(c+1), ..., v_(c+k) of [v_1, ..., v_n], with c uniform in 0, ..., n - k. history and result: [G, L].

    A model whose pooling knows no order, such as ``bench.nn.history.HistoryAttention``, cannot notice.
    """
    start, inside = _stretch(history, _count((history > 0).sum(dim=1, keepdim=True), rate))
    key = torch.where(inside, start + torch.rand(history.shape, device=history.device), _places(history))
    return history.gather(1, key.argsort(dim=1, stable=True))


class Substitute:
    """Replaces v_i, at k random places i, by another item that agrees with it in a random categorical item field.

    Others are drawn from the training part's histories, as often as they are in them, so popular items stay popular.
    A missing value agrees with nothing. v_i stays if nothing else agrees. Without categorical item fields, all agree.
    """

    def __init__(self, train: Split) -> None:
        cat = train.items.cat
        self.rows, device = len(cat), cat.device
        fields = [i for i, f in enumerate(train.schema.side("item")) if f.kind == "categorical"]
        code = cat[:, fields].long() if fields else torch.ones(self.rows, 1, dtype=torch.long, device=device)
        self.key = code * code.shape[1] + torch.arange(code.shape[1], device=device)  # one number for field and code
        self.count = torch.bincount(train.history.flatten(), minlength=self.rows)
        self.count[0] = 0  # padding
        known = (code > 0) & (self.count > 0).unsqueeze(1)
        place = known.nonzero()[:, 0]
        self.entries = (self.key[known] * self.rows + place).sort().values  # items that agree in a field are neighbours
        self.total = F.pad(self.count[self.entries % self.rows].cumsum(0), (1, 0))  # [entries + 1], before each
        self.start = self._before(torch.arange(int(self.key.max()) + 2, device=device) * self.rows)  # of each key

    def _before(self, entry: Tensor) -> Tensor:
        """How often the items of all entries before ``entry`` are in the histories."""
        return self.total[torch.searchsorted(self.entries, entry)]

    def __call__(self, history: Tensor, rate: float) -> Tensor:
        """history: [G, L], as is the result."""
        if not len(self.entries):
            return history
        place = _chosen(history > 0, rate)
        old = history[place].long()
        key, own = self.key[old], self.count[old]
        others = self.start[key + 1] - self.start[key] - own.unsqueeze(1)  # [M, fields], not positive where none agrees
        field = torch.rand(key.shape, device=key.device).masked_fill(others <= 0, -1.0).argmax(dim=1, keepdim=True)
        key, others = key.gather(1, field).squeeze(1), others.gather(1, field).squeeze(1)
        drawn = self.start[key] + torch.empty_like(others).random_(0, 2**62) % others.clamp(min=1)
        drawn += own * (drawn >= self._before(key * self.rows + old))  # steps over v_i itself
        found = torch.searchsorted(self.total[1:], drawn, right=True).clamp(max=len(self.entries) - 1)
        new = torch.where(others > 0, self.entries[found] % self.rows, old)
        return history.masked_scatter(place, new.to(history.dtype))


def mix_inputs(method: nn.Module, rate: float) -> None:
    """Makes ``mixup`` alter what every input layer of a method gives while it trains.

    Where a method has several input layers, each draws its own partners. Raises ValueError for a rate outside [0, 1).
    """
    _check(rate)

    def hook(module: nn.Module, args: tuple[Batch], output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return mixup(*output, args[0].group, rate) if module.training else output

    for module in method.modules():
        if isinstance(module, Inputs):  # one inside another is asked for its sides only, which calls no hook
            module.register_forward_hook(hook)


def mixup(pair: Tensor, user: Tensor, group: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    """Returns (1 - w) x_g + w x_h for the user side of each group g and all its rows, with one w and one other group h.

    w = min(b, 1 - b) with b ~ Beta(1, 1), for a share ``rate`` of groups; 0 elsewhere. A row is blended with a random
    row of h. All tasks see the same x. Labels stay those of g, which has the larger part: half a conversion or watch
    time is no observation, and rows that compete within a group keep their labels and their common user side.

    pair [B, width] and user [G, width], as an input layer gives them; group [B].
    """
    groups, device = len(user), user.device
    if groups == 1:
        return pair, user
    order = torch.randperm(groups, device=device)
    partner = torch.empty_like(order).scatter_(0, order, order.roll(1))  # one cycle: none is its own
    blended = torch.rand(groups, device=device) < rate
    weight = (torch.rand(groups, device=device) / 2 * blended).to(user.dtype).unsqueeze(1)
    sizes = torch.bincount(group, minlength=groups)
    first = sizes.cumsum(0) - sizes
    other = partner[group]
    row = first[other] + (torch.rand(len(group), device=device) * sizes[other]).long()
    return mix_features(pair, weight[group].to(pair.dtype), row), mix_features(user, weight, partner)


def mix_features(x: Tensor, weight: Tensor, partner: Tensor) -> Tensor:
    """Returns (1 - w_i) x_i + w_i x_partner(i) [N, width]. x [N, width], weight [N, 1], partner [N]."""
    return x + weight * (x.index_select(0, partner) - x)


def token_dropout(present: Tensor, rate: float) -> Tensor:
    """Hides a share of the tokens from an encoder, but never the first and the last of a text.

    present: attention mask [n, L], padded on either side; returns one alike. Ids stay: this needs no mask token and
    serves encoders and decoders alike.
    """
    place = present.long().cumsum(dim=1)
    inner = (present > 0) & (place > 1) & (place < place[:, -1:])
    return present.masked_fill(_chosen(inner, rate), 0)


def swap(texts: Sequence[str]) -> list[str]:
    """Puts the first sentence of each text (a title) behind the rest (a body): "A. B. C." gives "B. C. A."

    A sentence ends at ., ! or ? before a space. A text of one sentence stays.
    """
    return [re.sub(r"^\s*(.*?[.!?])\s+(\S.*?)\s*$", r"\2 \1", text, count=1, flags=re.DOTALL) for text in texts]


def _check(rate: float) -> None:
    if not 0 <= rate < 1:
        raise ValueError(f"augmentation rate must be at least 0 and below 1, got {rate}")


def _count(length: Tensor, rate: float) -> Tensor:
    """k = floor(rate n + u), at most n. length: [N, 1], as is the result."""
    return (length * rate + torch.rand(length.shape, device=length.device)).long().minimum(length)


def _chosen(present: Tensor, rate: float) -> Tensor:
    """k random ones of those present in each row. present: bool [N, L], as is the result."""
    score = torch.rand(present.shape, device=present.device).masked_fill(~present, 2.0)
    return score.argsort(dim=1).argsort(dim=1) < _count(present.sum(dim=1, keepdim=True), rate)


def _places(history: Tensor) -> Tensor:
    return torch.arange(history.shape[1], device=history.device)


def _stretch(history: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """A random contiguous stretch of ``length`` [G, 1] items: its first place [G, 1], and all as a mask [G, L]."""
    padding = (history == 0).sum(dim=1, keepdim=True)
    free = history.shape[1] - padding - length
    start = padding + (torch.rand(length.shape, device=history.device) * (free + 1)).long()
    place = _places(history)
    return start, (place >= start) & (place < start + length)


def _keep(history: Tensor, kept: Tensor) -> Tensor:
    """Only the items at ``kept`` [G, L], in their order, with padding in front."""
    return (history * kept).gather(1, kept.byte().argsort(dim=1, stable=True))
