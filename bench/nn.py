"""Blocks that methods share: input layer, multi-layer perceptron, history attention, and the usual skeleton."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.api import Batch, Inputs, Method, Schema, Side, Task

MakeInputs = Callable[[Schema], Inputs]
MakeTrunk = Callable[[Schema, MakeInputs], Method]


class Dropout(nn.Module):
    """Dropout (Srivastava et al., JMLR 2014) from one random byte an element instead of one random number.

    On a CPU, torch's own takes longer than the matrix product before it; this takes a third. The rate is rounded to a
    multiple of 1/256, and what is kept is scaled by that rounded rate, so that the expectation is exact.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"dropout probability must be at least 0 and below 1, got {rate}")
        self.dropped = round(rate * 256)  # of 256 byte values

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape; unchanged at evaluation."""
        if not self.training or self.dropped == 0:
            return x
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= self.dropped
        return x * (kept * (256 / (256 - self.dropped)))


def mlp(width_in: int, width: int, depth: int, dropout: float) -> nn.Sequential:
    """``depth`` layers of linear, ReLU, dropout; all of one width."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width_in, width), nn.ReLU(), Dropout(dropout)]
        width_in = width
    return nn.Sequential(*layers)


class HistoryAttention(nn.Module):
    """Additive attention over a history (Wu et al., NRMS, EMNLP 2019, eq. 5-6): a = softmax(q . tanh(W h + b))."""

    def __init__(self, width: int, hidden: int = 32) -> None:
        super().__init__()
        self.project = nn.Linear(width, hidden)
        self.query = nn.Linear(hidden, 1, bias=False)

    def forward(self, states: Tensor, present: Tensor) -> Tensor:
        """states [G, L, width], present [G, L] bool -> [G, width]; zeros for an empty history."""
        score = self.query(torch.tanh(self.project(states))).squeeze(-1)
        weight = torch.softmax(score.masked_fill(~present, -1e9), dim=1) * present
        return torch.bmm(weight.unsqueeze(1), states).squeeze(1)


class FeatureInputs(Inputs):
    """One embedding table for all categorical fields; the history pooled by attention; its product with the item.

    Code 0 (unseen or missing) starts at zero. While training, a share ``id_dropout`` of user and item ids becomes 0
    (Volkovs et al., DropoutNet, NeurIPS 2017), so that the model learns what to do without them.
    """

    def __init__(self, schema: Schema, *, embedding: int, id_dropout: float) -> None:
        super().__init__()
        self.id_dropout = id_dropout
        offset, total = {}, 0
        for f in schema.fields:
            if f.kind != "numerical":
                offset[f.name] = total
                total += schema.cardinality[f.name]
        self.table = nn.Embedding(total, embedding)
        nn.init.normal_(self.table.weight, std=0.05)
        with torch.no_grad():
            self.table.weight[list(offset.values())] = 0.0
        width: dict[Side, int] = {}
        sides: tuple[Side, ...] = ("user", "item", "pair")
        for side in sides:
            coded = schema.side(side)
            self.register_buffer(
                f"{side}_offset", torch.tensor([offset[f.name] for f in coded], dtype=torch.int32), False
            )
            self.register_buffer(
                f"{side}_is_id", torch.tensor([f.kind == "id" for f in coded], dtype=torch.bool), False
            )
            width[side] = len(coded) * embedding + len(schema.side(side, "numerical"))
        self.attention = HistoryAttention(width["item"]) if schema.history else None
        pooled = width["item"] if schema.history else 0
        self.user_width = width["user"] + pooled
        self.candidate_width = width["item"] + pooled + width["pair"]

    def sides(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See ``Inputs.sides``."""
        item = self.embed("item", batch.items.cat[batch.item], batch.items.num[batch.item])
        pair = self.embed("pair", batch.pair_cat, batch.pair_num)
        user = self.embed("user", batch.user_cat, batch.user_num)
        if self.attention is None:
            return user, torch.cat([item, pair], dim=1)
        states = self.embed("item", batch.items.cat[batch.history], batch.items.num[batch.history])
        pooled = self.attention(states, batch.history > 0)
        product = item * pooled.index_select(0, batch.group)
        return torch.cat([user, pooled], dim=1), torch.cat([item, product, pair], dim=1)

    def embed(self, side: Side, codes: Tensor, numbers: Tensor) -> Tensor:
        """codes [..., fields], numbers [..., fields] -> [..., fields * embedding + fields]."""
        if self.training and self.id_dropout > 0:
            drop = torch.rand(codes.shape[:-1], device=codes.device).unsqueeze(-1) < self.id_dropout
            codes = codes.masked_fill(drop & self.get_buffer(f"{side}_is_id"), 0)
        vectors: Tensor = self.table(codes + self.get_buffer(f"{side}_offset"))
        return torch.cat([vectors.flatten(-2), numbers], dim=-1)


def base_rate(task: Task, label: Tensor) -> Tensor | None:
    """The constant output [task.outputs] that fits the defined labels best: log-odds, mean or log shares.

    None for softmax within a group, where a constant says nothing, and where no label is defined.
    """
    value = label[~label.isnan()]
    if task.kind == "softmax" or not len(value):
        return None
    if task.kind == "multiclass":
        count = torch.bincount(value.long(), minlength=task.outputs) + 1.0
        return (count / count.sum()).log()
    mean = value.double().mean().float().reshape(1)
    return mean.clamp(1e-6, 1 - 1e-6).logit() if task.kind == "binary" else mean


class Architecture(Method):
    """Input layer -> representation for each task -> one tower and output a task. A subclass writes ``represent``.

    tower: width of each task's hidden layer. A user-scope task is computed once a group, from the user side alone.
    """

    def __init__(self, schema: Schema, inputs: MakeInputs, *, width: int, tower: int, dropout: float) -> None:
        super().__init__(schema)
        self.inputs = inputs(schema)
        self.towers = nn.ModuleDict(
            {t.name: nn.Sequential(mlp(width, tower, 1, dropout), nn.Linear(tower, t.outputs)) for t in self.tasks}
        )

    def represent(self, x: Tensor, tasks: Sequence[Task]) -> dict[str, Tensor]:
        """x [N, inputs.width] -> a representation [N, width] for each of ``tasks``; extends ``self.shared``."""
        raise NotImplementedError

    @torch.no_grad()
    def on_start(self, train: Any) -> None:
        """Output biases start at the training part's base rates and means: no task spends epochs on finding them."""
        for task in self.tasks:
            prior = base_rate(task, train.labels[task.name])
            if prior is not None:
                cast(nn.Linear, cast(nn.Sequential, self.towers[task.name])[-1]).bias.copy_(prior)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """See ``Method.forward``."""
        pair, user = self.inputs(batch)
        self.shared = []
        outputs: dict[str, Tensor] = {}
        for scope, x in (("pair", pair), ("user", user)):
            tasks = [t for t in self.tasks if t.scope == scope]
            states = self.represent(x, tasks) if tasks else {}
            outputs |= {name: self.towers[name](state) for name, state in states.items()}
        return {t.name: outputs[t.name] if t.kind == "multiclass" else outputs[t.name].squeeze(1) for t in self.tasks}


class OnTrunk(Method):
    """A method that gives an architecture other inputs. Whatever it does not override is the architecture's doing."""

    def __init__(self, schema: Schema, inputs: MakeInputs, trunk: MakeTrunk) -> None:
        super().__init__(schema)
        self.model = trunk(schema, inputs)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The architecture's outputs."""
        outputs: dict[str, Tensor] = self.model(batch)
        self.shared = self.model.shared
        return outputs

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The architecture's losses."""
        return self.model.losses(outputs, batch)

    def on_start(self, train: Any) -> None:
        """Passed on."""
        self.model.on_start(train)

    def on_epoch(self, epoch: int, valid: Mapping[str, float]) -> None:
        """Passed on."""
        self.model.on_epoch(epoch, valid)

    def parts(self) -> list[tuple[tuple[Task, ...], nn.Module]]:
        """The architecture's parts."""
        return self.model.parts()
