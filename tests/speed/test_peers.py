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

import pytest
import torch

from bench.machine.device import multiplies_bfloat16
from tests.speed.peers import ARCHITECTURES, BATCH, FLOORS, SIDES, TASKS, generate, quiet
from tests.speed.report import report

THREADS, ROUNDS = 2, 4
BATCHES = {"shared_bottom": 16, "mmoe": 6, "ple": 4}  # of training in a round
VALID_BATCHES = {"shared_bottom": 20, "mmoe": 10, "ple": 8}
AUC_ROWS, AUC_NOISE = 300_000, 0.005
PEERS = [name for name, side in SIDES.items() if side.package]
OWN = [name for name in SIDES if name not in PEERS]
# Multiples of the fastest peer's speed, float32 and bfloat16. What shall be reached; it was set on a processor with
# matrix units for bfloat16.
TARGETS = {
    ("Training", "shared_bottom"): (2.0, 3.2),
    ("Training", "mmoe"): (1.5, 2.6),
    ("Training", "ple"): (1.4, 2.1),
    ("Evaluation", "shared_bottom"): (1.8, 4.0),
    ("Evaluation", "mmoe"): (1.0, 2.8),
    ("Evaluation", "ple"): (1.0, 2.0),
}
# On that processor: plain PyTorch with norm, ReLU and dropout, and their backward pass, in a block in C++; the floor.
FUSED = {
    "shared_bottom": ("2.9 and 5.8", "6.1 and 18.6"),
    "mmoe": ("2.2 and 5.5", "3.9 and 18.3"),
    "ple": ("2.3 and 5.4", "4.8 and 18.2"),
}
# What must hold on any processor, by CPU time: without such units, a float32 product takes all but twice as long as one
# of bfloat16, and the floor itself is below some targets. Without any instructions for bfloat16, see ``bound``.
BOUNDS = {
    ("Training", "shared_bottom"): (1.1, 1.7),
    ("Training", "mmoe"): (1.1, 1.7),
    ("Training", "ple"): (1.1, 1.7),
    ("Evaluation", "shared_bottom"): (1.0, 1.4),
    ("Evaluation", "mmoe"): (1.0, 1.6),
    ("Evaluation", "ple"): (1.0, 1.5),
}

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


def table(section: str, architecture: str, where: str, times: Times, rows: int) -> tuple[str, dict[str, float]]:
    """Thousand rows a second of each side, medians, and its speed as a multiple of the fastest peer's: the median of
    the rounds' ratios, by wall clock and by CPU time. The second is by CPU time, of the engine's."""
    speed = {n: [statistics.median(rows / t[i] / 1000 for t in ts) for i in (0, 1)] for n, ts in times.items()}
    peers = [n for n in times if n in PEERS]
    lines = [f"**{section}{' with AUC' if section == 'Evaluation' else ''}**, {architecture}, {where}", ""]
    lines += ["| | k rows/s | k rows/CPU-s | x fastest peer | by CPU time | target | share of the floor's speed |"]
    lines += ["|---|---|---|---|---|---|---|"]
    by_cpu: dict[str, float] = {}
    for name, own in times.items():
        cells = ["-", "-", "-", "-"]
        floor = times[list(FLOORS)[OWN.index(name)]] if name in OWN else own
        if name in OWN:
            cells[3] = f"{statistics.median(b[0] / a[0] for a, b in zip(own, floor, strict=True)):.0%}"
        for i in (0, 1) if peers else ():
            best = times[max(peers, key=lambda n: speed[n][i])]
            ratio, limit = (statistics.median(b[i] / a[i] for a, b in zip(x, best, strict=True)) for x in (own, floor))
            cells[i] = f"{ratio:.2f}"
            if name in OWN and i:
                by_cpu[name] = ratio
            elif name in OWN:
                target = TARGETS[section, architecture][OWN.index(name)]
                missed = "NOT met" if limit >= target else f"NOT met: here the floor is at {limit:.2f}"
                cells[2] = f"{target}, {'met' if ratio >= target else missed}"
        lines.append(f"| {name} | {speed[name][0]:.1f} | {speed[name][1]:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines), by_cpu


def bound(section: str, architecture: str, name: str) -> float:
    """Without instructions for bfloat16, a product of it is one of float32 with roundings before and after it."""
    own = BOUNDS[section, architecture]
    return own[OWN.index(name)] if name == OWN[0] or multiplies_bfloat16() else 0.8 * own[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_speed(architecture: str) -> None:
    """Training without validation, and evaluation with AUC, in turn, round after round, after one round to warm up.
    The floor has the products of the linear layers, and the optimiser, alone."""
    torch.set_num_threads(THREADS)
    rows, valid_rows = BATCHES[architecture] * BATCH, VALID_BATCHES[architecture] * BATCH
    train, valid = generate(rows, 1), generate(valid_rows, 2)
    with quiet():
        made = {name: SIDES[name](architecture, train, valid) for name in sides_for(architecture)}
        made |= {name: side(architecture, train, valid) for name, side in FLOORS.items()}
    training: Times = {name: [] for name in made}
    evaluation: Times = {name: [] for name in made}
    for round_ in range(ROUNDS + 1):
        for name, side in made.items():
            spent = timed(side.epoch), timed(side.evaluate)
            if round_:
                training[name].append(spent[0])
                evaluation[name].append(spent[1])
    torch.set_num_threads(1)
    where = f"{THREADS} threads, medians of {ROUNDS} rounds in turn{absent(architecture)}"
    found = {}
    for section, times, n in (("Training", training, rows), ("Evaluation", evaluation, valid_rows)):
        text, found[section] = table(section, architecture, where, times, n)
        report(section, text)
    fused, floor = FUSED[architecture]
    text = (
        f"Where the targets come from, a block in C++ trains {architecture} at {fused} times the fastest peer's speed "
    )
    report("Training", f"{text}(float32 and bfloat16), and the floor is at {floor}.")
    for section, ratios in found.items():
        for name, ratio in ratios.items():
            assert ratio >= bound(section, architecture, name), (
                f"{section}: {name} has {ratio:.2f} times the speed of the fastest peer"
            )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_same_auc_and_memory(architecture: str) -> None:
    """One epoch over many rows, each side in a process of its own: validation AUC and peak memory. AUC is compared with
    the fastest peer's, as speed is; among each other, the peers differ by more than the noise."""
    lines = [f"**One epoch over {AUC_ROWS:,} rows**, {architecture}, {THREADS} threads{absent(architecture)}", ""]
    lines += ["| | AUC click | AUC conversion | peak memory, MB | k rows/s |", "|---|---|---|---|---|"]
    found = {}
    for name in sides_for(architecture):
        words = [sys.executable, "-m", "tests.speed.peers", name, architecture]
        words += ["--rows", str(AUC_ROWS), "--threads", str(THREADS)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        got = found[name] = json.loads(done.stdout.splitlines()[-1])
        aucs = " | ".join(f"{x:.4f}" for x in got["auc"])
        lines.append(f"| {name} | {aucs} | {got['peak_mb']:.0f} | {AUC_ROWS / got['wall_s'] / 1000:.1f} |")
    report("Training", "\n".join(lines))
    peers = [name for name in found if name in PEERS]
    fastest = found[min(peers or found, key=lambda name: found[name]["wall_s"])]
    for i, task in enumerate(TASKS):
        least = max(0.7, fastest["auc"][i] - AUC_NOISE)
        for name in OWN:
            assert found[name]["auc"][i] > least, f"{name}, {task}: {found[name]['auc'][i]:.4f}, at least {least:.4f}"
