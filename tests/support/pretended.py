"""A device that is not there: tensors that say they are on it, compute on the CPU, and refuse what a GPU refuses.

PyTorch's fake tensors know no values, so that they cannot pass a mask, ``torch.unique`` or a language model's batches
of like length. These do: each holds the real tensor, and the results are those of the CPU. The device is called
``meta`` because a build for the CPU knows no other.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModel

DEVICE = torch.device("meta")
aten = torch.ops.aten

# Where both may meet: copies, indices (moved to what they index) and what tells the shape alone.
MEET = {aten.copy_.default, aten.index.Tensor, aten.index_put_.default, aten.index_put.default}
# What torch.use_deterministic_algorithms refuses on CUDA, of what works on a CPU.
RANDOM_ON_CUDA = {aten.put_.default, aten.histc.default, aten.kthvalue.default, aten.median.dim}

# Their result, or its size, must be known before the CPU goes on.
UNKNOWN_SIZE = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.repeat_interleave.Tensor,
    aten.equal.default,
}


class Misplaced(RuntimeError):
    """What CUDA would refuse."""


class There(Tensor):
    """A tensor on the pretended device. ``held``: the real one."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> There:
        made: There = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:
        return f"There({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Values(TorchFunctionMode):
    """``torch.tensor``, its like and lists of indices fill a tensor on the real ``meta`` with nothing; here they are
    made, then moved."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            return func(*args, **{**kwargs, "device": "cpu"}).to(kwargs["device"])
        if func is Tensor.new_tensor and isinstance(args[0], There):
            own = {"dtype": args[0].dtype, **kwargs, "device": "cpu"}
            return torch.tensor(*args[1:], **own).to(kwargs.get("device") or DEVICE)
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], There):
            places = args[1] if isinstance(args[1], tuple) else (args[1],)
            return func(args[0], tuple(torch.tensor(p) if isinstance(p, list) else p for p in places), *args[2:])
        if func is Tensor.tolist and isinstance(args[0], There):
            return args[0].cpu().tolist()
        return func(*args, **kwargs)


@contextmanager
def device() -> Iterator[torch.device]:
    """The pretended device, as long as the context lasts."""
    swap = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # a module's parameters stay the same objects
    fused = "torch.optim.optimizer._get_fused_kernels_supported_devices"
    try:
        with (
            patch(fused, lambda: ["cpu", DEVICE.type]),
            patch.object(AutoModel, "from_pretrained", partial(_undisturbed, AutoModel.from_pretrained)),
            patch("torch._C._InferenceMode", lambda _: torch.no_grad()),  # it knows no tensors of a class of their own
            warnings.catch_warnings(action="ignore", category=UserWarning),  # that loading a state is without effect
            _Values(),
            _Dispatch(),
        ):
            yield DEVICE
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swap)


class _Waits(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        source = args[1] if func is aten.copy_.default else args[0] if args else None
        if isinstance(source, There):
            sizes = func in UNKNOWN_SIZE and kwargs.get("output_size") is None
            masks = func in MEET - {aten.copy_.default} and any(
                isinstance(t, Tensor) and t.dtype == torch.bool for t in _leaves(args[1])
            )
            back = func is aten._to_copy.default and torch.device(kwargs.get("device") or DEVICE) != DEVICE
            if sizes or masks or back or (func is aten.copy_.default and not isinstance(args[0], There)):
                self.found.append(str(func))
        return func(*args, **kwargs)


@contextmanager
def waits() -> Iterator[list[str]]:
    """Within ``device``: the operations at which the CPU would wait for the GPU."""
    with _Waits() as mode:
        yield mode.found


def _undisturbed(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Loading a language model uses the real ``meta``."""
    with no_dispatch():
        return call(*args, **kwargs)


def _compute(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = [x for x in _leaves((*args, *kwargs.values())) if isinstance(x, Tensor)]
    there = [x for x in tensors if isinstance(x, There)]
    wanted = kwargs.get("device")
    target = torch.device(wanted) if wanted is not None else DEVICE if there else torch.device("cpu")
    if there:
        _refuse(func, args, kwargs, [x for x in tensors if not isinstance(x, There)], there)
    if target == DEVICE and isinstance(generator := kwargs.get("generator"), torch.Generator):
        raise Misplaced(f"{func}: a generator on {generator.device} for a tensor on the device")
    if target == DEVICE and not there and tensors and func is not aten._to_copy.default and wanted is None:
        raise Misplaced(f"{func}: no tensor is on the device")
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    own = {id(x.held): x for x in there}
    result = func(*_each(_held, args), **{key: _each(_held, value) for key, value in kwargs.items()})
    if there and torch.Tag.inplace_view in func.tags:
        with no_dispatch():
            func(*args, **kwargs)  # the shape that it says it has
    if target != DEVICE and not (there and wanted is None):
        return result.clone() if isinstance(result, Tensor) and id(result) in own else result

    def placed(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return own[id(x)] if id(x) in own else There(x)

    return _each(placed, result)


def _held(x: Any) -> Any:
    return x.held if isinstance(x, There) else x


def _leaves(values: Iterable[Any]) -> Iterator[Any]:
    """What lies in arguments of an operation, which nest nothing but sequences; ``pytree`` takes far longer."""
    for x in values:
        if isinstance(x, tuple | list):
            yield from _leaves(x)
        else:
            yield x


def _each(do: Callable[[Any], Any], x: Any) -> Any:
    return type(x)([_each(do, y) for y in x]) if isinstance(x, tuple | list) else do(x)


def _refuse(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], here: list[Tensor], there: list[There]) -> None:
    """Raises Misplaced for what CUDA does not compute, or not repeatably."""
    scalar = torch.Tag.pointwise in func.tags or func in MEET
    if func is aten.copy_.default:
        pass
    elif func in MEET and isinstance(args[0], There):
        values = args[2:3]
        if any(isinstance(v, Tensor) and not isinstance(v, There) and v.ndim for v in values):
            raise Misplaced(f"{func}: the values are on the CPU, what they are put into is on the device")
    elif bad := [tuple(x.shape) for x in here if x.ndim or not scalar or (args[0] is x and func._schema.is_mutable)]:
        raise Misplaced(f"{func}: tensors of shapes {bad} are on the CPU, the others on the device")
    refused = (
        func in RANDOM_ON_CUDA
        or (func is aten.bincount.default and (len(args) > 1 or "weights" in kwargs))
        or (func is aten.cumsum.default and args[0].is_floating_point())
    )
    if refused and torch.are_deterministic_algorithms_enabled():
        raise Misplaced(f"{func} has no deterministic implementation on CUDA")
