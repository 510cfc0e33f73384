"""What each balancer costs a step, as a ratio to `uniform` in the same run.

tox -e speed        (or: make speed)
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from bench import config, registry
from bench.data.prepare import load, prepare
from bench.train import optimizer_for

ROUNDS, STEPS = 12, 4
LIMITS = {"pcgrad": 1.5, "upgrad": 1.5}  # at the representation


def test_cost_of_a_step(benchmark: Callable[..., object]) -> None:
    """A two-task shared-bottom at batch 2048 on one thread; the balancers in turn, round after round."""
    torch.set_num_threads(1)
    data = load(prepare("sim-shop"))
    schema = replace(data.schema, tasks=tuple(t for t in data.schema.tasks if t.scope == "pair")[:2])
    batches = list(data.train.batches(2048, torch.Generator().manual_seed(0)))[:STEPS]
    names = sorted(registry.entries("balancers"))
    at_parameters = [n for n in names if "at" in config.settings(registry.load_balancer(n))]
    steps: dict[str, Callable[[], float]] = {}

    def prepared(given: dict[str, object]) -> Callable[[], float]:
        torch.manual_seed(0)
        resolved, _ = config.resolve("shared_bottom", given)
        method = config.build("shared_bottom", resolved, schema).train()
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
    print(
        f"\nuniform: {statistics.median(base) * 1000:.1f} ms a step; ratios to it, medians of {ROUNDS} rounds in turn:"
    )
    for key, ratio in sorted(ratios.items(), key=lambda pair: pair[1]):
        print(f"  {key:<32}{ratio:6.2f}")
    benchmark.extra_info["ratios"] = ratios
    benchmark.pedantic(steps["uniform"], rounds=1)
    for name, limit in LIMITS.items():
        assert ratios[name] <= limit, f"{name} takes {ratios[name]:.2f} times as long as uniform"
