"""Blocks that methods share: input layer, multi-layer perceptron, history attention, and the usual skeleton."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
        # One type from the start: on a CPU, operations that mix types take up to twenty times as long.
        return x.to(torch.promote_types(x.dtype, torch.float32)) * self.kept(x, torch.float32).mul_(self.scale)

    @property
    def scale(self) -> float:
        """Factor of what is kept."""
        return 256 / (256 - self.dropped)

    def kept(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """1 for each element of x that is kept and 0 for the others, drawn anew."""
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device).random_(-(2**63), None)
        return words.view(torch.uint8)[: x.numel()].view(x.shape).to(dtype).ge_(self.dropped)


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy, ICML 2015): y = (x - m) / sqrt(v + 1e-5) * weight + bias.

    While training, m and v are the batch's moments; at evaluation, their running means. Rows of candidates and rows of
    groups come from different distributions, so ``scope`` says which of two sets of running moments is at work. A mean
    is exact over the first ten batches and exponential after them; a batch of one row is treated as at evaluation.
    """

    data_parallel = False  # moments are of whole batches
    scope: Literal["pair", "user"] = "pair"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        for scope in ("pair", "user"):
            self.register_buffer(f"{scope}_mean", torch.zeros(width))
            self.register_buffer(f"{scope}_var", torch.ones(width))
            self.register_buffer(f"{scope}_batches", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """x [N, width], of the rows that ``scope`` names."""
        mean, var = self.moments()
        x = x.float()  # under autocast too: moments need the precision
        if self.training and len(x) > 1:
            var_now, mean_now = torch.var_mean(x, dim=0, correction=0)
            self.track(mean_now, var_now, len(x))
            mean, var = mean_now, var_now
        return (x - mean) * torch.rsqrt(var + 1e-5) * self.weight + self.bias

    def moments(self) -> tuple[Tensor, Tensor]:
        """The running mean and variance of the rows at hand."""
        return self.get_buffer(f"{self.scope}_mean"), self.get_buffer(f"{self.scope}_var")

    @torch.no_grad()
    def track(self, mean: Tensor, var: Tensor, rows: int) -> None:
        """Takes a batch's moments into the running ones."""
        (running, spread), batches = self.moments(), self.get_buffer(f"{self.scope}_batches")
        batches += 1
        share = (1 / batches).clamp(min=0.1)
        running.lerp_(mean, share)
        spread.lerp_(var * (rows / (rows - 1)), share)


class FusedNorm(BatchNorm):
    """``BatchNorm``, ReLU and ``Dropout`` in one step, with torch's own kernel: the same equations in other floats.

    It takes a fraction of the time, and keeps no mask: what is positive in its output has been kept. Under autocast it
    works on bfloat16, with moments in float32.
    """

    def __init__(self, width: int, dropout: Dropout) -> None:
        super().__init__(width)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """x [N, width], of the rows that ``scope`` names."""
        if self.training and len(x) > 1:
            y, mean, inverse = cast(
                tuple[Tensor, Tensor, Tensor],
                _NormReluDropout.apply(x, self.weight, self.bias, self.dropout),  # type: ignore[no-untyped-call]
            )
            self.track(mean, inverse.square().reciprocal() - 1e-5, len(x))
            return y
        mean, var = self.moments()
        dropped: Tensor = self.dropout(F.relu(F.batch_norm(x, mean, var, self.weight, self.bias, eps=1e-5)))
        return dropped


class _NormReluDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dropout: Dropout) -> tuple[Tensor, Tensor, Tensor]:
        ctx.scale = dropout.scale  # positive, so that it may go in front of the ReLU and into the affine part
        weight = weight * ctx.scale
        y, mean, inverse = torch.native_batch_norm(x, weight, bias * ctx.scale, None, None, True, 0.0, 1e-5)
        y.relu_()
        if dropout.dropped:
            y.mul_(dropout.kept(y, y.dtype))
        ctx.save_for_backward(x, weight, mean, inverse, y)
        ctx.mark_non_differentiable(mean, inverse)
        return y, mean, inverse

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, inverse, y = ctx.saved_tensors
        # Of one of several experts the gradient is a slice, on which the next line takes six times as long.
        above = torch.ops.aten.threshold_backward(gradient.contiguous(), y, 0)
        of_x, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            above, x, weight, None, None, mean, inverse, True, 1e-5, [True, True, True]
        )
        return of_x, of_weight * ctx.scale, of_bias * ctx.scale, None


class FusedLayer(nn.Module):
    """A linear layer and its ``FusedNorm``. At evaluation without gradients, the norm goes into the weights: a product
    and a ReLU are left."""

    def __init__(self, linear: nn.Linear, dropout: Dropout) -> None:
        super().__init__()
        self.linear, self.norm = linear, FusedNorm(linear.out_features, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, width_in], which may be ``ready`` -> [N, width]."""
        x = self.ready(x)
        weight, bias = _widened(self.linear.weight, x.shape[1]), self.linear.bias
        if torch.is_grad_enabled() or self.training:
            normal: Tensor = self.norm(F.linear(x, weight, bias))
            return normal
        mean, var = self.norm.moments()
        factor = self.norm.weight * torch.rsqrt(var + 1e-5)
        return F.linear(x, weight * factor.unsqueeze(1), (bias - mean) * factor + self.norm.bias).relu_()

    @staticmethod
    def ready(x: Tensor) -> Tensor:
        """x [N, width_in] with zeros up to a multiple of 16 columns, which products like, in autocast's type."""
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        return _widened(x, x.shape[1] + -x.shape[1] % 16)


def _widened(x: Tensor, width: int) -> Tensor:
    pad = width - x.shape[1]
    return F.pad(x, (0, pad)) if pad else x  # a pad of nothing is a copy


NORMS: dict[str, Callable[[int], nn.Module]] = {"batch": BatchNorm, "layer": nn.LayerNorm}


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


@dataclass(frozen=True)
class Fields:
    """How a concatenation is made up: the number of embedded fields, and of numbers after them, of each stretch."""

    counts: tuple[tuple[int, int], ...]
    embedding: int

    @property
    def width(self) -> int:
        """Of the concatenation."""
        return sum(coded * self.embedding + numbers for coded, numbers in self.counts)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [N, width] -> the embedded fields [N, fields, embedding] and the numbers [N, numbers]."""
        sizes = [size for coded, numbers in self.counts for size in (coded * self.embedding, numbers)]
        pieces = torch.split(x, sizes, dim=1)
        return torch.cat(pieces[::2], dim=1).reshape(len(x), -1, self.embedding), torch.cat(pieces[1::2], dim=1)


class CrossNetwork(nn.Module):
    """x_{l+1} = x_0 * (W_l x_l + b_l) + x_l, two layers (Wang et al., DCN V2, WWW 2021, eq. 1)."""

    def __init__(self, fields: Fields) -> None:
        super().__init__()
        self.width = fields.width
        self.layers = nn.ModuleList(nn.Linear(self.width, self.width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """x [N, width] -> [N, width]."""
        crossed = x
        for layer in self.layers:
            crossed = x * layer(crossed) + crossed
        return crossed


class FactorisationMachine(nn.Module):
    """[x, f] with f = 0.5 [(sum_i v_i)^2 - sum_i v_i^2] over the fields' vectors v_i (Guo et al., DeepFM, IJCAI 2017).

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
        """x [N, width] -> [N, width + embedding]."""
        vectors, numbers = self.fields.split(x)
        total = vectors.sum(dim=1) + numbers @ self.numbers
        squares = vectors.square().sum(dim=1) + numbers.square() @ self.numbers.square()
        return torch.cat([x, 0.5 * (total.square() - squares)], dim=1)


INTERACTIONS: dict[str, type[CrossNetwork | FactorisationMachine]] = {"dcn": CrossNetwork, "fm": FactorisationMachine}


class FeatureInputs(Inputs):
    """One embedding table for all categorical fields; the history pooled by attention; its product with the item.

    features: ``concat`` is the concatenation of all that. ``dcn`` and ``fm`` put a network of ``INTERACTIONS`` on the
    user side alone, and another on user and candidate together in place of the candidate (none where no task has pair
    scope). What a user-scope task sees still knows nothing of the candidate.

    Code 0 (unseen or missing) starts at zero. While training, a share ``id_dropout`` of user and item ids becomes 0
    (Volkovs et al., DropoutNet, NeurIPS 2017), so that the model learns what to do without them. A share of 1
    is a model without ids, at evaluation too.

    embedding_updates: with ``rows`` the table has a sparse gradient, for ``bench.row_updates``.
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
        """See ``Inputs.sides``."""
        user, candidate = self.concatenated(batch)
        if "pair" in self.interactions:
            candidate = self.interactions["pair"](torch.cat([user.index_select(0, batch.group), candidate], dim=1))
        if "user" in self.interactions:
            user = self.interactions["user"](user)
        return user, candidate

    def concatenated(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The two sides before any interactions."""
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
        """Of each part, a side with codes [..., fields] and numbers [..., fields]: [..., fields * embedding + fields].

        All parts come from the table in one go, for each go has a gradient as large as the whole table.
        """
        places = [self.places(side, codes) for side, codes, _ in parts]
        named = torch.cat([p.flatten() for p in places])
        # Rows by index_select: its gradient is to the bit that of an embedding layer, in a seventh of the time.
        weight = self.table.weight
        vectors = F.embedding(named, weight, sparse=True) if self.row_wise else weight.index_select(0, named)
        pieces, found = torch.split(vectors, [p.numel() for p in places]), []
        for p, rows, (_, _, numbers) in zip(places, pieces, parts, strict=True):
            # Not a part of the graph without a coded field: a gradient of nothing is not the same as none.
            coded = p.shape[-1] > 0
            found.append(torch.cat([rows.view(*p.shape[:-1], -1), numbers], dim=-1) if coded else numbers)
        return found

    def places(self, side: Side, codes: Tensor) -> Tensor:
        """Rows of the table [..., fields]; while training, some of those of ids are for the code 0."""
        if self.training and self.id_dropout > 0:
            drop = torch.rand(codes.shape[:-1], device=codes.device).unsqueeze(-1) < self.id_dropout
            codes = codes.masked_fill(drop & self.get_buffer(f"{side}_is_id"), 0)
        elif self.id_dropout >= 1:
            codes = codes.masked_fill(self.get_buffer(f"{side}_is_id"), 0)
        return codes + self.get_buffer(f"{side}_offset")


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
