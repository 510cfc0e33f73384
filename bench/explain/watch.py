"""Measured in training: affinity of tasks (Fifty et al., TAG, NeurIPS 2021) and cosines of their gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.api import Batch, Method
from bench.nn import OnTrunk

EVERY = 10  # steps from one measurement to the next, as in TAG


class Watch:
    """What has been measured so far, each a list of [T, T] arrays; NaN where a task says nothing.

    affinity: Z[i, j] = 1 - L_j(X, s - eta g_i, t_j) / L_j(X, s, t_j), with s the shared parameters, g_i the gradient of
        L_i for them, and t_j the rest. eta = lr sqrt(n) / |sum_i g_i|, with n the number of shared values that have a
        gradient: the step of the tasks' sum is as long as one of Adam's, which moves each value by about lr.
    cosine: of g_i and g_j, for each module of the method that has shared parameters, and for all of them ("all").

    A parameter is shared if the losses of two tasks or more have a gradient other than 0 for it. All passes draw the
    same random numbers, those of the training step that follows: losses before and after differ by the lookahead alone.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.affinity: list[np.ndarray] = []
        self.cosine: dict[str, list[np.ndarray]] = {}

    def measure(self, method: Method, batch: Batch, optimizer: torch.optim.Optimizer) -> None:
        """One measurement on a batch; leaves the method, its gradients and the random generators as they were."""
        rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
        named = [(name, p) for name, p in method.named_parameters() if p in rates]
        with _same_buffers(method):
            losses = _losses(method, batch)
            gradients = [_gradient(loss, [p for _, p in named]) for loss in losses]
            active = torch.tensor([[bool(g.any()) for g in row] for row in gradients])
            shared = [i for i, sharers in enumerate(active.sum(dim=0).tolist()) if sharers > 1]
            own = [[row[i] for i in shared] for row in gradients]
            self._cosines([_module(method, named[i][0]) for i in shared], own)
            scale = _adam_length([torch.stack(of_tasks).sum(dim=0) for of_tasks in zip(*own, strict=True)])
            moved = [(named[i][1], rates[named[i][1]] * scale) for i in shared]
            after = torch.stack([_lookahead(method, batch, moved, row) for row in own])
        before = losses.detach()
        self.affinity.append(torch.where(before > 0, 1 - after / before, torch.nan).double().cpu().numpy())

    def _cosines(self, modules: list[str], gradients: list[list[Tensor]]) -> None:
        for module in ["all", *dict.fromkeys(modules)]:
            parts = [i for i, name in enumerate(modules) if module in ("all", name)]
            if parts:
                flat = torch.stack([torch.cat([g[i].flatten() for i in parts]) for g in gradients]).double()
                unit = flat / flat.norm(dim=1, keepdim=True)  # 0 / 0 is NaN: such a task says nothing
                self.cosine.setdefault(module, []).append((unit @ unit.T).cpu().numpy())

    def summary(self) -> dict[str, Any]:
        """Means over the measurements, of affinity with their standard errors; conflict: the share of cosines < 0."""
        z = np.array(self.affinity)
        if not len(z):
            return {"measurements": 0, "affinity": None, "cosine": {}}
        count = np.maximum((~np.isnan(z)).sum(axis=0), 1)
        mean = _mean(z)
        error = np.sqrt(_mean((z - mean) ** 2) / count)
        cosine = {}
        for module, found in self.cosine.items():
            c = np.array(found)
            conflict = _mean(np.where(np.isnan(c), np.nan, c < 0))
            cosine[module] = {"mean": plain(_mean(c)), "conflict": plain(conflict)}
        return {"measurements": len(z), "affinity": {"mean": plain(mean), "error": plain(error)}, "cosine": cosine}


@contextmanager
def watched(method: Method, watch: Watch, every: int = EVERY) -> Iterator[None]:
    """Measures on the batch of every ``every``-th step before the step is made, as long as the context lasts."""
    step = method.step

    def measured(batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
        if watch.steps % every == 0:
            watch.measure(method, batch, optimizer)
        watch.steps += 1
        return step(batch, optimizer)

    method.__dict__["step"] = measured
    try:
        yield
    finally:
        del method.__dict__["step"]


def plain(matrix: np.ndarray) -> list[Any]:
    """Nested lists, None for NaN."""
    return [plain(row) if row.ndim else None if np.isnan(row) else float(row) for row in np.asarray(matrix)]


@contextmanager
def _same_buffers(method: Method) -> Iterator[None]:
    kept = [
        (m._buffers, name, b, b.clone()) for m in method.modules() for name, b in m._buffers.items() if b is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffers, name, buffer, old in kept:
                buffers[name] = buffer.copy_(old)


def _losses(method: Method, batch: Batch) -> Tensor:
    """Losses [T] with the random numbers that come next, which stay the next ones."""
    device = batch.item.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        return method.losses(method(batch), batch)


def _gradient(loss: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    if not loss.requires_grad:
        return [torch.zeros_like(p) for p in parameters]
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
    return [g.to_dense() for g in found]  # of row-wise updates it is sparse


def _adam_length(gradient: list[Tensor]) -> float:
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradient))
    return math.sqrt(sum(int(g.count_nonzero()) for g in gradient)) / norm if norm > 0 else 0.0


@torch.no_grad()
def _lookahead(method: Method, batch: Batch, moved: list[tuple[nn.Parameter, float]], gradient: list[Tensor]) -> Tensor:
    kept = [p.clone() for p, _ in moved]
    try:
        for (p, rate), g in zip(moved, gradient, strict=True):
            p.sub_(g, alpha=rate)
        return _losses(method, batch)
    finally:
        for (p, _), old in zip(moved, kept, strict=True):
            p.copy_(old)


def _module(method: Method, name: str) -> str:
    return name.removeprefix("model.").split(".")[0] if isinstance(method, OnTrunk) else name.split(".")[0]


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the first axis, without NaN; NaN where there is nothing else."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
