"""Updates embeddings row by row: a step moves only the rows of a table that its batch has named."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.api import Method
from bench.nn.architecture import OnTrunk


def refuse(method: Method, grad_clip: float) -> None:
    """Raises ValueError where something besides the optimiser reads the gradient of the table, which is sparse."""
    wants = "embedding_updates 'rows' leaves no dense gradient for"
    for part in method.modules():
        if isinstance(part, Method):
            own = type(part).step not in (Method.step, OnTrunk.step) or type(part).backward is not Method.backward
            if own:
                raise ValueError(f"{wants} the update of {type(part).__name__}, which is its own: use 'dense'")
        elif getattr(part, "at", "") == "parameters":
            raise ValueError(f"{wants} a balancer of gradients at parameters: use 'dense', or take them elsewhere")
    if grad_clip > 0:
        raise ValueError(f"{wants} grad_clip {grad_clip:g}: use 'dense', or 0")


def update_rows(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Updates every parameter with a sparse gradient before a step of AdamW, which then skips it.

    AdamW's equations (Loshchilov and Hutter, ICLR 2019, algorithm 2) on the rows [n, ...] that have a gradient, with
    the number of all steps in the bias correction. The moments of other rows do not decay, and other rows neither move
    nor decay, whereas dense AdamW moves each row on after a batch that named it. So the first step is dense AdamW's, as
    is every step where a batch names all rows; else training is another one (lazy Adam).
    """
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is not None and p.grad.is_sparse:
                _adamw(p, group, optimizer.state[p])
                p.grad = None


@torch.no_grad()
def _adamw(p: Tensor, group: dict[str, Any], state: dict[str, Tensor]) -> None:
    if not state:
        state["step"] = torch.zeros((), device=p.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
    state["step"] += 1
    (beta1, beta2), lr = group["betas"], group["lr"]
    rows, gradient = _summed(p.grad)
    first = state["exp_avg"].index_select(0, rows).lerp_(gradient, 1 - beta1)
    second = state["exp_avg_sq"].index_select(0, rows).mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    state["exp_avg"].index_copy_(0, rows, first)
    state["exp_avg_sq"].index_copy_(0, rows, second)
    # The number of steps stays a tensor: a GPU is not waited for.
    upper = first.mul_(lr / (1 - beta1 ** state["step"]))
    lower = second.sqrt_().div_((1 - beta2 ** state["step"]).sqrt()).add_(group["eps"])
    kept = p.index_select(0, rows).mul_(1 - lr * group["weight_decay"])
    p.index_copy_(0, rows, kept.addcdiv_(upper, lower, value=-1))


def _summed(gradient: Tensor | None) -> tuple[Tensor, Tensor]:
    """The rows that a sparse gradient names, and the sum for each. ``coalesce`` takes several times as long."""
    assert gradient is not None
    rows, place = torch.unique(gradient._indices()[0], return_inverse=True)
    values = gradient._values()
    return rows, values.new_zeros(len(rows), *values.shape[1:]).index_add_(0, place, values)
