"""Sums over the processes that share a run."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, distributed


def several() -> bool:
    """Whether several processes share this run."""
    return distributed.is_available() and distributed.is_initialized()


def batch_mean(total: Tensor, count: Tensor) -> Tensor:
    """Returns ``total / count`` (0 if nothing counts), a sum over rows and their number, of the whole batch.

    Where several processes share the batch, each gives what it has of both and all get the same. The gradient is that
    of its own rows times the number of processes: the mean over processes, which the engine takes, is the batch's.
    """
    if several():
        total, count = cast(Tensor, _Whole.apply(torch.stack([total, count.to(total.dtype)])))  # type: ignore[no-untyped-call]
    return total / count.clamp(min=1)


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        result = part.clone()
        distributed.all_reduce(result)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * distributed.get_world_size()
