"""Which share of the quick suite's time is training and evaluation, start-up and preparing included.

tox -e speed        (or: make speed)
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import registry
from tests.speed.report import report

WORKERS = 2


def share_inside(words: list[str], folder: Path) -> tuple[int, float, float]:
    """Number of runs, seconds of wall time, and the share of wall time x workers that is fit_s and eval_s.

    Data, and what is computed of texts once, are prepared before, by a run of one epoch.
    """
    command = [sys.executable, "-m", "bench.cli", "run", *words, "--workers", str(WORKERS), "--results"]
    once = ("--epochs", "1", "--seeds", "1")
    subprocess.run([*command, folder / "once", *once], cwd=registry.ROOT, check=True, capture_output=True)
    start = time.perf_counter()
    subprocess.run([*command, folder / "timed"], cwd=registry.ROOT, check=True, capture_output=True)
    wall = time.perf_counter() - start
    costs = [json.loads(path.read_text("utf-8"))["cost"] for path in folder.glob("timed/runs/*/*/*.json")]
    return len(costs), wall, sum(cost["fit_s"] + cost["eval_s"] for cost in costs) / (wall * WORKERS)


@pytest.mark.slow  # with the real language model and data
def test_the_quick_suite_trains_and_evaluates(tmp_path: Path) -> None:
    """At least 85 %."""
    runs, wall, share = share_inside(["--suite", "quick"], tmp_path)
    report(
        "Suites",
        f"The quick suite: {runs} runs in {wall:.0f} s with {WORKERS} workers; {share:.1%} of wall time x workers is "
        "training and evaluation (at least 85 % wanted).",
    )
    assert share >= 0.85
