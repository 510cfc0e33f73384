"""The leaderboard of 100,000 records: seconds and memory of `bench board`, from files to the printed tables.

tox -e speed        (or: make speed)
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from bench import registry

sys.path.insert(0, str(Path(__file__).parent.parent))
from synthetic import made, write  # noqa: E402

DATASETS, METHODS, SEEDS = 25, 100, 40


def test_100_000_records(tmp_path: Path) -> None:
    """Files like those of results/reference: 15 kB each, 1.5 GB in all. The bound is for a machine that is not busy."""
    for d in range(DATASETS):
        for m in range(METHODS):
            for s in range(SEEDS):
                write(tmp_path, made(f"m{m:03}" if m else "single_task", s, 0.001 * m, dataset=f"d{d:02}"))
    words = ("board", "--results", str(tmp_path))
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", *words], cwd=registry.ROOT, check=True, capture_output=True, text=True
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"\n{DATASETS * METHODS * SEEDS:,} records: {wall:.1f} s ({used:.1f} s of processor in two processes), "
        f"{after.ru_maxrss / 2**20:.2f} GiB (load {os.getloadavg()[0]:.1f})"
    )
    assert "m099" in done.stdout
    assert after.ru_maxrss < 2**20 / 2  # KiB, of the larger process
    assert wall < 10 or os.getloadavg()[0] > 2
