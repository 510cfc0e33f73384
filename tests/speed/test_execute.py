"""What a suite of many tiny runs costs beside training and evaluation, start-up of all processes included.

tox -e speed        (or: make speed)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from bench import registry

WORKERS, SEEDS = 2, 100
TINY = ("--data", "users=60", "--data", "items=100", "--data", "groups=200")  # a run takes 0.3 to 1 s
METHODS = ("-m", "shared_bottom", "-m", "mmoe")


def test_a_suite_of_tiny_runs(tmp_path: Path) -> None:
    """200 runs in 2 workers, without early stopping: the share of wall time x workers outside of fit_s + eval_s."""
    budget = ("--epochs", "40", "--patience", "40", "--seeds", str(SEEDS))
    words = ("run", "-d", "sim-news", *TINY, *METHODS, *budget, "--workers", str(WORKERS), "--results", str(tmp_path))
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "bench.cli", *words], cwd=registry.ROOT, check=True, capture_output=True)
    wall = time.perf_counter() - start
    costs = [json.loads(path.read_text())["cost"] for path in tmp_path.glob("runs/*/*/*.json")]
    inside = sum(cost["fit_s"] + cost["eval_s"] for cost in costs)
    share = 1 - inside / (wall * WORKERS)
    print(
        f"\n{len(costs)} runs of {inside / len(costs):.2f} s in {wall:.1f} s with {WORKERS} workers: {share:.1%} "
        f"outside training and evaluation (load {os.getloadavg()[0]:.1f})"
    )
    assert len(costs) == 2 * SEEDS and share < 0.5
