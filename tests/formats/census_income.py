"""Census-Income (KDD) as published: two files without a header, values after a comma and a space, "?" for missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

STATUS = ("Never married", "Married-civilian spouse present", "Divorced", "Widowed")
CODES = (" Not in universe", " ?", " Private", " Federal government", " Children", " NA", " Masters degree(MA MS)")


def write(folder: Path, variant: str = "") -> None:
    """240 people in the training file, 160 in the test file; both labels depend on the age."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    for name, people in (("census-income.data", 240), ("census-income.test", 160)):
        lines = [person(rng) for _ in range(people)]
        lines[5] = lines[4]  # duplicates are part of the set
        (folder / name).write_text("".join(line + "\n" for line in lines), "utf-8")


def person(rng: np.random.Generator) -> str:
    """One line of 42 values."""
    age = int(rng.integers(0, 90))
    values = [CODES[i] for i in rng.integers(len(CODES), size=42)]
    values[0] = str(age)
    values[2], values[3] = f" {rng.integers(52)}", f" {rng.integers(47)}"  # codes that are numbers
    for place in (5, 16, 17, 18):
        values[place] = f" {int(rng.integers(1, 9999)) if rng.random() < 0.2 else 0}"
    values[7] = f" {STATUS[0] if rng.random() < 0.9 - age / 100 else STATUS[rng.integers(1, len(STATUS))]}"
    values[24] = f" {rng.uniform(40, 9000):.2f}"  # the instance weight
    values[30], values[39], values[40] = f" {rng.integers(7)}", f" {rng.integers(53)}", f" {rng.integers(94, 96)}"
    values[41] = " 50000+." if rng.random() < (0.45 if 30 < age < 65 else 0.1) else " - 50000."
    return ",".join(values)
