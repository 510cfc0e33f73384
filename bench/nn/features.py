"""Defines the input layer of all methods: embedded fields, numbers, the history, and interactions of these."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Inputs, Schema, Side
from bench.nn.history import HistoryAttention


@dataclass(frozen=True)
class Fields:
    """Describes a concatenation of stretches, each of embedded fields and then numbers.

    counts: how many embedded fields and how many numbers each stretch has. embedding: width of an embedded field.
    """

    counts: tuple[tuple[int, int], ...]
    embedding: int

    @property
    def width(self) -> int:
        """Width of the concatenation."""
        return sum(coded * self.embedding + numbers for coded, numbers in self.counts)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Splits x [N, width] into the embedded fields [N, fields, embedding] and the numbers [N, numbers]."""
        sizes = [size for coded, numbers in self.counts for size in (coded * self.embedding, numbers)]
        pieces = torch.split(x, sizes, dim=1)
        return torch.cat(pieces[::2], dim=1).reshape(len(x), -1, self.embedding), torch.cat(pieces[1::2], dim=1)


class CrossNetwork(nn.Module):
    """Computes x_{l+1} = x_0 * (W_l x_l + b_l) + x_l in two layers (Wang et al., DCN V2, WWW 2021, eq. 1)."""

    def __init__(self, fields: Fields) -> None:
        super().__init__()
        self.width = fields.width
        self.layers = nn.ModuleList(nn.Linear(self.width, self.width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the crossed features [N, width] of x [N, width]."""
        crossed = x
        for layer in self.layers:
            crossed = x * layer(crossed) + crossed
        return crossed


class FactorisationMachine(nn.Module):
    """Appends f = 0.5 [(sum_i v_i)^2 - sum_i v_i^2] over the fields' vectors v_i (Guo et al., DeepFM, IJCAI 2017).

    The vector of a number is the number times a trained vector. f stays a vector, whose sum is DeepFM's second-order
    term, since several tasks read it.
    """

    def __init__(self, fields: Fields) -> None:
        super().__init__()
        self.fields = fields
        self.width = fields.width + fields.embedding
        self.numbers = nn.Parameter(torch.empty(sum(numbers for _, numbers in fields.counts), fields.embedding))
        nn.init.normal_(self.numbers, std=0.05)

    def forward(self, x: Tensor) -> Tensor:
        """Returns [x, f] [N, width + embedding] for x [N, width]."""
        vectors, numbers = self.fields.split(x)
        total = vectors.sum(dim=1) + numbers @ self.numbers
        squares = vectors.square().sum(dim=1) + numbers.square() @ self.numbers.square()
        return torch.cat([x, 0.5 * (total.square() - squares)], dim=1)


INTERACTIONS: dict[str, type[CrossNetwork | FactorisationMachine]] = {"dcn": CrossNetwork, "fm": FactorisationMachine}


class FeatureInputs(Inputs):
    """Embeds all categorical fields from one table, pools the history by attention, and multiplies it with the item.

    features: ``concat`` is the concatenation of all that. ``dcn`` and ``fm`` put a network of ``INTERACTIONS`` on the
    user side alone, and another on user and candidate together in place of the candidate (none where no task has pair
    scope). What a user-scope task sees still knows nothing of the candidate.

    Code 0 (unseen or missing) starts at zero. While training, a share ``id_dropout`` of user and item ids becomes 0
    (Volkovs et al., DropoutNet, NeurIPS 2017), so that the model learns what to do without them. A share of 1
    is a model without ids, at evaluation too.

    embedding_updates: with ``rows`` the table has a sparse gradient, for ``bench.nn.lazy_adam``.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: int,
        id_dropout: float,
        features: str = "concat",
        embedding_updates: str = "dense",
    ) -> None:
        super().__init__()
        self.id_dropout = id_dropout
        self.row_wise = embedding_updates == "rows"
        self.data_parallel = not self.row_wise  # the mean gradient of several processes is dense
        offset, total = {}, 0
        for f in schema.fields:
            if f.kind != "numerical":
                offset[f.name] = total
                total += schema.cardinality[f.name]
        self.table = nn.Embedding(total, embedding)
        nn.init.normal_(self.table.weight, std=0.05)
        with torch.no_grad():
            self.table.weight[list(offset.values())] = 0.0
        counts: dict[Side, tuple[int, int]] = {}
        sides: tuple[Side, ...] = ("user", "item", "pair")
        for side in sides:
            coded = schema.side(side)
            self.register_buffer(
                f"{side}_offset", torch.tensor([offset[f.name] for f in coded], dtype=torch.int32), False
            )
            self.register_buffer(
                f"{side}_is_id", torch.tensor([f.kind == "id" for f in coded], dtype=torch.bool), False
            )
            counts[side] = len(coded), len(schema.side(side, "numerical"))
        item = Fields((counts["item"],), embedding)
        self.attention = HistoryAttention(item.width) if schema.history else None
        pooled = item.counts if schema.history else ()
        user = Fields((counts["user"], *pooled), embedding)
        candidate = Fields((counts["item"], *pooled, counts["pair"]), embedding)
        self.user_width, self.candidate_width = user.width, candidate.width
        self.interactions = nn.ModuleDict()
        if features != "concat":
            of_user = self.interactions["user"] = INTERACTIONS[features](user)
            self.user_width = of_user.width
            if any(t.scope == "pair" for t in schema.tasks):
                of_pair = self.interactions["pair"] = INTERACTIONS[features](
                    Fields(user.counts + candidate.counts, embedding)
                )
                self.candidate_width = of_pair.width

    def sides(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the user side [G, user_width] and the candidate side [B, candidate_width], interactions included."""
        user, candidate = self.concatenated(batch)
        if "pair" in self.interactions:
            candidate = self.interactions["pair"](torch.cat([user.index_select(0, batch.group), candidate], dim=1))
        if "user" in self.interactions:
            user = self.interactions["user"](user)
        return user, candidate

    def concatenated(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the user side [G, width] and the candidate side [B, width] before any interactions."""
        item, pair, user = self.embed(
            ("item", batch.items.cat[batch.item], batch.items.num[batch.item]),
            ("pair", batch.pair_cat, batch.pair_num),
            ("user", batch.user_cat, batch.user_num),
        )
        if self.attention is None:
            return user, torch.cat([item, pair], dim=1)
        # Apart from the candidates, which are rows of the same fields: so the sum of both gradients keeps its order.
        (states,) = self.embed(("item", batch.items.cat[batch.history], batch.items.num[batch.history]))
        pooled = self.attention(states, batch.history > 0)
        product = item * pooled.index_select(0, batch.group)
        return torch.cat([user, pooled], dim=1), torch.cat([item, product, pair], dim=1)

    def embed(self, *parts: tuple[Side, Tensor, Tensor]) -> list[Tensor]:
        """Embeds the parts: each a side, its codes [..., fields] and its numbers [..., numbers].

        Returns [..., fields * embedding + numbers] for each.

        All parts come from the table in one go, for each go has a gradient as large as the whole table.
        """
        places = [self.places(side, codes) for side, codes, _ in parts]
        # By index_select the gradient is to the bit that of an embedding layer, in a fraction of the time if places
        # have 64 bits; with 32 bits, rows are added one by one.
        named = torch.cat([p.flatten() for p in places]).long()
        weight = self.table.weight
        vectors = F.embedding(named, weight, sparse=True) if self.row_wise else weight.index_select(0, named)
        pieces, found = torch.split(vectors, [p.numel() for p in places]), []
        for p, rows, (_, _, numbers) in zip(places, pieces, parts, strict=True):
            # Not a part of the graph without a coded field: a gradient of nothing is not the same as none.
            coded = p.shape[-1] > 0
            found.append(torch.cat([rows.view(*p.shape[:-1], -1), numbers], dim=-1) if coded else numbers)
        return found

    def places(self, side: Side, codes: Tensor) -> Tensor:
        """Returns the table rows of codes [..., fields]; while training, a share of ids takes the row of code 0."""
        if self.training and self.id_dropout > 0:
            drop = torch.rand(codes.shape[:-1], device=codes.device).unsqueeze(-1) < self.id_dropout
            codes = codes.masked_fill(drop & self.get_buffer(f"{side}_is_id"), 0)
        elif self.id_dropout >= 1:
            codes = codes.masked_fill(self.get_buffer(f"{side}_is_id"), 0)
        return codes + self.get_buffer(f"{side}_offset")
