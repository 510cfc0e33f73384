"""Records of a toy data set with given values, for reports whose truth must be known."""

from __future__ import annotations

import random
from typing import Any

from bench.spec import digest

Record = dict[str, Any]
CLICK = {"name": "click", "kind": "binary", "role": "ctr", "scope": "pair", "space": "all rows", "metric": "auc"}
WATCH = {"name": "watch", "kind": "regression", "role": "", "scope": "pair", "space": "all rows", "metric": "rmse"}
CHANCE = {"click": {"auc": 0.5}, "watch": {"rmse": 2.0}}
STATIC = {"batch_size": 512, "balancer": "static"}


def runs(
    method: str, clicks: list[float], watches: list[float] | None = None, *, trials: int = 0, **changes: Any
) -> list[Record]:
    """A final record for each seed, with these values on the test part and on cold items; ``changes``: of the spec."""
    records = []
    for seed, (click, watch) in enumerate(zip(clicks, watches or [1.0] * len(clicks), strict=True)):
        spec: Record = {
            "dataset": "toy", "dataset_version": 1, "dataset_config": {"shift": 0.5}, "method": method,
            "method_version": 1, "parts": {"balancer": 1}, "config": {"batch_size": 512, "balancer": "uniform"},
            "lm": None, "seed": seed, "budget": {"epochs": 20, "patience": 3}, "protocol": "clean-1", **changes,
        }  # fmt: skip
        test = {"click": {"auc": click}, "watch": {"rmse": watch}}
        slices = {"cold_item": {"rows": 50, "metrics": test}}
        records.append({
            "schema": 1, "key": digest(spec), "spec": spec, "role": "final", "status": "ok", "error": None,
            "reference": False, "tasks": [CLICK, WATCH], "metrics": {"valid": test, "test": test, "slices": slices},
            "references": {"chance": {"test": CHANCE, "slices": {"cold_item": {"rows": 50, "metrics": CHANCE}}}},
            "cost": {"tuning_trials": trials}, "data": {"sha256": "0123456789abcdef"},
        })  # fmt: skip
    return records


def noisy(centre: float, seeds: int = 6, spread: float = 0.002, seed: int = 0) -> list[float]:
    draw = random.Random(f"{centre} {seed}")
    return [centre + draw.gauss(0, spread) for _ in range(seeds)]
