"""A mutation run: of a sample of small faults in the code that decides numbers, how many do the tests find?

``python -m tests.support.mutation [--size N] [--seed S] [--minutes M]`` lets mutmut make all faults (its settings are
in pyproject.toml), draws a sample of them by a fixed seed, tests it, and prints the score and the survivors.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from mutmut.stats import status_by_exit_code

FOLDER = Path("mutants")
MISSED = ("survived", "no tests")


def mutmut(*words: str, minutes: float) -> None:
    """Runs mutmut, at most so long: what it has found until then is kept."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    process = subprocess.Popen([sys.executable, "-m", "mutmut", *words], env=environment, start_new_session=True)
    try:
        process.wait(60 * minutes)
    except subprocess.TimeoutExpired:
        print(f"stopped after {minutes:g} minutes", file=sys.stderr)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def outcomes() -> dict[str, int | None]:
    """All faults by name, and how each ended, if it has been tested."""
    found: dict[str, int | None] = {}
    for path in sorted(FOLDER.rglob("*.meta")):
        found |= json.loads(path.read_text("utf-8"))["exit_code_by_key"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30, help="of each of its two parts")
    given = parser.parse_args()
    mutmut("run", "no.such.fault*", minutes=given.minutes)  # makes them all, and notes which test calls which function
    names = sorted(outcomes())
    sample = sorted(random.Random(given.seed).sample(names, min(given.size, len(names))))
    mutmut("run", *sample, minutes=given.minutes)
    ended = {name: status_by_exit_code[code] for name, code in outcomes().items() if name in set(sample)}
    counts = Counter(ended.values())
    tested = len(ended) - counts["not checked"]
    missed = sum(counts[how] for how in MISSED)
    print(f"{len(names)} faults, {len(sample)} drawn by seed {given.seed}: {dict(counts)}")
    print(f"score: {tested - missed} of {tested} found, {(tested - missed) / max(tested, 1):.0%}")
    for name, how in ended.items():
        if how in MISSED:
            print(f"{how}: {name}")


if __name__ == "__main__":
    main()
