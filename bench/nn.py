"""Blocks that methods share: multi-layer perceptron, experts and gates, history attention, and the usual skeleton."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import gcd
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from bench.api import Batch, Inputs, Method, Schema, Task
from bench.norms import NORMS, BatchNorm, Dropout, FusedLayer

MakeInputs = Callable[[Schema], Inputs]
MakeTrunk = Callable[[Schema, MakeInputs], Method]


class Mlp(nn.Sequential):
    """What ``mlp`` makes."""

    def normalise(self, kind: str) -> None:
        """Puts a norm of ``NORMS`` behind each linear layer; ``batch_fused`` is ``batch``, by ``FusedLayer``."""
        for i in reversed(range(len(self))):
            layer = self[i]
            if not isinstance(layer, nn.Linear):
                continue
            if kind == "batch_fused":
                self[i] = FusedLayer(layer, cast(Dropout, self[i + 2]))
                del self[i + 1 : i + 3]
            else:
                self.insert(i + 1, NORMS[kind](layer.out_features))


def mlp(width_in: int, width: int, depth: int, dropout: float) -> Mlp:
    """``depth`` layers of linear, ReLU, dropout; all of one width. Setting ``norm`` adds a norm to each."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width_in, width), nn.ReLU(), Dropout(dropout)]
        width_in = width
    return Mlp(*layers)


class Gate(nn.Linear):
    """softmax(W x + b) over K experts. At evaluation it adds up how much weight each expert gets, for the record."""

    def __init__(self, width_in: int, experts: int) -> None:
        super().__init__(width_in, experts)
        self.register_buffer("usage", torch.zeros(experts), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, width_in] -> weights [N, experts] that sum to 1."""
        weights = torch.softmax(super().forward(x), dim=1)
        if not self.training:
            self.get_buffer("usage").add_(weights.detach().sum(dim=0))
        return weights

    def utilisation(self) -> dict[str, Any]:
        """Each expert's share of the weight since ``usage`` was last zero, and the share of experts that are dead: with
        less than a tenth of an equal share. Empty if nothing has passed the gate."""
        usage = self.get_buffer("usage").double()
        if not usage.sum() > 0:
            return {}
        share = usage / usage.sum()
        return {"usage": share.tolist(), "dead": (share < 0.1 / len(share)).double().mean().item()}


class Experts(nn.ModuleList):
    """Networks that read the same input and give vectors of one width."""

    def forward(self, x: Tensor) -> Tensor:
        """x [N, width_in] -> [N, experts, width]."""
        if any(isinstance(module, FusedLayer) for module in self.modules()):
            x = FusedLayer.ready(x)  # once for all
        return torch.stack([expert(x) for expert in self], dim=1)


def mlps(count: int, width_in: int, width: int, depth: int, dropout: float) -> Experts:
    """``count`` of the networks that ``mlp`` makes."""
    return Experts(mlp(width_in, width, depth, dropout) for _ in range(count))


def mix(weights: Tensor, states: Tensor) -> Tensor:
    """sum_k w_k s_k. weights [N, K], states [N, K, width] -> [N, width]."""
    mixed = torch.bmm(weights.unsqueeze(1), states.detach()).squeeze(1)
    if not states.requires_grad:
        return mixed
    return cast(Tensor, _GradientOfStates.apply(mixed, weights.detach(), states))  # type: ignore[no-untyped-call]


class _GradientOfStates(torch.autograd.Function):
    """The gradient of ``mix`` at the states, w_k g: on a CPU, a product element by element takes a third of the time
    that the same product of matrices takes, with the same bits."""

    @staticmethod
    def forward(ctx: Any, mixed: Tensor, weights: Tensor, states: Tensor) -> Tensor:
        ctx.save_for_backward(weights)
        return mixed.view_as(mixed)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor]:
        (weights,) = ctx.saved_tensors
        return gradient, None, weights.to(gradient.dtype).unsqueeze(2) * gradient.unsqueeze(1)


class HistoryAttention(nn.Module):
    """Additive attention over a history (Wu et al., NRMS, EMNLP 2019, eq. 5-6): a = softmax(q . tanh(W h + b))."""

    def __init__(self, width: int, hidden: int = 32) -> None:
        super().__init__()
        self.project = nn.Linear(width, hidden)
        self.query = nn.Linear(hidden, 1, bias=False)

    def forward(self, states: Tensor, present: Tensor) -> Tensor:
        """states [G, L, width], present [G, L] bool -> [G, width]; zeros for an empty history."""
        score = self.query(torch.tanh(self.project(states))).squeeze(-1)
        return mix(torch.softmax(score.masked_fill(~present, -1e9), dim=1) * present, states)


class HistoryTransformer(nn.Module):
    """Self-attention among a history's items, then additive attention (as in Wu et al., NRMS, EMNLP 2019).

    z = h + p; u = z + A(n(z)); v = u + W_2 relu(W_1 n(u)); ``HistoryAttention`` of v. p are trained vectors of the
    places, the last one that of the latest item, A is attention of four heads (fewer where the width is no multiple of
    4) without the padding, n layer norm (pre-norm), and W_1 doubles the width. Dropout is 0.1.
    """

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.empty(length, width))
        nn.init.normal_(self.positions, std=0.02)
        self.layer = nn.TransformerEncoderLayer(
            width, gcd(width, 4), 2 * width, dropout=0.1, batch_first=True, norm_first=True
        )
        self.attention = HistoryAttention(width)

    def forward(self, states: Tensor, present: Tensor) -> Tensor:
        """states [G, L, width], present [G, L] bool -> [G, width]; zeros for an empty history."""
        # Where all is padding, none is hidden: attention over nothing would be NaN. Nothing of it is pooled.
        hidden = ~present & present.any(dim=1, keepdim=True)
        mixed = self.layer(states + self.positions, src_key_padding_mask=hidden)
        pooled: Tensor = self.attention(mixed, present)
        return pooled


USER_ENCODERS: dict[str, Callable[[int, int], nn.Module]] = {
    "additive": lambda width, length: HistoryAttention(width),
    "transformer": HistoryTransformer,
}


def base_rate(task: Task, label: Tensor) -> Tensor | None:
    """The constant output [task.outputs] that fits the defined labels best: log-odds, mean or log shares.

    None for softmax within a group, where a constant says nothing, and where no label is defined.
    """
    return base_rate_of(task, [label[~label.isnan()]])


def base_rate_of(task: Task, pieces: Iterable[Tensor]) -> Tensor | None:
    """The same from pieces of the column, without what is undefined."""
    if task.kind == "softmax":
        return None
    known, total = 0, torch.zeros(task.outputs, dtype=torch.float64)
    for piece in pieces:
        known += len(piece)
        if task.kind == "multiclass":
            total += torch.bincount(piece.long(), minlength=task.outputs)
        else:
            total += piece.double().sum()
    if not known:
        return None
    if task.kind == "multiclass":
        count = total.float() + 1.0
        return (count / count.sum()).log()
    mean = (total / known).float()
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
            prior = base_rate_of(task, train.defined(task.name))
            if prior is not None:
                cast(nn.Linear, cast(nn.Sequential, self.towers[task.name])[-1]).bias.copy_(prior)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """See ``Method.forward``."""
        pair, user = self.inputs(batch)
        self.shared = []
        outputs: dict[str, Tensor] = {}
        scopes: tuple[tuple[Literal["pair", "user"], Tensor], ...] = (("pair", pair), ("user", user))
        for scope, x in scopes:
            tasks = [t for t in self.tasks if t.scope == scope]
            for module in self.modules():
                if isinstance(module, BatchNorm):
                    module.scope = scope
            states = self.represent(x, tasks) if tasks else {}
            outputs |= {name: self.towers[name](state) for name, state in states.items()}
        return {t.name: outputs[t.name] if t.kind == "multiclass" else outputs[t.name].squeeze(1) for t in self.tasks}


class OnTrunk(Method):
    """A method that gives an architecture other inputs. Whatever it does not override is the architecture's doing."""

    data_parallel = True  # if the architecture is

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

    def step(self, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
        """The architecture's way to update, applied to this method: its forward, losses, parameters and balancer."""
        return type(self.model).step(self, batch, optimizer)

    def on_start(self, train: Any) -> None:
        """Passed on."""
        self.model.on_start(train)

    def on_epoch(self, epoch: int, valid: Mapping[str, float]) -> None:
        """Passed on."""
        self.model.on_epoch(epoch, valid)

    def rates(self, lr: float) -> list[tuple[nn.Module, float]]:
        """The architecture's."""
        return self.model.rates(lr)

    def parts(self) -> list[tuple[tuple[Task, ...], nn.Module]]:
        """The architecture's parts."""
        return self.model.parts()


def normalise(method: Method, kind: str) -> None:
    """Puts a norm of ``NORMS`` behind every linear layer that an ``mlp`` of the method has."""
    for module in method.modules():
        if isinstance(module, Mlp):
            module.normalise(kind)
