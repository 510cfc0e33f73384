"""The engine against the libraries that install from the package index: same data, sizes, batch, optimiser, threads.

tox -e speed        (or: make speed, with the extra `peers` installed)
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peers import ARCHITECTURES, BATCH, SIDES, generate, quiet
from report import report

ROUNDS = 5
BATCHES = {"shared_bottom": 32, "mmoe": 12, "ple": 12}  # of a round
VALID_ROWS = 100_000
AUC_ROWS, AUC_NOISE = 1_000_000, 0.005
PEERS = [name for name, side in SIDES.items() if side.package]
OWN = [name for name in SIDES if name not in PEERS]

pytestmark = pytest.mark.filterwarnings("default")  # what other libraries do is not ours to mend

Times = dict[str, list[tuple[float, float]]]  # side -> (wall, CPU) seconds of each round


def sides_for(architecture: str) -> list[str]:
    """The sides that are installed and have this architecture."""
    return [n for n, side in SIDES.items() if side.installed() and architecture in side.architectures]


def absent(architecture: str) -> str:
    """Who is missing, in words."""
    lacking = [f"{n} has no such model" for n, side in SIDES.items() if architecture not in side.architectures]
    lacking += [f"{n} is NOT INSTALLED (pip install -e '.[peers]')" for n in PEERS if not SIDES[n].installed()]
    return f" ({'; '.join(lacking)})" if lacking else ""


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    with quiet():
        work()
    return time.perf_counter() - wall, time.process_time() - cpu


def table(title: str, times: Times, rows: int) -> tuple[str, dict[str, float]]:
    """Thousand rows a second of each side, medians, and its speed as a multiple of the fastest peer's: the median of
    the rounds' ratios, by wall clock and by CPU time. The second is by CPU time."""
    speed = {n: [statistics.median(rows / t[i] / 1000 for t in ts) for i in (0, 1)] for n, ts in times.items()}
    peers = [n for n in times if n in PEERS]
    lines = [f"{title}", "", "| | k rows/s | k rows/CPU-s | x fastest peer | by CPU time |", "|---|---|---|---|---|"]
    by_cpu: dict[str, float] = {}
    for name, own in times.items():
        cells = ["-", "-"]
        if peers:
            for i in (0, 1):
                best = max(peers, key=lambda n: speed[n][i])
                ratio = statistics.median(b[i] / a[i] for a, b in zip(own, times[best], strict=True))
                cells[i] = f"{ratio:.2f}"
                if i:
                    by_cpu[name] = ratio
        lines.append(f"| {name} | {speed[name][0]:.1f} | {speed[name][1]:.1f} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines), by_cpu


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_speed(architecture: str, threads: int) -> None:
    """Training without validation, and evaluation with AUC, in turn, round after round, after one round to warm up."""
    torch.set_num_threads(threads)
    rows = BATCHES[architecture] * BATCH
    train, valid = generate(rows, 1), generate(VALID_ROWS, 2)
    with quiet():
        made = {name: SIDES[name](architecture, train, valid) for name in sides_for(architecture)}
    training: Times = {name: [] for name in made}
    evaluation: Times = {name: [] for name in made}
    for round_ in range(ROUNDS + 1):
        for name, side in made.items():
            spent = timed(side.epoch), timed(side.evaluate)
            if round_:
                training[name].append(spent[0])
                evaluation[name].append(spent[1])
    torch.set_num_threads(1)
    plural = "s" if threads > 1 else ""
    where = f"{architecture}, {threads} thread{plural}, medians of {ROUNDS} rounds in turn{absent(architecture)}"
    text, trained = table(f"**Training**, {where}", training, rows)
    report("Training", text)
    text, evaluated = table(f"**Evaluation with AUC**, {where}", evaluation, VALID_ROWS)
    report("Evaluation", text)
    for name in OWN:
        assert trained.get(name, 1) >= 1, f"{name} trains at {trained[name]:.2f} times the speed of the fastest peer"
        assert evaluated.get(name, 1) >= 1, f"{name} evaluates at {evaluated[name]:.2f} times the fastest peer's speed"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_same_auc_and_memory(architecture: str) -> None:
    """One epoch over a million rows, each side in a process of its own: validation AUC and peak memory."""
    lines = [f"**One epoch over {AUC_ROWS:,} rows**, {architecture}, 2 threads{absent(architecture)}", ""]
    lines += ["| | AUC click | AUC conversion | peak memory, MB | k rows/CPU-s |", "|---|---|---|---|---|"]
    found = {}
    for name in sides_for(architecture):
        words = [sys.executable, str(Path(__file__).with_name("peers.py")), name, architecture, "--rows", str(AUC_ROWS)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        got = found[name] = json.loads(done.stdout.splitlines()[-1])
        aucs = " | ".join(f"{x:.4f}" for x in got["auc"])
        lines.append(f"| {name} | {aucs} | {got['peak_mb']:.0f} | {AUC_ROWS / got['cpu_s'] / 1000:.1f} |")
    report("Training", "\n".join(lines))
    for i in range(2):
        best = max(got["auc"][i] for got in found.values())
        for name in OWN:
            assert found[name]["auc"][i] > max(0.7, best - AUC_NOISE), f"{name}: {found[name]['auc'][i]:.4f}"
