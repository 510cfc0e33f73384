"""The state of a training as plain data and tensors: taken from a method and its optimiser, and put back to the bit."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from bench.api import Method

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


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


def optimizer_state(method: Method, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Returns groups and state of an optimiser, with the names of the parameters in their place."""
    name = {id(p): name for name, p in method.named_parameters()}
    return {
        "groups": [{**group, "params": [name[id(p)] for p in group["params"]]} for group in optimizer.param_groups],
        "state": {name[id(p)]: dict(state) for p, state in optimizer.state.items()},
    }


class Start:
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


def restore_method(method: Method, saved: Mapping[str, Any]) -> None:
    """Brings a newly built method to what ``Start.changes`` gave; raises KeyError where that does not fit."""
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


def packed(state: dict[str, Any], belongs: Mapping[str, Any]) -> bytes:
    """Returns a safetensors file of a state, with ``belongs`` in its metadata."""
    packer = _Packer()
    metadata = {"belongs": json.dumps(belongs), "state": json.dumps(_encode(state, packer.leaf))}
    tensors = {k: t.detach().cpu().contiguous().clone() for k, t in packer.tensors.items()}
    return safetensors.torch.save(tensors, metadata)


def decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Returns the state that was packed, from the JSON of its metadata and its tensors; it loads no code."""
    if isinstance(value, list):
        return [decode(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]].to(value["device"])
    if "tuple" in value:
        return tuple(decode(value["tuple"], tensors))
    if "deque" in value:
        return deque(decode(value["deque"], tensors), value["most"])
    if "dict" in value:
        return {decode(k, tensors): decode(v, tensors) for k, v in value["dict"]}
    module, name = value["dataclass"]
    cls = getattr(sys.modules[module], name)  # of code that is loaded already: a file cannot load any
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise TypeError(f"{name} is no dataclass")
    return cls(**decode(value["fields"], tensors))
