"""Checkpoints: a training that is cut off goes on to the same bits, for every method and balancer and in real runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, Bench, Plugin, Start

from bench import check, checkpoint, registry
from bench.api import Method
from bench.checkpoint import Keeper
from bench.data import cache
from bench.train import Fit, evaluate, fit
from methods._tuned import Tuned

EPOCHS, SIZE = 3, 256
Records = Callable[[Path], dict[str, Any]]


class Cut(Exception):
    """A process is killed."""


class Killed(Keeper):
    """Keeps the state at one batch, or at the end, and is killed there."""

    def __init__(self, at: int, key: str = "test") -> None:
        super().__init__(key, 1.0, {})
        self.at, self.batch = at, 0

    def due(self) -> bool:
        self.batch += 1
        return self.batch == self.at

    def keep(self, *given: Any, **loop: Any) -> None:
        super().keep(*given, **loop)
        raise Cut


class Disturbed(Keeper):
    """Goes on in a process with other random numbers."""

    def begin(self, method: Method) -> dict[str, Any] | None:
        torch.manual_seed(99)
        return super().begin(method)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """No checkpoint is left, and no signal waits."""
    yield
    checkpoint._deferred = checkpoint._asked = False
    for path in (cache.root() / "checkpoints").glob("*"):
        path.unlink()


def learn(method: Method, data: Any, keeper: Keeper | None = None, **given: Any) -> Fit:
    usual: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.01, "batch_size": SIZE, "epochs": EPOCHS, "patience": EPOCHS}
    usual |= {"seed": 0, "schedule": "cosine", "warmup": 0.1, "grad_clip": 1.0}
    return fit(method, data.train, data.valid, **usual | given, keeper=keeper)


def batches(data: Any) -> int:
    return len(list(data.train.batches(SIZE, torch.Generator().manual_seed(0))))


def assert_resumes(make: Callable[[], Method], data: Any, **given: Any) -> None:
    """Killed within the second epoch, a training goes on to what it is without: weights, curve, epochs, predictions."""
    torch.use_deterministic_algorithms(True)
    whole = make()
    wanted = learn(whole, data, **given)
    if not wanted.curve:
        return  # nothing is trained step by step
    after = round(batches(data) * (1 - whole.meta_share))
    with pytest.raises(Cut):
        learn(make(), data, Killed(after + after // 2), **given)
    method = make()
    found = learn(method, data, Disturbed("test", 1.0, {}), **given)
    assert found.curve == wanted.curve
    assert found.best_epoch == wanted.best_epoch and found.rows == wanted.rows
    states = whole.state_dict(), method.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert getattr(method, "decisions", []) == getattr(whole, "decisions", [])
    predictions = evaluate(whole, data.valid), evaluate(method, data.valid)
    assert all((value == predictions[1][name]).all() for name, value in predictions[0].items())


def _methods() -> Iterator[Any]:
    """All of them; of those that train a language model, `make test` has the ones with state of their own."""
    for name in sorted(registry.methods()):
        alike = issubclass(registry.load_method(name), Tuned) and name not in ("lora", "unfreeze", "controller", "auto_lambda")
        yield pytest.param(name, marks=[pytest.mark.slow] if alike else [])


@pytest.mark.parametrize("name", list(_methods()))
def test_every_method(name: str) -> None:
    cls = registry.load_method(name)
    data = check.small("sim-shop" if cls.declines(check.small("sim-news").schema) else "sim-news")
    assert_resumes(lambda: check.make(name, data.schema), data)


@pytest.mark.parametrize("name", sorted(registry.entries("balancers")))
def test_every_balancer(name: str) -> None:
    data = check.small("sim-shop")
    own = {"balancer.warmup": 1} if name == "stch" else {}
    assert_resumes(lambda: check.make("shared_bottom", data.schema, balancer=name, **own), data)
