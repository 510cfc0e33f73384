"""Records of a known truth, as real files: for tests of the leaderboard and of its speed."""

from __future__ import annotations

import copy
import json
import random
from functools import cache
from pathlib import Path
from typing import Any

from bench import registry
from bench.spec import digest
from bench.storage.records import Store

TEMPLATE = "c28282d58e1b863d"


@cache
def template() -> dict[str, Any]:
    """A real record, of 15 kB."""
    return Store(registry.ROOT / "results" / "reference").find(TEMPLATE)


def made(
    method: str, seed: int, gap: float = 0.0, *, noise: float = 0.01, dataset: str = "toy", **spec: Any
) -> dict[str, Any]:
    """A record whose primary test metrics are .7 + the luck of the seed (common to all methods) + gap + noise."""
    record = copy.deepcopy(template())
    record["spec"] |= {"dataset": dataset, "method": method, "seed": seed, **spec}
    record["key"] = digest(record["spec"])
    own, common = random.Random(f"{method} {dataset} {seed}"), random.Random(f"{dataset} {seed}")
    parts = [record["metrics"]["test"], *(part["metrics"] for part in record["metrics"]["slices"].values())]
    for task in record["tasks"]:
        value = 0.7 + 0.02 * common.gauss(0, 1)
        for part in parts:
            if part.get(task["name"], {}).get(task["metric"]) is not None:
                sign = -1 if task["metric"] == "rmse" else 1
                part[task["name"]][task["metric"]] = value + sign * gap + noise * own.gauss(0, 1)
    return record


def write(results: Path, record: dict[str, Any]) -> None:
    """Stores a record at its place, without waiting for the disk."""
    folder = results / "runs" / record["spec"]["dataset"] / record["spec"]["method"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{record['key']}.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
