"""How long the command takes before it has anything to do.

tox -e speed        (or: make speed)
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from bench import registry
from tests.speed.report import report

ROUNDS = 7
ANSWERED = (("--help",), ("list",), ("board", "--help"))
# What a process of its own costs a suite before it can begin: once for each worker, whatever the number of runs.
STARTED = {
    "torch alone": "import torch",
    "a worker": "import bench.execution.workers",
    "the parent": "import bench.execution.execute",
}


def seconds(*words: str) -> tuple[float, float]:
    """Median seconds of wall and processor time of a Python process."""
    walls, processors = [], []
    for _ in range(ROUNDS):
        start, before = time.perf_counter(), os.times()
        subprocess.run([sys.executable, *words], cwd=registry.ROOT, check=True, capture_output=True)
        after = os.times()
        walls.append(time.perf_counter() - start)
        used = after.children_user + after.children_system - before.children_user - before.children_system
        processors.append(used)
    return statistics.median(walls), statistics.median(processors)


def test_help_and_list_answer_at_once() -> None:
    """In processor time, a third of what importing torch takes, as it did where that was half a second."""
    rows = {" ".join(("bench", *words)): seconds("-m", "bench.cli", *words) for words in ANSWERED}
    rows |= {f"imports of {name}": seconds("-c", code) for name, code in STARTED.items()}
    lines = [f"| {name} | {wall:.2f} | {processor:.2f} |" for name, (wall, processor) in rows.items()]
    report("Start-up", "\n".join(["| | wall, s | processor, s |", "|---|---|---|", *lines]))
    limit = rows["imports of torch alone"][1] / 3
    slow = {name: used for name, (_, used) in list(rows.items())[: len(ANSWERED)] if used >= limit}
    assert not slow, slow
