"""One training loop for every method. ``fit`` has no test argument."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from bench.api import Method, several
from bench.data.tensors import Split
from bench.errors import Diverged
from bench.machine.processes import average, draw_apart, share
from bench.nn.augment import augmentation
from bench.nn.schedule import rate
from bench.spec import derive_seed
from bench.training.checkpoint import Checkpointer
from bench.training.optimizer import clip_gradients, groups_of, optimizer_for, regroup
from bench.training.predict import predict
from bench.training.recipe import Recipe
from bench.training.score import Scores, score
from bench.training.skill import constants, mean_skill, on_meta, split_off_meta
from bench.training.snapshot import restore_training

Report = Callable[[str], None]
EachEpoch = Callable[[dict[str, Any], float], None]


@dataclass
class Fit:
    """What training has left behind. ``curve``: for each epoch mean losses and weights, and validation metrics."""

    curve: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    rows: int = 0

    def count(self, other: Fit) -> None:
        """Adds what another training took, on which this one rests."""
        self.seconds += other.seconds
        self.rows += other.rows


@dataclass
class Best:
    """The best state so far of a part that trains independently, and its epoch; 0: there is none yet."""

    skill: float = -math.inf
    epoch: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class State:
    """How far a training has come: what a checkpoint keeps of the loop.

    epoch: the one under way, which began with the generator of batches in the state ``order``. batches, losses [T] and
    weights [T]: how many of it are done, and sums over these. steps: batches of all epochs.
    """

    order: Tensor
    losses: Tensor
    weights: Tensor
    best: list[Best]
    epoch: int = 1
    batches: int = 0
    steps: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    rows: int = 0
    seconds: float = 0.0


def fit(
    method: Method,
    train: Split,
    valid: Split,
    recipe: Recipe,
    *,
    report: Report = lambda line: None,
    each_epoch: EachEpoch = lambda entry, skill: None,
    checkpointer: Checkpointer | None = None,
) -> Fit:
    """Trains until validation has not improved for ``patience`` epochs, then restores the best epoch.

    each_epoch: is told the curve's new entry and the mean skill; what it raises ends the training. checkpointer: keeps
    checkpoints and goes on from one, with the result, to the bit, of a training without an interruption.

    What is compared is the mean over tasks of the primary metric's skill, (value - chance) / (perfect - chance): every
    task counts alike. Parts that train independently are judged, and restored, each by its own tasks. Raises
    Diverged when a loss or prediction stops being finite.
    """
    start = time.perf_counter()
    if method.meta_share:
        train, method.meta = split_off_meta(train, method.meta_share)
    method.on_start(train)
    if not any(p.requires_grad for p in method.parameters()):
        return Fit(seconds=time.perf_counter() - start)
    training = _Training(method, train, valid, recipe, checkpointer)
    training.resume(start)
    while training.state.epoch <= recipe.epochs:
        training.train_epoch()
        training.end_epoch(report, each_epoch)
    return training.result()


class _Training:
    """A training under way: what it works with, and its ``state``."""

    def __init__(
        self, method: Method, train: Split, valid: Split, recipe: Recipe, checkpointer: Checkpointer | None
    ) -> None:
        self.method, self.recipe, self.checkpointer, self.parts = method, recipe, checkpointer, method.parts()
        self.rates = recipe.lr, recipe.weight_decay, recipe.decay_embeddings
        device = next(method.parameters()).device
        self.optimizer, self.kind = self._new_optimizer(), method.optimizer
        self.steps_in_all = recipe.epochs * math.ceil(train.rows / recipe.batch_size)
        self.generator = torch.Generator().manual_seed(derive_seed("batches", recipe.seed))
        self.constant = constants(train, valid)
        self.constant_on_meta: Scores = constants(train, method.meta) if method.meta is not None else {}
        self.train, self.valid, self.valid_on_device = train.to(device), valid, valid.to(device)
        self.augmented = augmentation(recipe.augment, recipe.augment_rate, self.train)
        draw_apart(recipe.seed)
        zeros = torch.zeros(len(method.tasks), device=device)
        self.state = State(self.generator.get_state(), zeros, zeros.clone(), [Best() for _ in self.parts])

    def resume(self, start: float) -> None:
        """Goes on from a checkpoint, if there is one. start: when this training began."""
        self.start = start
        if self.checkpointer is None or (saved := self.checkpointer.begin(self.method)) is None:
            return
        self.state = saved["loop"]
        self.generator.set_state(self.state.order)
        self.start -= self.state.seconds
        for best, (_, module) in zip(self.state.best, self.parts, strict=True):
            best.state = {**_present(module), **best.state} if best.epoch else {}
        self.optimizer, self.kind = self._new_optimizer(), self.method.optimizer
        restore_training(self.method, self.optimizer, saved)

    def train_epoch(self) -> None:
        """Makes the batches of the epoch under way that are not done yet."""
        method, recipe, state = self.method, self.recipe, self.state
        method.train()
        for batch in islice(self.train.batches(recipe.batch_size, self.generator), state.batches, None):
            factor = rate(recipe.schedule, recipe.warmup, self.steps_in_all, state.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
            state.losses += method.step(self.augmented(share(batch, method.tasks)), self.optimizer)
            state.batches, state.steps = state.batches + 1, state.steps + 1
            if method.balancer is not None and method.balancer.weights is not None:
                state.weights += method.balancer.weights
            if self.checkpointer is not None and self.checkpointer.due():
                self._keep(self.checkpointer)

    def end_epoch(self, report: Report, each_epoch: EachEpoch) -> None:
        """Judges the epoch by the validation part, tells the method of it, and turns to the next, or the end."""
        method, state, epoch = self.method, self.state, self.state.epoch
        losses = state.losses / state.batches
        if not losses.isfinite().all():
            raise Diverged(f"training loss is not finite in epoch {epoch}")
        state.rows += self.train.rows
        scores = score(self.valid, predict(method, self.valid_on_device), primary_only=True)
        primary = {t.name: scores[t.name][t.metrics[0]] for t in method.tasks}
        state.curve.append({"epoch": epoch, "loss": self._by_task(losses), "valid": primary})
        if method.balancer is not None and method.balancer.weights is not None:
            state.curve[-1]["weights"] = self._by_task(state.weights / state.batches)
        for best, (tasks, module) in zip(state.best, self.parts, strict=True):
            if (skill := mean_skill(tasks, scores, self.constant)) > best.skill:
                best.skill, best.epoch, best.state = skill, epoch, _present(module)
        skill = mean_skill(method.tasks, scores, self.constant)
        report(f"epoch {epoch}/{self.recipe.epochs}  loss {sum(losses.tolist()):.4f}  skill {skill:.4f}")
        each_epoch(state.curve[-1], skill)
        self._adapt(losses, {k: v for k, v in primary.items() if v is not None})
        state.batches, state.order = 0, self.generator.get_state()
        state.losses, state.weights = torch.zeros_like(state.losses), torch.zeros_like(state.weights)
        ended = all(epoch - best.epoch >= self.recipe.patience for best in state.best)
        state.epoch = self.recipe.epochs + 1 if ended else epoch + 1

    def result(self) -> Fit:
        """Restores the best states; what the training leaves behind."""
        if self.checkpointer is not None and self.checkpointer.ended():
            self._keep(self.checkpointer)
        best_epoch: dict[str, int] = {}
        for best, (tasks, module) in zip(self.state.best, self.parts, strict=True):
            module.load_state_dict(best.state)
            best_epoch |= {t.name: best.epoch for t in tasks}
        return Fit(self.state.curve, best_epoch, time.perf_counter() - self.start, self.state.rows)

    def _adapt(self, losses: Tensor, primary: dict[str, float]) -> None:
        """What method and balancer do after an epoch, and the optimiser that they want from here on."""
        method, epoch = self.method, self.state.epoch
        if method.meta is not None:
            method.on_meta(epoch, *on_meta(method, method.meta, self.constant_on_meta))
        method.on_epoch(epoch, primary)
        if method.balancer is not None:
            method.balancer.on_epoch(epoch, losses, primary)
        if method.optimizer is self.kind:
            regroup(self.optimizer, groups_of(method, *self.rates))
        else:
            self.optimizer, self.kind = self._new_optimizer(), method.optimizer

    def _new_optimizer(self) -> torch.optim.Optimizer:
        made = optimizer_for(self.method, *self.rates)
        if several():
            made.register_step_pre_hook(average)
        if self.recipe.grad_clip > 0:
            modules = [module for _, module in self.parts]
            made.register_step_pre_hook(partial(clip_gradients, modules, self.recipe.grad_clip))
        return made

    def _by_task(self, values: Tensor) -> dict[str, float]:
        return dict(zip((t.name for t in self.method.tasks), values.tolist(), strict=True))

    def _keep(self, checkpointer: Checkpointer) -> None:
        best = [
            replace(best, state=checkpointer.changed(module, best.state))
            for best, (_, module) in zip(self.state.best, self.parts, strict=True)
        ]
        self.state.seconds = time.perf_counter() - self.start
        checkpointer.keep(self.method, self.optimizer, replace(self.state, best=best))


def _present(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's state."""
    return {k: v.detach().clone() for k, v in module.state_dict().items()}
