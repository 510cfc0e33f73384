"""One training loop for every method. ``fit`` has no test argument."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from bench.api import Method, Task, several
from bench.data.tensors import Split
from bench.machine.processes import average, draw_apart, share
from bench.nn.augment import augmentation
from bench.nn.schedule import rate
from bench.spec import derive_seed
from bench.training.checkpoint import Keeper
from bench.training.optimizer import clip_gradients, groups_of, optimizer_for, regroup
from bench.training.predict import Diverged, finite_score, predict
from bench.training.skill import constants, kept_from, mean_skill, on_meta
from bench.training.snapshot import restore_training


@dataclass
class Fit:
    """What training has left behind. ``curve``: for each epoch mean losses and weights, and validation metrics."""

    curve: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    rows: int = 0


@dataclass
class _Part:
    """An independently trained part of a method and its best state so far."""

    tasks: tuple[Task, ...]
    module: nn.Module
    best: float = -math.inf
    epoch: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)

    def offer(self, epoch: int, skill: float) -> None:
        """Keeps the present state if it is better than the best one."""
        if skill > self.best:
            self.best, self.epoch = skill, epoch
            self.state = self.present()

    def present(self) -> dict[str, Tensor]:
        """A copy of the present state."""
        return {k: v.detach().clone() for k, v in self.module.state_dict().items()}


def fit(
    method: Method,
    train: Split,
    valid: Split,
    *,
    lr: float,
    weight_decay: float,
    batch_size: int,
    epochs: int,
    patience: int,
    seed: int,
    schedule: str = "constant",
    warmup: float = 0.0,
    grad_clip: float = 0.0,
    decay_embeddings: bool = False,
    augment: str = "none",
    augment_rate: float = 0.0,
    report: Callable[[str], None] = lambda line: None,
    each_epoch: Callable[[dict[str, Any], float], None] = lambda entry, skill: None,
    keeper: Keeper | None = None,
) -> Fit:
    """Trains until validation has not improved for ``patience`` epochs, then restores the best epoch.

    schedule, warmup: see ``rate``. grad_clip: the largest norm of the gradient of each part that trains independently,
    at every update that the method makes; 0 for none. augment, augment_rate: of ``bench.nn.augment``. each_epoch: is
    told the curve's new entry and the mean skill; what it raises ends the training. keeper: keeps checkpoints and goes
    on from one, with the result, to the bit, of a training without an interruption.

    What is compared is the mean over tasks of the primary metric's skill, (value - chance) / (perfect - chance): every
    task counts alike. Parts that train independently are judged, and restored, each by its own tasks. Raises
    Diverged when a loss or prediction stops being finite.
    """
    result, start = Fit(), time.perf_counter()
    if method.meta_share:
        train, method.meta = kept_from(train, method.meta_share)
    method.on_start(train)
    parts = [_Part(tasks, module) for tasks, module in method.parts()]
    if not any(p.requires_grad for p in method.parameters()):
        result.seconds = time.perf_counter() - start
        return result
    device = next(method.parameters()).device
    grouped = partial(groups_of, method, lr, weight_decay, decay_embeddings)

    def build() -> torch.optim.Optimizer:
        built = optimizer_for(method, lr, weight_decay, decay_embeddings)
        if several():
            built.register_step_pre_hook(average)
        if grad_clip > 0:
            built.register_step_pre_hook(partial(clip_gradients, [part.module for part in parts], grad_clip))
        return built

    optimizer, kind = build(), method.optimizer
    every = epochs * math.ceil(train.rows / batch_size)
    generator = torch.Generator().manual_seed(derive_seed("batches", seed))
    constant = constants(train, valid)
    constant_there = constants(train, method.meta) if method.meta is not None else {}
    on_device, valid_there = train.to(device), valid.to(device)
    altered = augmentation(augment, augment_rate, on_device)
    draw_apart(seed)
    first, done, step, order = 1, 0, 0, generator.get_state()  # epoch, batches of it, all batches, start of the epoch
    total = torch.zeros(len(method.tasks), device=device)
    weights = torch.zeros_like(total)

    def keep(keeper: Keeper, epoch: int) -> None:
        place = {"first": epoch, "done": done, "step": step, "order": order, "total": total, "weights": weights}
        best = [{"best": p.best, "epoch": p.epoch, "state": keeper.changed(p.module, p.state)} for p in parts]
        so_far = {"curve": result.curve, "rows": result.rows, "seconds": time.perf_counter() - start}
        keeper.keep(method, optimizer, place=place, parts=best, result=so_far)

    if keeper is not None and (saved := keeper.begin(method)) is not None:
        first, done, step, order, total, weights = saved["place"].values()
        generator.set_state(order)
        result.curve, result.rows = saved["result"]["curve"], saved["result"]["rows"]
        start -= saved["result"]["seconds"]
        for part, kept in zip(parts, saved["parts"], strict=True):
            part.best, part.epoch = kept["best"], kept["epoch"]
            part.state = {**part.present(), **kept["state"]} if part.epoch else {}
        optimizer, kind = build(), method.optimizer
        restore_training(method, optimizer, saved)
    for epoch in range(first, epochs + 1):
        method.train()
        for batch in islice(on_device.batches(batch_size, generator), done, None):
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate(schedule, warmup, every, step)
            total += method.step(altered(share(batch, method.tasks)), optimizer)
            step, done = step + 1, done + 1
            if method.balancer is not None and method.balancer.weights is not None:
                weights += method.balancer.weights
            if keeper is not None and keeper.due():
                keep(keeper, epoch)
        losses = (total / done).tolist()
        if not all(map(math.isfinite, losses)):
            raise Diverged(f"training loss is not finite in epoch {epoch}")
        result.rows += train.rows
        scores = finite_score(valid, predict(method, valid_there), primary_only=True)
        names = [t.name for t in method.tasks]
        primary = {t.name: scores[t.name][t.metrics[0]] for t in method.tasks}
        result.curve.append({"epoch": epoch, "loss": dict(zip(names, losses, strict=True)), "valid": primary})
        if method.balancer is not None and method.balancer.weights is not None:
            result.curve[-1]["weights"] = dict(zip(names, (weights / done).tolist(), strict=True))
        for part in parts:
            part.offer(epoch, mean_skill(part.tasks, scores, constant))
        skill = mean_skill(method.tasks, scores, constant)
        report(f"epoch {epoch}/{epochs}  loss {sum(losses):.4f}  skill {skill:.4f}")
        each_epoch(result.curve[-1], skill)
        known = {k: v for k, v in primary.items() if v is not None}
        if method.meta is not None:
            method.on_meta(epoch, *on_meta(method, method.meta, constant_there))
        method.on_epoch(epoch, known)
        if method.balancer is not None:
            method.balancer.on_epoch(epoch, total / done, known)
        if method.optimizer is kind:
            regroup(optimizer, grouped())
        else:
            optimizer, kind = build(), method.optimizer
        done, order, total, weights = 0, generator.get_state(), torch.zeros_like(total), torch.zeros_like(weights)
        if all(epoch - part.epoch >= patience for part in parts):
            break
    if keeper is not None and keeper.ended():
        keep(keeper, epochs + 1)
    for part in parts:
        part.module.load_state_dict(part.state)
        result.best_epoch |= {t.name: part.epoch for t in part.tasks}
    result.seconds = time.perf_counter() - start
    return result
