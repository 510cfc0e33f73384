"""Checkpoints: the state of a training under way, in one file; a killed run goes on from it to the same bits."""

from __future__ import annotations

import dataclasses
import itertools
import json
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from bench.api import Method
from bench.data import cache
from bench.errors import BenchError, Terminated
from bench.store import clear_abandoned, write_atomically

FORMAT = 1
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_asked = False  # SIGTERM has come
_deferred = False  # and waits for the end of a batch


def catch_sigterm() -> Any:
    """From now on SIGTERM raises Terminated here: at once or, in a training that has a keeper, at the end of a batch,
    when its state has been kept. To be called in the main thread; returns the former handler."""
    global _asked
    _asked = False
    return signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    global _asked
    _asked = True
    if not _deferred:
        raise Terminated


class Keeper:
    """Keeps the trainings of one run: ``checkpoints/<key>[-stage].safetensors`` in the cache, every ``minutes``.

    belongs: what else must be the same for a file to be of use: data, code, device. A file of other things, or a
    damaged one, is reported and left out of account.
    """

    def __init__(self, key: str, minutes: float, belongs: Mapping[str, Any]) -> None:
        self.key, self.interval = key, 60 * minutes
        self.belongs = {"format": FORMAT, "torch": torch.__version__, **belongs}
        self.stage = ""
        clear_abandoned(_folder())
        self._next = time.monotonic() + self.interval

    @contextmanager
    def at(self, *stage: str) -> Iterator[None]:
        """A block in which one of the run's trainings happens. From its first batch on SIGTERM waits for ``due``."""
        global _deferred
        self.stage = "-".join(filter(None, stage))
        try:
            yield
        finally:
            _deferred = False
        if _asked:
            raise Terminated

    @property
    def path(self) -> Path:
        """The file of the present stage."""
        return _folder() / f"{self.key}{'-' * bool(self.stage)}{self.stage}.safetensors"

    def begin(self, method: Method) -> dict[str, Any] | None:
        """At the start of a training, when all that is built has been built. Brings the method to the state that was
        kept, if one was, and returns it. Raises BenchError if it does not fit."""
        global _deferred
        _deferred = True
        self._start = _Start(method)
        saved = self._read()
        if saved is not None:
            try:
                _restore(method, saved["method"])
            except (KeyError, AttributeError, RuntimeError, TypeError, ValueError) as error:
                raise BenchError(f"{self.path} does not hold the state of this run; delete it, run again") from error
        return saved

    def changed(self, module: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
        """What of a former state of a module, as ``state_dict`` gives it, a newly built one need not have."""
        present = module.state_dict(keep_vars=True)
        return {name: value for name, value in state.items() if self._start.has_changed(present[name])}

    def due(self) -> bool:
        """Is it time to ``keep``?"""
        return _asked or time.monotonic() >= self._next

    def ended(self) -> bool:
        """The same at the end of a training: it is also kept if an earlier state of it was."""
        return self.due() or self.path.exists()

    def keep(self, method: Method, optimizer: torch.optim.Optimizer, **loop: Any) -> None:
        """Writes the state of method, optimiser and generators, and of the training loop. Raises Terminated then if
        SIGTERM has come. Where it cannot be kept, that is reported, and the training goes on without."""
        try:
            devices = [p.device for p in itertools.islice(method.parameters(), 1) if p.device.type == "cuda"]
            state = {
                **loop,
                "method": self._start.changes(),
                "optimizer": _of_optimizer(method, optimizer),
                "random": [torch.get_rng_state(), *map(torch.cuda.get_rng_state, devices)],
            }
            write_atomically(self.path, _packed(state, self.belongs))
            self._next = time.monotonic() + self.interval
        except (BenchError, TypeError) as error:
            print(f"bench: no checkpoints of {self.key} ({error.__cause__ or error})", file=sys.stderr, flush=True)
            self._next = float("inf")
        if _asked:
            raise Terminated

    def _read(self) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        try:
            with safetensors.safe_open(self.path, "pt") as file:
                metadata = file.metadata() or {}
                if json.loads(metadata["belongs"]) == self.belongs:
                    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
                    return dict(_decode(json.loads(metadata["state"]), tensors))
                why = "is of other data, code or hardware"
        except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError):
            why = "is damaged"
        print(f"bench: {self.path} {why}; the run starts anew", file=sys.stderr, flush=True)
        return None


def discard(key: str) -> None:
    """Removes all checkpoints of a run."""
    for path in _folder().glob(f"{key}*.safetensors"):
        path.unlink(missing_ok=True)


def restore_training(method: Method, optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Brings a newly built optimiser and torch's generators to the state that was kept."""
    parameters = dict(method.named_parameters())
    optimizer.param_groups.clear()
    for group in saved["optimizer"]["groups"]:
        optimizer.add_param_group({**group, "params": [parameters[name] for name in group["params"]]})
    for name, state in saved["optimizer"]["state"].items():
        optimizer.state[parameters[name]] = state
    cpu, *cuda = saved["random"]
    torch.set_rng_state(cpu)
    for state in cuda:
        torch.cuda.set_rng_state(state, next(method.parameters()).device)


def _folder() -> Path:
    return cache.root() / "checkpoints"


def _of_optimizer(method: Method, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    name = {id(p): name for name, p in method.named_parameters()}
    return {
        "groups": [{**group, "params": [name[id(p)] for p in group["params"]]} for group in optimizer.param_groups],
        "state": {name[id(p)]: dict(state) for p, state in optimizer.state.items()},
    }


class _Start:
    """A method when its training begins. What has not changed since is not kept: a resumed run builds it again."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.versions = {id(t): (t, t._version) for t in [*method.parameters(), *method.buffers()]}
        self.alive: list[Any] = []  # so that an id stands for one object
        self.prints = {place: _print(value, self.alive) for place, value in _attributes(method)}

    def has_changed(self, value: Any) -> bool:
        """Is it trained, or no tensor of the start, or one that has been written to?"""
        fixed = isinstance(value, Tensor) and not value.requires_grad and id(value) in self.versions
        return not fixed or self.versions[id(value)][1] != value._version

    def changes(self) -> dict[str, Any]:
        """Tensors of the state, buffers that are none of it, attributes of all modules, and what is trained."""
        method = self.method
        state = method.state_dict(keep_vars=True)
        buffers = {name: b for name, b in method.named_buffers() if name not in state}
        return {
            "state": {name: t for name, t in state.items() if self.has_changed(t)},
            "buffers": {name: t for name, t in buffers.items() if self.has_changed(t)},
            "attributes": list(self._attributes()),
            "trained": [name for name, p in method.named_parameters() if p.requires_grad],
        }

    def _attributes(self) -> Iterator[tuple[str, str, Any]]:
        remakes = any(type(m).on_resume is not Method.on_resume for m in self.method.modules() if isinstance(m, Method))
        for (path, name), value in _attributes(self.method):
            now = _print(value, [])
            if now is not None and now == self.prints.get((path, name)):
                continue
            if isinstance(value, torch.Generator):
                value = value.get_state()
            elif isinstance(value, torch.optim.Optimizer):
                value = value.state_dict()
            try:
                _encode(value, _Packer().leaf)
            except TypeError as error:
                if not remakes:
                    place = f"{path}.{name}" if path else name
                    raise TypeError(f"attribute '{place}': {error}; see Method.on_resume") from None
            else:
                yield path, name, value


def _restore(method: Method, saved: Mapping[str, Any]) -> None:
    trained = {*saved["trained"]}
    for name, p in method.named_parameters():
        p.requires_grad_(name in trained)
    if unknown := method.load_state_dict(saved["state"], strict=False).unexpected_keys:
        raise KeyError(unknown[0])
    buffers = dict(method.named_buffers())
    for name, value in saved["buffers"].items():
        buffers[name].copy_(value)
    for path, name, value in saved["attributes"]:
        module = method.get_submodule(path)
        present = vars(module).get(name)
        if isinstance(present, torch.Generator):
            present.set_state(value)
        elif isinstance(present, torch.optim.Optimizer):
            present.load_state_dict(value)
        else:
            setattr(module, name, value)
    for part in method.modules():
        if isinstance(part, Method):
            part.on_resume()


def _attributes(method: Method) -> Iterator[tuple[tuple[str, str], Any]]:
    """The own attributes of all modules, by module and name; without those that belong to the batch at hand, as their
    tensors have a graph behind them."""
    for path, module in method.named_modules():
        for name, value in vars(module).items():
            if name not in _OF_EVERY_MODULE and not _any(value, lambda v: isinstance(v, Tensor) and not v.is_leaf):
                yield (path, name), value


def _any(value: Any, test: Callable[[Any], bool]) -> bool:
    found: list[bool] = []
    _encode(value, lambda v: found.append(test(v)))
    return any(found)


def _print(value: Any, alive: list[Any]) -> str | None:
    """A text that stays the same as long as an attribute does; None if that cannot be said of it."""
    changing = (Tensor, torch.Generator, torch.optim.Optimizer)
    if _any(value, lambda v: isinstance(v, changing) and not isinstance(v, nn.Parameter)):
        return None

    def leaf(value: Any) -> Any:
        alive.append(value)
        return {"id": id(value)}

    return json.dumps(_encode(value, leaf))


def _encode(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """Plain values and containers of them as JSON; ``leaf`` gives that of all others."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if type(value) is list:
        return [_encode(v, leaf) for v in value]
    if type(value) is tuple:
        return {"tuple": [_encode(v, leaf) for v in value]}
    if type(value) is deque:
        return {"deque": [_encode(v, leaf) for v in value], "most": value.maxlen}
    if type(value) is dict:
        return {"dict": [[_encode(k, leaf), _encode(v, leaf)] for k, v in value.items()]}
    return leaf(value)


class _Packer:
    """Collects the tensors of what is encoded; one that is met twice is kept once."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.tensors: dict[str, Tensor] = {}

    def leaf(self, value: Any) -> Any:
        """JSON that names the tensor, or the dataclass with its fields. Raises TypeError for all else."""
        if isinstance(value, Tensor):
            name = self.names.setdefault(id(value), str(len(self.names)))
            self.tensors[name] = value
            return {"tensor": name, "device": value.device.type}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            cls = type(value)
            own = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            return {"dataclass": [cls.__module__, cls.__qualname__], "fields": _encode(own, self.leaf)}
        raise TypeError(f"{type(value).__name__} is no plain data")


def _packed(state: dict[str, Any], belongs: Mapping[str, Any]) -> bytes:
    packer = _Packer()
    metadata = {"belongs": json.dumps(belongs), "state": json.dumps(_encode(state, packer.leaf))}
    tensors = {k: t.detach().cpu().contiguous().clone() for k, t in packer.tensors.items()}
    return safetensors.torch.save(tensors, metadata)


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]].to(value["device"])
    if "tuple" in value:
        return tuple(_decode(value["tuple"], tensors))
    if "deque" in value:
        return deque(_decode(value["deque"], tensors), value["most"])
    if "dict" in value:
        return {_decode(k, tensors): _decode(v, tensors) for k, v in value["dict"]}
    module, name = value["dataclass"]
    cls = getattr(sys.modules[module], name)  # of code that is loaded already: a file cannot load any
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise TypeError(f"{name} is no dataclass")
    return cls(**_decode(value["fields"], tensors))
