"""AliExpress: the raw files of a country (nl, es) or the processed ones of MTReclib (fr, us)."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from bench.datasets.aliexpress import ITEM_FILE, PROCESSED_FILE, USER_FILE

KEYS = {"*_user_*": "search_id", "train.csv": "search_id", "test.csv": "search_id"}
SEARCHES = {"train": 60, "test": 25}
RESULTS = 6  # of each search


def write(folder: Path, variant: str = "") -> None:
    """360 training and 150 test results, search ids out of order and used again by the test file."""
    if variant in ("fr", "us"):
        processed(folder)
    else:
        raw(folder, variant or "nl")


def content(part: str) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Searches and results by column name, as text."""
    rng = np.random.default_rng([5, len(part)])
    count = SEARCHES[part]
    searches = [cells(rng, USER_FILE) for _ in range(count)]
    results = []
    for number, search in zip(rng.permutation(count) + 2, searches, strict=True):
        search["search_id"] = str(number)
        for _ in range(RESULTS):
            result = cells(rng, ITEM_FILE) | {"search_id": str(number)}
            click = rng.random() < (0.6 if result["categorical_10"] == "1" else 0.25)
            label = int(click) + int(click and rng.random() < 0.4)
            results.append(result | {"label": str(label)})
    results[1] = {**results[0], "label": results[1]["label"]}  # two results that look the same
    searches[3]["numerical_5"] = ""  # a missing number
    return searches, results


def cells(rng: np.random.Generator, names: tuple[str, ...]) -> dict[str, str]:
    """A value for every feature."""
    numbers = {n: f"{rng.random():.6g}" for n in names if n.startswith("numerical")}
    return numbers | {n: str(rng.integers(0, 3)) for n in names if n.startswith("categorical")}


def raw(folder: Path, country: str, zipped: bool = False) -> None:
    """The four files of a country. A search has no results, and a result has no search."""
    for part in SEARCHES:
        searches, results = content(part)
        searches = [*searches, searches[0], {**searches[0], "search_id": "900"}]  # a line twice; no results
        results = [*results, {**results[0], "search_id": "901"}]
        save(folder / f"{country}_user_{part}.csv", USER_FILE, searches, zipped=zipped)
        save(folder / f"{country}_item_{part}.csv", ITEM_FILE, results, zipped=zipped)


def processed(folder: Path) -> None:
    """train.csv and test.csv."""
    for part in SEARCHES:
        searches, results = content(part)
        by_id = {s["search_id"]: s for s in searches}
        joined = [
            by_id[r["search_id"]] | r
            | {"click": str(int(r["label"] != "0")), "conversion": str(int(r["label"] == "2"))}
            for r in results
        ]  # fmt: skip
        save(folder / f"{part}.csv", PROCESSED_FILE, joined, header=True)


def save(
    path: Path, names: tuple[str, ...], lines: list[dict[str, str]], header: bool = False, zipped: bool = False
) -> None:
    """A CSV file, or a zip of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(",".join(line[n] for n in names) + "\n" for line in lines)
    text = ",".join(names) + "\n" + text if header else text
    if zipped:
        with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(path.name, text)
    else:
        path.write_text(text, "utf-8")
