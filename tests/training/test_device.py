"""Every method trains and evaluates on another device than the CPU: on a pretended one everywhere, on a GPU if any."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench import registry
from bench.api import Batch, Method
from bench.spec.settings import own_settings
from bench.suites.specify import specify
from bench.training.contract import SMALL, make, small, tiny_language_model
from bench.training.optimizer import optimizer_for
from bench.training.predict import evaluate
from bench.training.session import TrainingView, trained
from tests.support import pretended
from tests.support.alike import LIKE_LORA

METHODS = sorted(registry.methods())
BALANCERS = sorted(registry.entries("balancers"))
GROUPS = 30  # of the training part: one batch, so that an epoch is one step
TWO_STAGES = ("controller", "distill", "lp_ft", "unfreeze")  # whose second epoch is another than the first


def gpu(test: Callable[..., None]) -> Callable[..., None]:
    """A test that needs one."""
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")(test))


def outcome(
    name: str, device: torch.device, epochs: int = 1, **given: Any
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Curve and predictions of a run by the engine, teachers and pilot runs included."""
    data = small("sim-news")
    if registry.load_method(name).declines(data.schema):
        data = small("sim-shop")  # a funnel
    settings = own_settings(registry.load_method(name))
    if "lm" in settings:
        given["lm"] = tiny_language_model()
    if "tokens" in settings:
        given["tokens"] = 1000  # to pretrain on
    spec = specify("sim-news", name, given=given, knobs=SMALL, budget={"epochs": epochs, "patience": epochs})
    few: dict[str, Any] = {"train": data.train.cut(GROUPS)[0], "valid": data.valid.cut(GROUPS // 2)[0]}
    method, done = trained(spec, replace(TrainingView.of(data), **few), device)
    assert {t.device.type for t in [*method.parameters(), *method.buffers()]} <= {device.type}
    return done.curve, evaluate(method, data.test)


@lru_cache(maxsize=1)
def on_the_cpu(name: str) -> list[dict[str, Any]]:
    """The curve of one epoch."""
    return outcome(name, torch.device("cpu"))[0]


def same(name: str, epochs: int = 1, **given: Any) -> None:
    """On the pretended device a run gives what it gives on the CPU: no operation was left out, and no tensor behind.

    The losses of the first epoch, one step, are those of the same weights, under any balancer. After it, Adam makes
    full steps of gradients that are rounding alone.
    """
    with pretended.device() as device:
        curve, predictions = outcome(name, device, epochs, **given)
    expected = on_the_cpu(name)
    assert len(curve) == epochs * len(expected)
    if curve:
        assert curve[0]["loss"] == pytest.approx(expected[0]["loss"], rel=1e-5)
    assert all(np.isfinite(values).all() for values in predictions.values())


def test_a_list_picks_on_the_pretended_device_what_it_does_elsewhere() -> None:
    there = torch.arange(9.0).reshape(3, 3)
    with pretended.device() as device:
        there = there.to(device)
        assert there[[2, 0]][:, [1]].tolist() == [[7.0], [1.0]]


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LIKE_LORA)) for n in METHODS])
def test_method(name: str) -> None:
    same(name, epochs=2 if name in TWO_STAGES else 1)


@pytest.mark.parametrize("balancer", BALANCERS)
def test_balancer(balancer: str) -> None:
    """Two steps, an end of an epoch between them."""
    same("shared_bottom", epochs=2, balancer=balancer)


def wrong(fault: str) -> type[Method]:
    """Shared-bottom with one fault that the CPU does not see."""

    class Wrong(registry.load_method("shared_bottom")):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.left = torch.zeros(1)  # no buffer
            self.table = torch.zeros(len(self.schema.texts))

        def forward(self, batch: Batch) -> dict[str, Tensor]:
            outputs: dict[str, Tensor] = super().forward(batch)
            click = outputs["click"]
            if fault == "left behind":
                click = click + self.left
            elif fault == "looked up on the CPU":
                click = click + self.table[batch.item]
            elif fault == "made on the CPU":
                click = click * torch.ones(len(click))
            elif fault == "taken as an array":
                click = click + click.detach().numpy().mean()
            elif fault == "another device's generator":
                click = click + torch.rand(len(click), device=click.device, generator=torch.Generator())
            elif fault == "not repeatable":
                click = click + click.detach().cumsum(0)
            elif fault == "put from the CPU":
                click = click.clone()
                click[torch.arange(2, device=click.device)] = self.table[:2]
            return {**outputs, "click": click}

        def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
            losses: Tensor = super().losses(outputs, batch)
            return losses * torch.ones(len(losses)) if fault == "loss on the CPU" else losses

    return Wrong


@pytest.mark.parametrize(
    "fault",
    [
        "left behind",
        "looked up on the CPU",
        "made on the CPU",
        "taken as an array",
        "another device's generator",
        "not repeatable",
        "put from the CPU",
        "loss on the CPU",
    ],
)
def test_a_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each works on the CPU and is refused on the pretended device."""
    monkeypatch.setattr(registry, "load_method", partial(_or, wrong(fault), registry.load_method))
    outcome("shared_bottom", torch.device("cpu"))
    with pretended.device() as device, pytest.raises(RuntimeError, match="CPU|generator|deterministic|numpy"):
        outcome("shared_bottom", device)


def _or(own: type[Method], load: Callable[..., type[Method]], name: str) -> type[Method]:
    return own if name == "shared_bottom" else load(name)


@pytest.mark.parametrize("name", ["shared_bottom", "mmoe", "ple", "esmm"])
def test_a_step_does_not_wait(name: str) -> None:
    """From the batch to the optimiser the CPU never needs a value from the device: it can stay ahead of it.

    A method with texts does: it looks for the different items of a batch.
    """
    data = small("sim-shop" if name == "esmm" else "sim-news")
    train = data.train.cut(2 * GROUPS)[0]
    with pretended.device() as device:
        method = make(name, data.schema).to(device)
        method.on_start(train)
        optimizer = optimizer_for(method, 1e-3, 0.0)
        batches = list(train.to(device).batches(400, torch.Generator().manual_seed(0)))
        with pretended.waits() as found:
            for batch in batches:
                method.step(batch, optimizer)
        assert len(batches) > 1 and found == []
        with pretended.waits() as found:
            method.losses(method(batch), batch).sum().item()
        assert found == ["aten._local_scalar_dense.default"]


def test_evaluation_waits_once_a_task() -> None:
    """Predictions stay on the device until all are there; the split is moved once."""
    data = small("sim-news")
    with pretended.device() as device:
        method = make("shared_bottom", data.schema).to(device)
        there = data.test.to(device)
        with pretended.waits() as found, pytest.MonkeyPatch.context() as patch:
            patch.setattr("bench.training.predict.EVALUATION_ROWS", 50)
            evaluate(method, there)
    assert found == ["aten._to_copy.default"] * len(data.schema.tasks)


@gpu
@pytest.mark.parametrize("name", METHODS)
def test_method_on_a_gpu(name: str) -> None:
    """It trains there, and the same seed gives the same numbers to the bit."""
    (curve, first), (again, second) = (outcome(name, torch.device("cuda")) for _ in range(2))
    assert curve == again
    for task, values in first.items():
        assert np.isfinite(values).all() and np.array_equal(values, second[task])


@gpu
@pytest.mark.parametrize("balancer", BALANCERS)
def test_balancer_on_a_gpu(balancer: str) -> None:
    curve, predictions = outcome("mmoe", torch.device("cuda"), balancer=balancer)
    assert curve and all(np.isfinite(values).all() for values in predictions.values())


@gpu
def test_a_gpu_predicts_what_the_cpu_does() -> None:
    data = small("sim-news")
    method = make("mmoe", data.schema)
    expected = evaluate(method, data.test)
    for task, values in evaluate(method.to("cuda"), data.test).items():
        np.testing.assert_allclose(values, expected[task], rtol=1e-3, atol=1e-5)
