"""The leaderboard of 100,000 records: seconds and memory of `bench board`, from files to the printed tables, beside a
plain loop that only parses the files.

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
from tests.support.synthetic import made, write

DATASETS, METHODS, SEEDS, PARSED = 25, 100, 40, 5000
# A process between this one and the command: what a process has had at most counts for those that it starts too.
MEASURED = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
seconds = {"wall": time.perf_counter() - start, "processor": used.ru_utime + used.ru_stime}
print(json.dumps(seconds | {"peak_gib": used.ru_maxrss / 2**20}), file=sys.stderr)
"""


def test_100_000_records(tmp_path: Path) -> None:
    """Files like those of results/reference: 15 kB each, 1.5 GB in all."""
    for d in range(DATASETS):
        for m in range(METHODS):
            for s in range(SEEDS):
                write(tmp_path, made(f"m{m:03}" if m else "single_task", s, 0.001 * m, dataset=f"d{d:02}"))
    words = ("board", "--results", str(tmp_path))
    command = [sys.executable, "-c", MEASURED, sys.executable, "-m", "bench.cli", *words]
    done = subprocess.run(command, cwd=registry.ROOT, check=True, capture_output=True, text=True)
    found = json.loads(done.stderr.splitlines()[-1])
    paths = sorted(tmp_path.glob("runs/*/*/*.json"))[:PARSED]
    start = time.perf_counter()
    for path in paths:
        json.loads(path.read_bytes())
    parsing = (time.perf_counter() - start) * DATASETS * METHODS * SEEDS / len(paths)
    print(
        f"\n{DATASETS * METHODS * SEEDS:,} records: {found['wall']:.1f} s ({found['processor']:.1f} s of processor in "
        f"two processes), {found['peak_gib']:.2f} GiB; a plain loop needs {parsing:.1f} s to parse the files alone "
        f"(load {os.getloadavg()[0]:.1f})"
    )
    assert "m099" in done.stdout
    assert found["peak_gib"] < 0.5  # of the larger process
    assert found["wall"] < 2 * parsing
