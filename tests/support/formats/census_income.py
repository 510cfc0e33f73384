"""Census-Income (KDD) as published (no header, values after a comma and a space, "?" for missing), or as encoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

HEADER = (
    "age,class of worker,industry code,occupation code,education,wage per hour,enrolled in edu inst last wk,"
    "marital status,major industry code,major occupation code,race,hispanic origin,sex,member of a labor union,"
    "reason for unemployment,full or part time employment stat,capital gains,capital losses,divdends from stocks,"
    "tax filer status,region of previous residence,state of previous residence,detailed household and family stat,"
    "detailed household summary in household,migration code-change in msa,migration code-change in reg,"
    "migration code-move within reg,live in this house 1 year ago,migration prev res in sunbelt,"
    "num persons worked for employer,family members under 18,country of birth father,country of birth mother,"
    "country of birth self,citizenship,own business or self employed,fill inc questionnaire for veterans admin,"
    "veterans benefits,weeks worked in year,year,income"
)
NUMBERS = (0, 5, 16, 17, 18, 30, 39)  # columns as published, counted from 0
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


def encoded(folder: Path) -> None:
    """The same people as torch-rechub stores them: scaled numbers, codes, labels; the test file's even lines validate.

    Codes and scales are fitted to all parts, as there.
    """
    write(folder / "published")
    train, test = (
        [line.split(",") for line in (folder / "published" / name).read_text("utf-8").splitlines()]
        for name in ("census-income.data", "census-income.test")
    )
    columns = []
    for place, values in enumerate(zip(*train, *test, strict=True)):
        if place in NUMBERS:
            numbers = np.array(values, dtype=float)
            scaled = (numbers - numbers.min()) / (numbers.max() - numbers.min())
            columns.append([str(v) for v in scaled.round(4).tolist()])
        elif place in (7, 41):
            columns.append([str(int(v in (" Never married", " 50000+."))) for v in values])
        elif place != 24:  # the instance weight
            codes = {value: code for code, value in enumerate(sorted(set(values)))}
            columns.append([str(codes[v]) for v in values])
    lines = [",".join(row) + "\n" for row in zip(*columns, strict=True)]
    n = len(train)
    for part, chosen in (("train", lines[:n]), ("val", lines[n::2]), ("test", lines[n + 1 :: 2])):
        (folder / f"census_income_{part}.csv").write_text(HEADER + "\n" + "".join(chosen), "utf-8")
