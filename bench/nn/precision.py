"""Trains in mixed precision: a method's forward pass and losses run under autocast."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from bench.api import Batch, Method
from bench.machine.device import multiplies_bfloat16

_PRODUCTS: frozenset[Callable[..., Any]] = frozenset(
    {
        F.linear,
        F.scaled_dot_product_attention,
        torch.matmul,
        torch.mm,
        torch.bmm,
        torch.addmm,
        torch.baddbmm,
        torch.einsum,
        Tensor.matmul,
        Tensor.__matmul__,
        Tensor.__rmatmul__,
        Tensor.mm,
        Tensor.bmm,
    }
)


class Float32Products(TorchFunctionMode):
    """Computes products of half-precision numbers with instructions for float32.

    Factors are rounded as autocast does, multiplied and added up in float32, and the result is rounded, forward and
    backward.

    That is what a processor with instructions for bfloat16 does too, but for the order of the additions. Where they are
    missing, torch multiplies in loops that take about ten times as long as this.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Calls a function of torch, in float32 if it is a product."""
        kwargs = kwargs or {}
        if func not in _PRODUCTS:
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            result: Tensor = func(*map(self._rounded, args), **{k: self._rounded(v) for k, v in kwargs.items()})
        return result.to(self.dtype)

    def _rounded(self, value: Any) -> Any:
        return value.to(self.dtype).float() if isinstance(value, Tensor) and value.is_floating_point() else value


@contextmanager
def mixed(device: str, dtype: torch.dtype) -> Iterator[None]:
    """Runs the block under autocast, in the way that is fast on this processor."""
    with torch.autocast(device, dtype):
        if device == "cpu" and not multiplies_bfloat16():
            with Float32Products(dtype):
                yield
        else:
            yield


def autocast(cls: type[Method], dtype: torch.dtype) -> type[Method]:
    """Returns a subclass with ``forward`` and ``losses`` in mixed precision.

    Parameters, their gradients and outputs stay float32.
    """

    def forward(self: Method, batch: Batch) -> dict[str, Tensor]:
        with mixed(batch.item.device.type, dtype):
            return {name: output.float() for name, output in cls.forward(self, batch).items()}

    def losses(self: Method, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        with mixed(batch.item.device.type, dtype):
            return cls.losses(self, outputs, batch)

    members = {"forward": forward, "losses": losses, "__module__": cls.__module__, "__doc__": cls.__doc__}
    members["data_parallel"] = cls.data_parallel
    return type(cls.__name__, (cls,), members)
