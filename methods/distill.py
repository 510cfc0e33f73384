"""Distillation: soft targets (BAM, ACL 2019) and features (KD4MTL, ECCVW 2020), each task weighted by its gap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Method, Schema, Task
from bench.nn import Architecture, MakeInputs, MakeTrunk
from bench.text.per_task import TaskTower
from methods.lora import Lora

GATES = {  # what moves the weight of a teacher's terms
    "gap": "planned share, times the sigmoid of the gap between the teacher's and the student's skill",
    "constant": "stays as it is",
    "annealed": "planned share",
    "none": "no teacher",
}
UPDATES = ("all", "adapters")
Taught = tuple[dict[str, Tensor], dict[str, Tensor]]  # outputs and features by task


class Distill(Lora):
    """sum_t L_t + lam_t (D_t + feature F_t), from a trained run of the method ``teacher``.

    D_t is ``soft_loss``. For all kinds but softmax, L_t + lam_t D_t is, up to scale and a constant, the loss against
    BAM's mixed target (y + lam_t q) / (1 + lam_t), q being the teacher's prediction. F_t is ``feature_loss`` between
    A_t f and the teacher's f, where f is what the task's tower reads; there is none where a model has no towers.
    A_t is trained and counted among the parameters, but takes no part in predictions.

    gate: in epoch e of E planned, lam_t is strength (``constant``), strength a with a = 1 - (e - 1) / E (``annealed``),
        strength a sigmoid(sharpness gap_t) (``gap``), or there is no teacher at all (``none``). gap_t is the teacher's
        skill minus the student's on meta-validation, by task t's primary metric after epoch e - 1; before the first
        epoch the student's skill is 0. Neither model is trained on meta-validation.
    shuffle: a control. What the teacher says is permuted over the rows of a batch (user scope: over its groups).
    updates: what the teacher's terms change: ``all``, or only the language model's ``adapters`` and A_t.

    The balancer weighs the tasks' own losses alone; the gradient of the teacher's terms is added to what it gives.
    """

    space = {
        **Lora.space,
        "gate": CategoricalDistribution(["gap"]),  # the others, and shuffle, are controls
        "strength": FloatDistribution(0.1, 10.0, log=True),
        "sharpness": FloatDistribution(1.0, 100.0, log=True),
        "feature": FloatDistribution(0.0, 10.0),
        "shuffle": CategoricalDistribution([False]),
        "updates": CategoricalDistribution(UPDATES),
    }
    teacher = "single_task"
    meta_share = 0.1

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        trunk: MakeTrunk,
        *,
        gate: str = "gap",
        strength: float = 1.0,
        sharpness: float = 20.0,
        feature: float = 1.0,
        shuffle: bool = False,
        updates: str = "all",
        **settings: Any,
    ) -> None:
        for key, value, known in (("gate", gate, tuple(GATES)), ("updates", updates, UPDATES)):
            if value not in known:
                raise ValueError(f"{key} '{value}': choose {', '.join(known)}")
        for key, number in (("strength", strength), ("sharpness", sharpness), ("feature", feature)):
            if number < 0:
                raise ValueError(f"{key} {number}: must be at least 0")
        super().__init__(schema, inputs, trunk, **settings)
        self.gate, self.strength, self.sharpness, self.feature = gate, strength, sharpness, feature
        self.shuffle, self.updates = shuffle, updates
        if gate == "none":
            self.teacher = ""
        self.trained_teacher: tuple[Method, ...] = ()  # in a tuple it is no submodule
        self.epochs = 0
        self.adaptors = nn.ModuleDict()
        self.gates: dict[str, float] = {}
        self.decisions: list[dict[str, Any]] = []
        self.features: dict[str, Tensor] = {}
        self.term: Tensor | None = None

    def on_teacher(self, model: Method, skills: Mapping[str, float], epochs: int) -> None:
        """Keeps the teacher, its skills and the epochs planned. Raises ValueError for features of a teacher that has
        none of the whole batch."""
        if self.feature and any(isinstance(m, TaskTower) and len(m.tasks) > 1 for m in model.modules()):
            raise ValueError("a teacher with text vectors for each task makes a pass for each: set feature=0")
        self.trained_teacher, self.skill, self.epochs = (model,), dict(skills), epochs
        self._decide(1, {})

    def on_start(self, train: Any) -> None:
        """Makes the adaptors A_t."""
        super().on_start(train)
        for model in self.trained_teacher:
            self._adapt_to(model, train)

    def _adapt_to(self, model: Method, train: Any) -> None:
        if not self.feature:
            return
        device = next(self.parameters()).device
        with torch.no_grad():
            batch = next(train.cut(1)[0].to(device).inputs(1))
            with features_of(model) as theirs:
                model(batch)
            self.eval()(batch)
        for task in self.tasks:
            if task.name in theirs and task.name in self.features:
                widths = self.features[task.name].shape[1], theirs[task.name].shape[1]
                self.adaptors[task.name] = nn.Linear(*widths, device=device)

    def _decide(self, epoch: int, skills: Mapping[str, float]) -> dict[str, float]:
        """Sets the gates of an epoch from the student's skills before it; returns the gaps."""
        gaps = {t.name: self.skill.get(t.name, 0.0) - skills.get(t.name, 0.0) for t in self.tasks}
        share = 1.0 if self.gate == "constant" else 1 - (epoch - 1) / self.epochs
        for name, gap in gaps.items():
            # sigmoid(x) as tanh, which cannot overflow
            opened = (1 + math.tanh(self.sharpness * gap / 2)) / 2 if self.gate == "gap" else 1.0
            self.gates[name] = self.strength * share * opened
        return gaps

    def on_meta(self, epoch: int, metrics: Mapping[str, float], skills: Mapping[str, float]) -> None:
        """Sets the gates of the next epoch, and logs them with what they come from."""
        if not self.trained_teacher:
            return
        before = dict(self.gates)
        gaps = self._decide(epoch + 1, skills)
        changes = [
            {"what": f"teacher's weight for {name}", "from": before[name], "to": gate}
            for name, gate in self.gates.items()
            if gate != before[name]
        ]
        entry = {"epoch": epoch, "metrics": dict(metrics), "gaps": gaps, "changes": changes, "why": GATES[self.gate]}
        self.decisions.append(entry)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The architecture's outputs; keeps the features where a teacher's are to be met."""
        with features_of(self.model) as self.features:
            return super().forward(batch)

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The architecture's. While training, what the teacher adds is kept for ``backward``."""
        if self.training and torch.is_grad_enabled():
            for model in self.trained_teacher:
                self.term = self.teaching(outputs, self.taught(model, batch), batch)
        return super().losses(outputs, batch)

    @torch.no_grad()
    def taught(self, model: Method, batch: Batch) -> Taught:
        """What the teacher says about a batch."""
        with features_of(model) as features:
            outputs = model(batch)
        if self.shuffle:
            sizes = {"pair": batch.item.shape[0], "user": batch.user_cat.shape[0]}
            order = {scope: torch.randperm(size).to(batch.item.device) for scope, size in sizes.items()}
            for task in self.tasks:
                for values in (outputs, features):
                    if task.name in values:
                        values[task.name] = values[task.name][order[task.scope]]
        return outputs, features

    def teaching(self, outputs: Mapping[str, Tensor], taught: Taught, batch: Batch) -> Tensor:
        """sum_t lam_t (D_t + feature F_t), a scalar."""
        total = batch.user_num.new_zeros(())
        theirs, features = taught
        for task in self.tasks:
            term = soft_loss(task, outputs[task.name], theirs[task.name], batch)
            if task.name in self.adaptors:
                student = self.adaptors[task.name](self.features[task.name])
                term = term + self.feature * feature_loss(student, features[task.name], batch.labels[task.name])
            total = total + self.gates[task.name] * term
        return total

    def backward(self, losses: Tensor) -> None:
        """Gradients of the tasks' losses as the balancer has them, plus those of the teacher's terms."""
        term, self.term = self.term, None
        if term is None:
            super().backward(losses)
            return
        modules = [self] if self.updates == "all" else [self.adaptors, *(tower.network for tower in self.towers())]
        reached = [p for module in modules for p in module.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(term, reached, retain_graph=True, allow_unused=True)
        super().backward(losses)
        for p, gradient in zip(reached, gradients, strict=True):
            if gradient is not None:
                p.grad = gradient if p.grad is None else p.grad + gradient


@contextmanager
def features_of(model: Method) -> Iterator[dict[str, Tensor]]:
    """What each task's tower reads [rows or groups, width] in a forward pass in this block, for all architectures."""
    found: dict[str, Tensor] = {}

    def keep(name: str, x: Tensor) -> None:
        found[name] = x

    towers = [pair for m in model.modules() if isinstance(m, Architecture) for pair in m.towers.items()]
    hooks = [t.register_forward_pre_hook(lambda _, args, name=name: keep(name, args[0])) for name, t in towers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def soft_loss(task: Task, output: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """The loss of a task's raw outputs against its teacher's, over the rows where the label is defined.

    The kind's own loss with the teacher's prediction for a label: ``binary`` and ``multiclass``: cross-entropy between
    their probabilities; ``regression``: squared difference. Where scores are compared within groups, ``softmax``:
    cross-entropy between their softmax over each group's rows, a mean over the groups with two rows or more (ListNet,
    Cao et al., ICML 2007). 0 with a gradient of 0 where no label is defined.
    """
    known = ~batch.labels[task.name].isnan()
    if task.traits.grouped:
        index, groups = batch.group.long(), batch.user_cat.shape[0]
        target = log_softmax(teacher, known, index, groups).exp()
        entropy = -(target * log_softmax(output, known, index, groups) * known).sum()
        size = output.new_zeros(groups).index_add(0, index, known.to(output.dtype))
        return entropy / (size > 1).sum().clamp(min=1)
    loss = task.traits.each(output, task.traits.prediction(teacher))
    return (loss * known).sum() / known.sum().clamp(min=1)


def log_softmax(score: Tensor, known: Tensor, group: Tensor, groups: int) -> Tensor:
    """log softmax of scores [B] over the ``known`` rows of each group; what stands at the other rows is finite."""
    masked = torch.where(known, score, torch.full_like(score, -torch.inf)).detach()
    top = score.new_full((groups,), -torch.inf).scatter_reduce(0, group, masked, "amax")[group]
    level = torch.where(known, score - torch.where(top.isfinite(), top, 0.0), torch.zeros_like(score))
    total = score.new_zeros(groups).index_add(0, group, level.exp() * known)
    return level - total.clamp(min=1.0).log()[group]  # it is at least 1 wherever a row is known


def feature_loss(student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
    """Mean of ||n(s) - n(t)||^2 over the rows where the label is defined, n(x) = x / ||x||. Features are [N, width]."""
    known = ~label.isnan()
    distance = (F.normalize(student.float(), dim=1) - F.normalize(teacher.float(), dim=1)).square().sum(dim=1)
    return (distance * known).sum() / known.sum().clamp(min=1)
