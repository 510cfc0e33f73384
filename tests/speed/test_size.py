"""What a row costs as rows, tasks and experts grow, and that memory does not grow with the rows.

tox -e speed        (or: make speed)
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.data.tensors import LARGE, WINDOW
from bench.machine.device import set_up
from bench.spec import config
from bench.training.build import build
from bench.training.optimizer import optimizer_for
from tests.speed.report import report
from tests.speed.sized import BATCH, CARDINALITY, WARM, split, write

SIZES = (10**5, 10**6, 10**7, 10**8)
STEPS = WARM + 2 * WINDOW // BATCH
ROUNDS = 4
DISK_GB = 8
TABLE_ROUNDS, TABLE_STEPS = 7, 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Path]]:
    """Prepared data of each size; a tenth as many rows for validation. Removed at the end."""
    root = tmp_path_factory.mktemp("sizes")
    if shutil.disk_usage(root).free < DISK_GB * 1e9:
        pytest.skip(f"needs {DISK_GB} GB of disk")
    try:
        for rows in SIZES:
            write(root / str(rows), {"train": rows, "valid": rows // 10, "test": 1000})
        yield {rows: root / str(rows) for rows in SIZES}
    finally:
        shutil.rmtree(root)


def child(folder: Path, steps: int) -> dict[str, Any]:
    """What one process of its own measures."""
    words = [sys.executable, "-m", "tests.speed.sized", str(folder), "--steps", str(steps)]
    found: dict[str, Any] = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return found


def test_cost_against_rows(folders: dict[int, Path]) -> None:
    """Rows/s within 25 % of each other at all sizes; peak memory at 10^8 rows at most a tenth above that at 10^7."""
    runs: dict[int, list[dict[str, Any]]] = {rows: [] for rows in SIZES}
    for _ in range(ROUNDS):
        for rows, folder in folders.items():
            runs[rows].append(child(folder, STEPS))
    batches = {rows: child(folder, 0) for rows, folder in folders.items()}
    speed = {rows: statistics.median(run["rows_per_s"] for run in of) for rows, of in runs.items()}
    peak = {rows: max(run["peak_mb"] for run in of) for rows, of in runs.items()}
    lines = [
        "| rows | k rows/s | after training, MB | peak with validation, MB | batches alone, k rows/s | peak, MB |",
        "|---|---|---|---|---|---|",
    ]
    for rows, of in runs.items():
        now, alone = max(run["now_mb"] for run in of), batches[rows]
        lines.append(
            f"| {rows:,} | {speed[rows] / 1000:.0f} | {now:.0f} | {peak[rows]:.0f} "
            f"| {alone['rows_per_s'] / 1000:,.0f} | {alone['peak_mb']:.0f} |"
        )
    libraries = runs[SIZES[0]][0]["libraries_mb"]
    on_disk = sum(path.stat().st_size for path in folders[SIZES[-1]].rglob("*")) / 1e9
    lines += [
        "",
        f"`shared_bottom` with defaults, batch {BATCH}, one thread; {STEPS - WARM:,} steps, the start of an epoch's",
        f"order over all rows (small sizes: several epochs); medians of {ROUNDS} rounds in turn, each in a process of",
        "its own. Validation is on a tenth as many rows more. Batches alone: a whole epoch over all rows. Resident",
        f"memory; {libraries:.0f} MB of it are there before the first batch. The largest has {on_disk:.1f} GB of",
        f"files, which the system may have in its cache. Parts of more than {LARGE:,} rows are read in windows.",
    ]
    report("Size", "\n".join(lines))
    assert all(alone["rows"] == rows for rows, alone in batches.items())
    assert max(speed.values()) <= 1.25 * min(speed.values()), speed
    before, last = SIZES[-2:]
    assert peak[last] <= 1.1 * peak[before], peak
    assert batches[last]["peak_mb"] <= 1.1 * batches[before]["peak_mb"], batches


def test_cost_against_tasks_and_experts() -> None:
    """Milliseconds of CPU time a step, on one thread, of models in turn, round after round."""
    torch.set_num_threads(1)
    set_up()
    cases: list[tuple[str, int, dict[str, int]]] = [
        (name, tasks, {}) for name in ("shared_bottom", "mmoe") for tasks in (2, 4, 8, 16)
    ]
    cases += [("mmoe", 2, {"experts": experts}) for experts in (8, 16)]
    cases += [("ple", 2, {"shared_experts": experts, "task_experts": experts}) for experts in (4, 8, 16)]
    made = []
    for name, tasks, given in cases:
        part = split(20 * BATCH, tasks)
        torch.manual_seed(0)
        resolved, _ = config.resolve(name, given)
        method = build(name, resolved, part.schema).train()
        batches = list(islice(part.batches(BATCH, torch.Generator().manual_seed(0)), TABLE_STEPS))
        made.append((method, optimizer_for(method, 0.001, 0.0), batches))
    times: list[list[float]] = [[] for _ in cases]
    for round_ in range(TABLE_ROUNDS + 1):
        for place, (method, optimizer, batches) in enumerate(made):
            start = time.process_time()
            for batch in batches:
                method.step(batch, optimizer)
            if round_:
                times[place].append((time.process_time() - start) / TABLE_STEPS)
    torch.use_deterministic_algorithms(False)
    lines = [
        "| method | tasks | experts | ms a step | k rows/s | parameters without embeddings |",
        "|---|---|---|---|---|---|",
    ]
    for (name, tasks, given), (method, _, _), spent in zip(cases, made, times, strict=True):
        own = {
            "mmoe": f"{given.get('experts', 4)}",
            "ple": f"{given.get('task_experts')} + {given.get('task_experts')} a task",
        }
        taken = statistics.median(spent)
        count = sum(p.numel() for n, p in method.named_parameters() if "table" not in n)
        lines.append(
            f"| {name} | {tasks} | {own.get(name, '-')} | {taken * 1000:.1f} | {BATCH / taken / 1000:.0f} | {count:,} |"
        )
    lines += [
        "",
        f"Defaults otherwise, batch {BATCH}, one thread, CPU time, medians of {TABLE_ROUNDS} rounds in turn. The",
        f"embeddings of {sum(CARDINALITY.values()):,} codes come on top of the parameters.",
    ]
    report("Tasks and experts", "\n".join(lines))
