"""PEPNet: who, what and where scale the embeddings and every task's layers (Chang et al., KDD 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, cast

import torch
from optuna.distributions import FloatDistribution, IntDistribution
from torch import Tensor, nn

from bench.api import Batch, Inputs, Schema, Side, Task
from bench.nn import Architecture, MakeInputs, mlp


class Codes(nn.Module):
    """An embedding for each field of one side and kind; code 0 (unseen or missing) starts at zero."""

    def __init__(self, schema: Schema, side: Side, kind: Literal["id", "categorical"], width: int) -> None:
        super().__init__()
        columns = [(i, f) for i, f in enumerate(schema.side(side)) if f.kind == kind]
        self.columns = [i for i, _ in columns]
        self.tables = nn.ModuleList(nn.Embedding(schema.cardinality[f.name], width) for _, f in columns)
        self.width = width * len(columns)
        with torch.no_grad():
            for table in self.tables:
                weight = cast(nn.Embedding, table).weight
                nn.init.normal_(weight, std=0.05)
                weight[0] = 0.0

    def forward(self, codes: Tensor) -> Tensor:
        """codes [N, fields of the side] -> [N, width]."""
        parts = [table(codes[:, i].int()) for i, table in zip(self.columns, self.tables, strict=True)]
        return torch.cat(parts, dim=1) if parts else torch.zeros(codes.shape[0], 0, device=codes.device)


class PriorInputs(Inputs):
    """The usual vectors and, after them, the priors: on the user side context and user id, on the other the item id.

    ``sizes``: widths of user, context, user id, candidate, item id, in the order in which they are read.
    """

    def __init__(self, schema: Schema, *, features: MakeInputs, width: int) -> None:
        super().__init__()
        self.features = features(schema)
        self.context = Codes(schema, "user", "categorical", width)
        self.user = Codes(schema, "user", "id", width)
        self.item = Codes(schema, "item", "id", width)
        self.user_width = self.features.user_width + self.context.width + self.user.width
        self.candidate_width = self.features.candidate_width + self.item.width
        self.sizes = [
            self.features.user_width,
            self.context.width,
            self.user.width,
            self.features.candidate_width,
            self.item.width,
        ]

    def sides(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the user side [G, user_width] and the candidate [B, candidate_width], the priors last in each."""
        user, candidate = self.features.sides(batch)
        who = [user, self.context(batch.user_cat), self.user(batch.user_cat)]
        return torch.cat(who, dim=1), torch.cat([candidate, self.item(batch.items.cat[batch.item])], dim=1)


class GateNU(nn.Module):
    """2 sigmoid(W2 relu(W1 z + b1) + b2): a factor between 0 and 2 for each output."""

    def __init__(self, width_in: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width_in, hidden), nn.ReLU(), nn.Linear(hidden, outputs), nn.Sigmoid())

    def forward(self, z: Tensor) -> Tensor:
        """z [N, width_in] -> [N, outputs]."""
        factor: Tensor = 2 * self.layers(z)
        return factor


class Pepnet(Architecture):
    """EPNet: E' = E * GateNU([e_context, sg(E)]); PPNet: h_t^l = relu(W h_t^(l-1) + b) * g_t^l, with h_t^0 = E' and
    [g_t^1, g_t^2, ...] = GateNU_t([sg(E'), e_user, e_item]).

    sg stops the gradient. A schema names no domain, so the context is all user-side categorical fields that are no id.
    The priors have embeddings of their own; one that the data set lacks is left out.
    """

    space = {
        "prior": IntDistribution(4, 32, step=4),
        "gate": IntDistribution(16, 128, step=16),
        "width": IntDistribution(16, 128, step=16),
        "depth": IntDistribution(1, 3),
        "tower": IntDistribution(16, 64, step=16),
        "dropout": FloatDistribution(0.0, 0.5),
    }

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        *,
        prior: int = 16,
        gate: int = 64,
        width: int = 64,
        depth: int = 2,
        tower: int = 32,
        dropout: float = 0.1,
    ) -> None:
        with_priors = partial(PriorInputs, features=inputs, width=prior)
        super().__init__(schema, with_priors, width=width, tower=tower, dropout=dropout)
        self.sizes = cast(PriorInputs, self.inputs).sizes
        user, context, user_id, candidate, item_id = self.sizes
        read = user + candidate
        self.epnet = GateNU(context + read, gate, read)
        self.ppnet = nn.ModuleDict({t.name: GateNU(read + user_id + item_id, gate, depth * width) for t in self.tasks})
        self.layers = nn.ModuleDict(
            {
                t.name: nn.ModuleList(mlp(read if i == 0 else width, width, 1, dropout) for i in range(depth))
                for t in self.tasks
            }
        )

    def represent(self, x: Tensor, tasks: Sequence[Task]) -> dict[str, Tensor]:
        """Gated embeddings, then each task's gated layers."""
        user, context, user_id, candidate, item_id = torch.split(x, self.sizes, dim=1)
        embedded = torch.cat([user, candidate], dim=1)
        embedded = embedded * self.epnet(torch.cat([context, embedded.detach()], dim=1))
        ids = torch.cat([user_id, item_id], dim=1)
        self.shared += [embedded, ids] if ids.shape[1] else [embedded]
        prior = torch.cat([embedded.detach(), ids], dim=1)
        return {t.name: self.layered(t, embedded, prior) for t in tasks}

    def layered(self, task: Task, state: Tensor, prior: Tensor) -> Tensor:
        """One task's layers, each scaled by its slice of the task's gate. state [N, read] -> [N, width]."""
        layers = cast(nn.ModuleList, self.layers[task.name])
        for layer, factor in zip(layers, self.ppnet[task.name](prior).chunk(len(layers), dim=1), strict=True):
            state = layer(state) * factor
        return state
