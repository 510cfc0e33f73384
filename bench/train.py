"""One training loop for every method. ``fit`` has no test argument; ``evaluate`` sees no label."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench import metrics, parallel
from bench.api import Method, Task, several
from bench.augment import make as augmentation
from bench.checkpoint import Keeper, restore_training
from bench.data.stored import Spilled
from bench.data.tensors import Split
from bench.features import FeatureInputs
from bench.norms import FusedLayer
from bench.row_updates import update_rows
from bench.score import Predictions, Scores, chance, score
from bench.spec import derive_seed

EVALUATION_ROWS = 16384
# What such a batch has in the layers of a wide network is more than a processor's cache holds. For the other norms the
# number stays what it was at the first records: a product of another number of rows may round in another way.
FUSED_ROWS = 2048


class Diverged(Exception):
    """A loss or prediction is not finite."""


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
    at every update that the method makes; 0 for none. augment, augment_rate: see ``bench.augment``. each_epoch: is told
    the curve's new entry and the mean skill; what it raises ends the training. keeper: keeps checkpoints and goes on
    from one, with the result, to the bit, of a training without an interruption.

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
            built.register_step_pre_hook(parallel.average)
        if grad_clip > 0:
            built.register_step_pre_hook(partial(_clip, [part.module for part in parts], grad_clip))
        return built

    optimizer, kind = build(), method.optimizer
    every = epochs * math.ceil(train.rows / batch_size)
    generator = torch.Generator().manual_seed(derive_seed("batches", seed))
    constant = constants(train, valid)
    constant_there = constants(train, method.meta) if method.meta is not None else {}
    on_device, valid_there = train.to(device), valid.to(device)
    altered = augmentation(augment, augment_rate, on_device)
    parallel.draw_apart(seed)
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
            total += method.step(altered(parallel.share(batch, method.tasks)), optimizer)
            step, done = step + 1, done + 1
            if method.balancer is not None and method.balancer.weights is not None:
                weights += method.balancer.weights
            if keeper is not None and keeper.due():
                keep(keeper, epoch)
        losses = (total / done).tolist()
        if not all(map(math.isfinite, losses)):
            raise Diverged(f"training loss is not finite in epoch {epoch}")
        result.rows += train.rows
        scores = _finite_score(valid, predict(method, valid_there), primary_only=True)
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


def rate(schedule: str, warmup: float, steps: int, step: int) -> float:
    """The factor of the learning rate in batch ``step`` (0, 1, ...) of about ``steps`` if no epoch is saved.

    It rises in equal steps to 1 over the share ``warmup``; then it stays there (constant), falls to 0 in equal steps
    (linear) or along half a cosine (Loshchilov and Hutter, SGDR, ICLR 2017).
    """
    rising = warmup * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    done = min((step - rising) / (steps - rising), 1.0)
    return {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[schedule]


def optimizer_for(
    method: Method, lr: float, weight_decay: float, decay_embeddings: bool = False
) -> torch.optim.Optimizer:
    """The method's optimiser on ``groups_of``; it takes dense gradients and, of embeddings, sparse ones."""
    optimizer = method.optimizer(groups_of(method, lr, weight_decay, decay_embeddings), fused=True)
    if any(isinstance(m, FeatureInputs) and m.row_wise for m in method.modules()):
        optimizer.register_step_pre_hook(update_rows)
    return optimizer


def groups_of(method: Method, lr: float, weight_decay: float, decay_embeddings: bool = False) -> list[dict[str, Any]]:
    """What is trained, by learning rate; weight decay on the weight matrices only, not on biases and norms, and on
    embeddings only if wanted."""
    tables = {id(m.weight) for m in method.modules() if isinstance(m, nn.Embedding) and not decay_embeddings}
    rates = {id(p): own for module, own in method.rates(lr) for p in module.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for p in method.parameters():
        if p.requires_grad:
            decay = weight_decay if p.ndim > 1 and id(p) not in tables else 0.0
            groups.setdefault((rates.get(id(p), lr), decay), []).append(p)
    ordered = sorted(groups, key=lambda key: (key[0] != lr, key[0], -key[1]))
    return [{"params": groups[key], "lr": key[0], "initial_lr": key[0], "weight_decay": key[1]} for key in ordered]


def regroup(optimizer: torch.optim.Optimizer, groups: Sequence[dict[str, Any]]) -> None:
    """Other groups for an optimiser, which forgets what it knew of parameters that are in none of them."""
    optimizer.param_groups.clear()
    for group in groups:
        optimizer.add_param_group(group)
    kept = {p for group in groups for p in group["params"]}
    for p in [p for p in optimizer.state if p not in kept]:
        del optimizer.state[p]


def _clip(modules: Sequence[nn.Module], most: float, *_: object) -> None:
    for module in modules:
        nn.utils.clip_grad_norm_(module.parameters(), most)


def evaluate(method: Method, split: Split) -> dict[str, np.ndarray]:
    """Predictions of every task on a split: probabilities, values or scores. The method is given no labels."""
    collected: dict[str, list[Tensor]] = {t.name: [] for t in method.tasks}
    for predicted in _predicted(method, split):
        for name, values in predicted.items():
            collected[name].append(values)
    return {name: torch.cat(chunks).cpu().numpy() for name, chunks in collected.items()}  # a GPU is waited for once


def predict(method: Method, split: Split) -> Predictions:
    """The same to be scored: those of a large split are in files, which go with what is returned."""
    if not split.large:
        return evaluate(method, split)
    spilled = {t.name: Spilled() for t in method.tasks}
    for predicted in _predicted(method, split):
        for name, values in predicted.items():
            spilled[name].append(values.cpu().numpy())
    return spilled


@torch.inference_mode()
def _predicted(method: Method, split: Split) -> Iterator[dict[str, Tensor]]:
    method.eval()
    device = next((t.device for t in [*method.parameters(), *method.buffers()]), torch.device("cpu"))
    fused = device.type == "cpu" and any(isinstance(m, FusedLayer) for m in method.modules())
    for batch in split.to(device).inputs(FUSED_ROWS if fused else EVALUATION_ROWS):
        outputs = method(batch)
        yield {t.name: _prediction(t, outputs[t.name]).float() for t in method.tasks}


def mean_skill(tasks: tuple[Task, ...], scores: Scores, constant: Scores) -> float:
    """Mean over tasks of the primary metric's skill; tasks whose metric is undefined here say nothing."""
    found = skills(tasks, scores, constant)
    return float(np.mean([*found.values()])) if found else 0.0


def skills(tasks: Sequence[Task], scores: Scores, constant: Scores) -> dict[str, float]:
    """The primary metric's skill, (value - chance) / (perfect - chance), of the tasks for which it is defined."""
    found = {}
    for task in tasks:
        name = task.metrics[0]
        value, base = scores[task.name][name], constant[task.name][name]
        if value is not None and base is not None:
            found[task.name] = metrics.skill(name, value, base)
    return found


def constants(train: Split, split: Split) -> Scores:
    """The primary metrics of the best constant of the training part on a split."""
    return score(split, chance(train, split), primary_only=True)


def kept_from(train: Split, share: float) -> tuple[Split, Split]:
    """The training part without the latest ``share`` of its groups, and these."""
    return train.cut(round((1 - share) * train.groups))


def on_meta(method: Method, meta: Split, constant: Scores) -> tuple[dict[str, float], dict[str, float]]:
    """Every task's primary metric on meta-validation, and its skill over ``constant``, the scores of the best constant
    there; of the tasks for which they are defined."""
    scores = _finite_score(meta, predict(method, meta), primary_only=True)
    primary = {t.name: scores[t.name][t.metrics[0]] for t in method.tasks}
    return {k: v for k, v in primary.items() if v is not None}, skills(method.tasks, scores, constant)


def _prediction(task: Task, output: Tensor) -> Tensor:
    if task.kind == "binary":
        return output.sigmoid()
    return output.softmax(dim=1) if task.kind == "multiclass" else output


def _finite_score(split: Split, predictions: Predictions, *, primary_only: bool = False) -> Scores:
    try:
        return score(split, predictions, primary_only=primary_only)
    except ValueError as error:
        raise Diverged(str(error)) from error
