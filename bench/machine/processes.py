"""One run on several processes (torchrun, accelerate launch): a share of each batch each, and the mean gradient."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from bench.api import Balancer, Batch, Method, Task, several
from bench.errors import BenchError
from bench.spec import derive_seed

T = TypeVar("T")


def rank() -> int:
    """The number of this process, from 0; the first one speaks and stores for all."""
    return distributed.get_rank() if several() else 0


def size() -> int:
    """How many processes share this run."""
    return distributed.get_world_size() if several() else 1


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Joins the processes that were started with this one, if any; gives the device of this one.

    All but the first are silent. Raises BenchError where a process has no GPU of its own, or loses the others.
    """
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys() or os.environ["WORLD_SIZE"] == "1":
        yield device
        return
    if device.type == "cuda":
        place, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if place >= there:
            raise BenchError(f"process {place + 1} of this machine has no GPU: it has {there}; start no more processes")
        device = torch.device("cuda", place)
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        if rank() == 0:
            yield device
        else:
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield device
    except RuntimeError as error:
        if lost(error):
            raise BenchError(f"process {rank() + 1} of {size()}: another one has ended, see there") from error
        raise
    distributed.destroy_process_group()  # not after an error: it could wait for processes that are gone


def lost(error: Exception) -> bool:
    """Whether an error says that the connection to the other processes broke."""
    return traceback.extract_tb(error.__traceback__)[-1].filename == distributed.distributed_c10d.__file__


def check(method: Method) -> None:
    """Raises BenchError if several processes would train something else than one process does."""
    if not several():
        return
    first = method.balancer.pilot() if method.balancer is not None else None
    for part in [*method.modules(), *(first.modules() if first is not None else ())]:
        taught = isinstance(part, Method) and part.teacher  # one process trains it while the others wait
        if taught or not getattr(part, "data_parallel", True):
            raise BenchError(
                f"{_named(part)} needs whole batches, which several processes do not have: run it without torchrun, or "
                "choose another (docs/devices.md)"
            )


def _named(part: nn.Module) -> str:
    """Returns what the user calls a module: a method or a balancer by its file, all else by its class."""
    name = type(part).__module__.rpartition(".")[2].removeprefix("bench_plugin_")
    kinds = {Method: "method", Balancer: "balancer"}
    return next((f"{kind} '{name}'" for cls, kind in kinds.items() if isinstance(part, cls)), type(part).__name__)


def agreed(value: T) -> T:
    """The first process's value, for all."""
    if not several():
        return value
    box = [value]
    distributed.broadcast_object_list(box)
    return box[0]


def draw_apart(seed: int) -> None:
    """From here on, what is drawn (dropout, augmentation) differs between processes, as their rows do."""
    if several():
        torch.manual_seed(derive_seed(f"process {rank()}", seed))


def share(batch: Batch, tasks: Sequence[Task]) -> Batch:
    """This process's part of a batch: whole groups one after another, about as many rows as the others have.

    Where there is none for it, it gets one without labels, so that it takes part in every pass.
    """
    if not several():
        return batch
    rows, groups = batch.item.shape[0], batch.history.shape[0]
    cuts = [0, *(int(batch.group[rows * i // size()]) for i in range(1, size())), groups]
    first, last = cuts[rank() : rank() + 2]
    none, last = first == last, max(last, first + 1)
    start, stop = torch.searchsorted(batch.group, batch.group.new_tensor([first, last])).tolist()
    cut = {"user": slice(first, last), "pair": slice(start, stop)}
    labels = {t.name: batch.labels[t.name][cut[t.scope]] for t in tasks}
    return replace(
        batch,
        **{name: getattr(batch, name)[cut["user"]] for name in ("user_cat", "user_num", "history")},
        **{name: getattr(batch, name)[cut["pair"]] for name in ("item", "pair_cat", "pair_num")},
        group=batch.group[cut["pair"]] - first,
        labels={name: torch.full_like(label, torch.nan) if none else label for name, label in labels.items()},
    )


def average(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Before a step: the mean gradient over processes. A parameter without one on some counts as 0 there; one without
    a gradient on all stays without."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    has = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    flat = torch.cat([has, *((torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters)])
    distributed.all_reduce(flat)
    flat /= size()
    pieces = torch.split(flat[len(has) :], [p.numel() for p in parameters])
    for p, reached, piece in zip(parameters, flat[: len(has)].tolist(), pieces, strict=True):
        p.grad = piece.view_as(p) if reached else None


def union(places: Tensor, count: int) -> Tensor:
    """All that any process names of the places 0 ... count - 1, in order."""
    if not several():
        return places
    named = torch.zeros(count, dtype=torch.uint8, device=places.device)
    named[places] = 1
    distributed.all_reduce(named, distributed.ReduceOp.MAX)
    return named.nonzero().flatten()


def spread(parts: Sequence[Tensor], compute: Callable[[Tensor], Tensor], width: int, device: torch.device) -> Tensor:
    """``compute(part)`` [len(part), width] of all parts, one after another: each process computes some and gets all."""
    if not several():
        return torch.cat([compute(part) for part in parts])
    result = torch.zeros(sum(map(len, parts)), width, device=device)
    for i, (part, piece) in enumerate(zip(parts, torch.split(result, [*map(len, parts)]), strict=True)):
        if i % size() == rank():
            piece.copy_(compute(part))
    distributed.all_reduce(result)  # every row is zero on all processes but one
    return result
