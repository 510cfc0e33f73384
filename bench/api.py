"""The contract between data sets, methods and the engine: what a newcomer must know, and nothing else.

Rows that were shown together form a *group* (an impression, a search, a mailing). A group has one user side:
profile, context and history. A row is one candidate item of its group. Pair-scope tasks have a label for each
row, user-scope tasks one for each group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from bench.collective import batch_mean as batch_mean
from bench.collective import several as several
from bench.errors import BenchError, unknown
from bench.kinds import KINDS, Kind

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl
    from optuna.distributions import BaseDistribution

Scope = Literal["pair", "user"]
Side = Literal["user", "item", "pair"]
FieldKind = Literal["id", "categorical", "numerical"]


def _refuse_unknown(owner: str, what: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise BenchError(f"{owner}: {unknown(what, value, known)}")


@dataclass(frozen=True)
class Task:
    """One label to predict. Raises BenchError for what cannot be.

    kind: decides output, loss and metrics: ``binary`` (logit, cross-entropy), ``regression`` (value, squared
        error), ``multiclass`` (logits over ``classes``, cross-entropy), ``softmax`` (score, cross-entropy of each
        positive row against the negative rows of its group), or another one of ``bench.kinds``.
    scope: ``pair`` (label for each row) or ``user`` (label for each group; the candidates must not matter).
    role: the question it answers: rec, rank, ctr, interest, or the domain's own.
    space: in words, the rows where the label is defined. Elsewhere it is NaN, and masked in loss and metric.
    classes: their names, where the kind has classes; left out until then if ``build`` finds them in the files.
    metric: the primary metric; empty means the first of its kind.
    """

    name: str
    kind: str
    scope: Scope = "pair"
    role: str = ""
    space: str = "all rows"
    classes: tuple[str, ...] = ()
    metric: str = ""

    def __post_init__(self) -> None:
        owner = f"task '{self.name}'"
        _refuse_unknown(owner, "kind", self.kind, KINDS)
        _refuse_unknown(owner, "scope", self.scope, get_args(Scope))
        if self.metric:
            known = (*self.traits.metrics, *self.traits.others)
            _refuse_unknown(owner, f"metric of a {self.kind} task", self.metric, known)
        if self.classes and not self.traits.classes:
            raise BenchError(f"{owner}: a {self.kind} task has no classes; leave them out, or make it multiclass")
        if self.traits.grouped and self.scope != "pair":
            raise BenchError(f"{owner}: a {self.kind} task compares rows; its scope can only be 'pair'")

    @property
    def traits(self) -> Kind:
        """What the kind decides."""
        return KINDS[self.kind]

    @property
    def outputs(self) -> int:
        """Width of the task's output."""
        return len(self.classes) if self.traits.classes else 1

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metric names, the primary one first."""
        rest = self.traits.metrics
        return (self.metric, *(m for m in rest if m != self.metric)) if self.metric else rest


@dataclass(frozen=True)
class Field:
    """An input column. ``id`` is a categorical field that names the user or the item itself.

    Raises BenchError for an unknown side or kind.
    """

    name: str
    side: Side
    kind: FieldKind = "categorical"

    def __post_init__(self) -> None:
        _refuse_unknown(f"field '{self.name}'", "side", self.side, get_args(Side))
        _refuse_unknown(f"field '{self.name}'", "kind", self.kind, get_args(FieldKind))


@dataclass(frozen=True)
class Schema:
    """What a method may know of a data set when it is built: sizes and texts, never its name, rows or labels.

    cardinality: number of codes of each id or categorical field, code 0 (unseen or missing) included.
    history: length of a history (0: none). texts: one for each row of the item table, row 0 (padding) included.
    """

    tasks: tuple[Task, ...]
    fields: tuple[Field, ...]
    cardinality: Mapping[str, int]
    history: int
    texts: Sequence[str]

    def side(self, side: Side, *kinds: str) -> list[Field]:
        """The fields of one side in column order; ``kinds`` empty means the id and categorical ones."""
        wanted = kinds or ("id", "categorical")
        return [f for f in self.fields if f.side == side and f.kind in wanted]


@dataclass
class Items:
    """The item table, N rows; row 0 is padding. An unseen item keeps its row (text, attributes); its id code is 0."""

    cat: Tensor  # [N, item-side id and categorical fields], codes
    num: Tensor  # [N, item-side numerical fields], standardised


@dataclass
class Batch:
    """B rows of G groups. At evaluation ``labels`` is empty."""

    user_cat: Tensor  # [G, fields] codes
    user_num: Tensor  # [G, fields]
    history: Tensor  # [G, L] rows of the item table, oldest first, 0 = padding (in front)
    item: Tensor  # [B] rows of the item table
    pair_cat: Tensor  # [B, fields] codes
    pair_num: Tensor  # [B, fields]
    group: Tensor  # [B] index of the row's group in this batch, non-decreasing
    items: Items
    labels: dict[str, Tensor] = field(default_factory=dict)  # task -> [B] (pair) or [G] (user), NaN = undefined


@dataclass
class Tables:
    """A data set in standard form, as polars frames.

    groups: ``group`` (unique int), ``user``, ``time`` (number), user-side context fields, user-scope labels,
        ``history`` (list of items, oldest first), ``history_time`` (time of its last element, null if empty),
        and, where labels are known only later, ``known`` (the time from which all of them are); ``extra`` (null, or
        the name of a further test part that never trains or selects, such as a random log).
    rows: ``group``, ``item``, pair fields, pair labels (null = undefined).
    items: ``item``, item fields, ``text``. users: ``user``, user fields.
    A simulated data set adds ``truth:<task>`` columns: what a model that knows everything would predict
    (probabilities for binary and multiclass tasks, expected values for the others).
    """

    groups: pl.DataFrame
    rows: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame


@dataclass(frozen=True)
class Temporal:
    """A global temporal split at group times.

    ``valid`` and ``test`` are shares of the rows (floats), or the times at which the two parts start (both as
    numbers on the scale of the groups' ``time``). A group whose labels become known only after the next part has
    begun is left out: its label would look into that part. Raises BenchError if a part could have no rows.
    """

    valid: float = 0.1
    test: float = 0.1
    absolute: bool = False

    def __post_init__(self) -> None:
        if self.absolute and not self.valid < self.test:
            raise BenchError(f"temporal split: the test part starts at {self.test:g}, not after valid ({self.valid:g})")
        if not self.absolute and not (self.valid > 0 and self.test > 0 and self.valid + self.test < 1):
            shares = f"valid {self.valid:g} and test {self.test:g}"
            raise BenchError(f"temporal split: the shares {shares} must be above 0, and their sum below 1")


class Dataset:
    """A public or simulated data set: raw files in, standard tables out. It knows no method, model or split rule.

    Knobs, if any, are keyword-only arguments of ``__init__`` with JSON-able defaults.
    """

    version: ClassVar[int] = 1  # bump when the same raw files should give other tables
    domain: ClassVar[str] = ""  # e-commerce, news, video, ...
    sizes: ClassVar[Mapping[str, str]] = {}  # variant ("" if there is none) -> how large, as published
    about: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    citation: ClassVar[str] = ""
    url: ClassVar[str] = ""
    tasks: tuple[Task, ...] = ()  # may be set by ``build`` where classes come from the files
    fields: ClassVar[tuple[Field, ...]] = ()
    forbidden: ClassVar[tuple[str, ...]] = ()  # outcome columns that may never be features
    history: ClassVar[int] = 20  # longest history kept
    split: Temporal = Temporal()
    variants: ClassVar[tuple[str, ...]] = ()  # a family in one file: registered as FILE-VARIANT each
    variant: ClassVar[str] = ""  # which of them this class is
    domain_field: ClassVar[str] = ""  # user-side column (device, country, tab) over which training can be transferred
    domains: Mapping[str, Sequence[str]] | None = None  # its values to train (and select) on, and to test on
    sources: ClassVar[tuple[Any, ...]] = ()  # bench.data.raw.source objects, tried in order; empty: nothing to fetch
    report_share: Callable[[float], None] | None = None  # a ``build`` that works in pieces tells the share done, 0 to 1

    def build(self, raw: Mapping[str, Path]) -> Tables:
        """Standard tables from raw files (name -> path). Raises BenchError naming file and column on bad input."""
        raise NotImplementedError


class Inputs(nn.Module):
    """Turns a batch into the vectors that an architecture reads.

    A subclass gives the two sides; the user side may not depend on the candidates, so that a user-scope task, which
    sees zeros in place of the candidate, cannot learn them.
    """

    user_width: int
    candidate_width: int

    def sides(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns (user [G, user_width], candidate [B, candidate_width])."""
        raise NotImplementedError

    @property
    def width(self) -> int:
        """Width of what the architecture reads."""
        return self.user_width + self.candidate_width

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns (pair [B, width], user [G, width])."""
        user, candidate = self.sides(batch)
        pair = torch.cat([user.index_select(0, batch.group), candidate], dim=1)
        return pair, torch.cat([user, user.new_zeros(user.shape[0], self.candidate_width)], dim=1)


class Balancer(nn.Module):
    """Combines task losses. This base is uniform scalarisation: the sum of all losses.

    weights: after ``backward``, the weight [T] that each task's gradient had in what is shared; None where a balancer
        (``weighs`` is False) has no one weight a task.
    of: a balancer that works on the weights of another names a default one here and takes its builder as second
        positional argument, ``of(tasks) -> Balancer``.
    """

    version: ClassVar[int] = 1
    space: ClassVar[dict[str, BaseDistribution]] = {}
    later: ClassVar[tuple[str, ...]] = ()  # as for a method
    looks_again: ClassVar[bool] = False  # wants each batch's losses once more after the update
    weighs: ClassVar[bool] = True
    data_parallel: ClassVar[bool] = True  # as for a method; not where ``combine`` draws random numbers
    of: ClassVar[str] = ""
    weights: Tensor | None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _must_declare(cls, "backward")

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.weights = None

    def combine(self, losses: Tensor) -> Tensor:
        """A scalar from losses [T]. Loss-weighting balancers override this."""
        return losses.sum()

    def backward(self, losses: Tensor, shared: Sequence[Tensor]) -> None:
        """Writes gradients. ``shared``: the representations that several tasks read (gradient balancers differentiate
        with respect to them)."""
        values = losses.detach().requires_grad_()
        torch.autograd.backward(self.combine(values))
        self.weights = values.grad
        torch.autograd.backward(losses, values.grad)

    def observe(self, losses: Tensor) -> None:
        """Hears the losses [T] of a batch again, after its update. Called only where ``looks_again``: one more pass."""

    def on_epoch(self, epoch: int, losses: Tensor, valid: Mapping[str, float]) -> None:
        """After each epoch (1, 2, ...), with the mean training losses [T] and the tasks' primary validation metrics."""

    def pilot(self) -> Balancer | None:
        """A balancer with which a copy of the model makes a pilot run first; None: there is no pilot run."""
        return None

    def on_pilot(self, weights: Tensor) -> None:
        """After the pilot run, with its mean weights [T]."""


class Method(nn.Module):
    """A multi-task recommender. Override the one verb your idea is about.

    Keyword-only arguments of ``__init__`` are the method's own hyper-parameters: JSON-able defaults in the
    signature, Optuna ranges in ``space`` right above it. ``inputs`` builds an input layer (call it once for each
    copy that the architecture needs). A method that works on top of any architecture names a default one in
    ``trunk`` and takes its builder as third positional argument, ``trunk(schema, inputs) -> Method``. One that learns
    from another run names a default method for it in ``teacher``; an instance that needs none sets that to "".
    """

    version: ClassVar[int] = 1  # bump when the same config should give other numbers
    space: ClassVar[dict[str, BaseDistribution]] = {}
    defaults: ClassVar[dict[str, Any]] = {}  # other defaults for the settings common to all methods, such as lr
    later: ClassVar[tuple[str, ...]] = ()  # settings added after first records: in a config only if not at the default
    trunk: ClassVar[str] = ""
    teacher: str = ""
    reference: ClassVar[bool] = False  # a yardstick, not a competitor
    data_parallel: ClassVar[bool] = True  # several processes may share a batch; see ``batch_mean``
    meta_share: float = (
        0.0  # of the training groups, the latest: kept from training, for what the method learns to learn
    )
    meta: Any = None  # that split, set by the engine before ``on_start``
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW  # of parameter groups; may change each epoch
    balancer: Balancer | None  # set by the engine from the config; no class value here, it would hide the module

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _must_declare(cls, "losses", "backward", "step")

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.schema = schema
        self.tasks = schema.tasks
        self.shared: list[Tensor] = []
        self.balancer = None

    @classmethod
    def declines(cls, schema: Schema) -> str:
        """Why this method cannot work on such data; empty if it can."""
        return ""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Architecture: raw outputs (logits, values, scores), [B] or [B, classes]; [G, ...] for user scope.

        Sets ``self.shared`` to the representations that several tasks read.
        """
        raise NotImplementedError

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Objective: [T] mean losses over the rows where each label is defined (0 where none is)."""
        return torch.stack([task_loss(t, outputs[t.name], batch) for t in self.tasks])

    def backward(self, losses: Tensor) -> None:
        """Gradients of all parameters from losses [T]."""
        if self.balancer is None:
            torch.autograd.backward(losses.sum())
        else:
            self.balancer.backward(losses, self.shared)

    def step(self, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
        """One update; returns detached losses [T]. Override only for updates of several passes."""
        return self.backward_and_step(self.losses(self(batch), batch), batch, optimizer)

    def backward_and_step(self, losses: Tensor, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
        """The end of every step: the optimiser moves along the gradients of losses [T]; returns these, detached."""
        optimizer.zero_grad(set_to_none=True)
        self.backward(losses)
        optimizer.step()
        if self.balancer is not None and self.balancer.looks_again:
            with torch.no_grad():
                self.balancer.observe(self.losses(self(batch), batch))
        return losses.detach()

    def on_teacher(self, model: Method, skills: Mapping[str, float], epochs: int) -> None:
        """Before ``on_start``, where there is a ``teacher``: with that run, its skills on ``meta`` as in ``on_meta``,
        and the epochs planned for this one.

        The teacher was trained with the same seed, budget and data, ``meta`` left out; it is frozen and in evaluation
        mode. Do not keep it as a submodule (a tuple hides it): it is no part of the model.
        """

    def on_start(self, train: Any) -> None:
        """Before the first epoch, with the training split: counting, initial statistics."""

    def on_epoch(self, epoch: int, valid: Mapping[str, float]) -> None:
        """After each epoch, with every task's primary validation metric: schedules, unfreezing, controllers."""

    def on_meta(self, epoch: int, metrics: Mapping[str, float], skills: Mapping[str, float]) -> None:
        """After each epoch, before ``on_epoch``, where there is a ``meta``: every task's primary metric on it, and its
        skill, (value - chance) / (perfect - chance)."""

    def on_resume(self) -> None:
        """After a killed run's state has been loaded: parameters, buffers, and what all modules have as attributes of
        plain data, tensors, ``torch.Generator`` and optimisers. A class with other state makes it anew here from that;
        without this hook a change of such state means that the run has no checkpoints."""

    def rates(self, lr: float) -> list[tuple[nn.Module, float]]:
        """Modules whose parameters have another learning rate than ``lr``; of several rates the last counts.

        Asked before the first epoch and after each, as are the parameters that are trained: a method may change both.
        """
        return []

    def parts(self) -> list[tuple[tuple[Task, ...], nn.Module]]:
        """Parts that train independently; each keeps its own best epoch. By default one part: all tasks together."""
        return [(self.tasks, self)]

    def pilots(self) -> Sequence[Method]:
        """Copies of this method for pilot runs, made first, each on its own order of batches; by default none."""
        return ()

    def on_pilots(self, trained: Sequence[Method]) -> None:
        """After the pilot runs, with the trained copies."""


def _must_declare(cls: type[Method] | type[Balancer], *verbs: str) -> None:
    """With an objective or update of its own, a class is data parallel only if it says so."""
    if "data_parallel" not in vars(cls) and not vars(cls).keys().isdisjoint(verbs):
        cls.data_parallel = False


def task_loss(task: Task, output: Tensor, batch: Batch) -> Tensor:
    """Returns the mean loss of one task over the rows (or groups) where its label is defined, as its kind says; 0 with
    a gradient of 0 if none is."""
    return task.traits.loss(output, batch.labels[task.name], batch.group, batch.user_cat.shape[0])
