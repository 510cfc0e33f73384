"""The optimiser of a method: what is trained, at which rate, with which decay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from bench.api import Method
from bench.nn.features import FeatureInputs
from bench.nn.lazy_adam import update_rows


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


def clip_gradients(modules: Sequence[nn.Module], most: float, *_: object) -> None:
    """Scales the gradient of each module down to the norm ``most`` if it is larger; a hook of the optimiser."""
    for module in modules:
        nn.utils.clip_grad_norm_(module.parameters(), most)
