"""Checkpoints: the state of a training under way, in one file; a killed run goes on from it to the same bits."""

from __future__ import annotations

import itertools
import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import safetensors.torch
import torch
from torch import nn

from bench.api import Method
from bench.errors import BenchError, Terminated
from bench.storage import cache
from bench.storage.atomic import clear_abandoned, write_atomically
from bench.training.snapshot import Start, decode, optimizer_state, packed, restore_method

FORMAT = 2

_asked = False  # SIGTERM has come
_deferred = False  # and waits for the end of a batch


def catch_sigterm() -> Any:
    """From now on SIGTERM raises Terminated here: at once or, in a training with checkpoints, at the end of a batch,
    when its state has been kept. To be called in the main thread; returns the former handler."""
    global _asked
    _asked = False
    return signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    global _asked
    _asked = True
    if not _deferred:
        raise Terminated


class Checkpointer:
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
        self._start = Start(method)
        saved = self._read()
        if saved is not None:
            try:
                restore_method(method, saved["method"])
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
        """Is the end of a training to be kept? Also if an earlier state of it was."""
        return self.due() or self.path.exists()

    def keep(self, method: Method, optimizer: torch.optim.Optimizer, loop: Any) -> None:
        """Writes the state of method, optimiser and generators, and of the loop, a dataclass. Raises Terminated then if
        SIGTERM has come. Where it cannot be kept, that is reported, and the training goes on without."""
        try:
            devices = [p.device for p in itertools.islice(method.parameters(), 1) if p.device.type == "cuda"]
            state = {
                "loop": loop,
                "method": self._start.changes(),
                "optimizer": optimizer_state(method, optimizer),
                "random": [torch.get_rng_state(), *map(torch.cuda.get_rng_state, devices)],
            }
            write_atomically(self.path, packed(state, self.belongs))
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
                    return dict(decode(json.loads(metadata["state"]), tensors))
                why = "is of other data, code or hardware"
        except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError):
            why = "is damaged"
        print(f"bench: {self.path} {why}; the run starts anew", file=sys.stderr, flush=True)
        return None


def discard(key: str) -> None:
    """Removes all checkpoints of a run."""
    for path in _folder().glob(f"{key}*.safetensors"):
        path.unlink(missing_ok=True)


def _folder() -> Path:
    return cache.root() / "checkpoints"
