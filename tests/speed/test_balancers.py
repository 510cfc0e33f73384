"""What each balancer costs a step, as a ratio to `uniform` in the same run.

tox -e speed        (or: make speed)
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from bench import registry
from bench.data.load import load
from bench.data.prepare import prepare
from bench.machine.device import set_up
from bench.spec import config
from bench.spec.settings import own_settings
from bench.training.build import build
from bench.training.optimizer import optimizer_for
from tests.speed.peers import BATCH, LR, Engine, generate
from tests.speed.report import report

ROUNDS, STEPS = 12, 4
LIMITS = {"pcgrad": 1.5, "upgrad": 1.5}  # at the representation, in a model so small that the solvers show
AT_FULL_SIZE = ("pcgrad", "cagrad", "mgda", "nash_mtl", "upgrad")
LIMIT = 1.15


@pytest.mark.parametrize("architecture", ["shared_bottom", "mmoe"])
def test_cost_of_a_step_at_full_size(architecture: str) -> None:
    """CPU time on one thread in the models that the engine and other libraries are compared on, two tasks."""
    torch.set_num_threads(1)
    table = generate(STEPS * BATCH, 1)
    set_up()
    steps: dict[str, Callable[[], float]] = {}

    def prepared(balancer: str) -> Callable[[], float]:
        side = Engine(architecture, table, table, balancer)
        method, batches = side.method.train(), list(side.splits[0].batches(BATCH, torch.Generator().manual_seed(0)))
        optimizer = optimizer_for(method, LR, 0.0)

        def seconds() -> float:
            start = time.process_time()
            for batch in batches:
                method.step(batch, optimizer)
            return (time.process_time() - start) / len(batches)

        return seconds

    for name in ("uniform", *AT_FULL_SIZE):
        steps[name] = prepared(name)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(ROUNDS + 1):
        for name, seconds in steps.items():
            spent = seconds()
            if round_:
                times[name].append(spent)
    torch.use_deterministic_algorithms(False)
    base = times["uniform"]
    ratios = {n: statistics.median(a / b for a, b in zip(v, base, strict=True)) for n, v in times.items()}
    lines = [f"**{architecture}**, two tasks, batch {BATCH}, 1 thread, at the representation; `uniform` takes "]
    lines[0] += f"{statistics.median(base) * 1000:.0f} ms of CPU time a step:"
    lines += ["", "| balancer | multiple of `uniform` |", "|---|---|"]
    lines += [f"| {name} | {ratio:.2f} |" for name, ratio in ratios.items()]
    report("Balancers", "\n".join(lines))
    for name in AT_FULL_SIZE:
        assert ratios[name] <= LIMIT, f"{name} takes {ratios[name]:.2f} times as long as uniform"


def test_cost_of_a_step(benchmark: Callable[..., object]) -> None:
    """A two-task shared-bottom at batch 2048 on one thread; the balancers in turn, round after round."""
    torch.set_num_threads(1)
    data = load(prepare("sim-shop"))
    schema = replace(data.schema, tasks=tuple(t for t in data.schema.tasks if t.scope == "pair")[:2])
    batches = list(data.train.batches(2048, torch.Generator().manual_seed(0)))[:STEPS]
    names = sorted(registry.entries("balancers"))
    at_parameters = [n for n in names if "at" in own_settings(registry.load_balancer(n))]
    steps: dict[str, Callable[[], float]] = {}

    def prepared(given: dict[str, object]) -> Callable[[], float]:
        torch.manual_seed(0)
        resolved, _ = config.resolve("shared_bottom", given)
        method = build("shared_bottom", resolved, schema).train()
        optimizer = optimizer_for(method, resolved["lr"], resolved["weight_decay"])

        def seconds() -> float:
            start = time.perf_counter()
            for batch in batches:
                method.step(batch, optimizer)
            return (time.perf_counter() - start) / STEPS

        return seconds

    for name in names:
        steps[name] = prepared({"balancer": name})
    for name in at_parameters:
        steps[f"{name} at parameters"] = prepared({"balancer": name, "balancer.at": "parameters"})
    times: dict[str, list[float]] = {key: [] for key in steps}
    for seconds in steps.values():
        seconds()
    for _ in range(ROUNDS):
        for key, seconds in steps.items():
            times[key].append(seconds())
    base = times["uniform"]
    ratios = {k: statistics.median(a / b for a, b in zip(v, base, strict=True)) for k, v in times.items()}
    lines = [
        f"**A small shared-bottom** on `sim-shop`, two tasks; `uniform` takes {statistics.median(base) * 1000:.1f} "
    ]
    lines[0] += f"ms a step, so that solvers show; medians of {ROUNDS} rounds in turn:"
    lines += ["", "| balancer | multiple of `uniform` |", "|---|---|"]
    lines += [f"| {key} | {ratio:.2f} |" for key, ratio in sorted(ratios.items(), key=lambda pair: pair[1])]
    report("Balancers", "\n".join(lines))
    benchmark.extra_info["ratios"] = ratios
    benchmark.pedantic(steps["uniform"], rounds=1)
    for name, limit in LIMITS.items():
        assert ratios[name] <= limit, f"{name} takes {ratios[name]:.2f} times as long as uniform"
