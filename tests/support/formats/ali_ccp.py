"""Ali-CCP as published (skeleton and common features, lists in lists by control characters), or as extracted."""

from __future__ import annotations

from pathlib import Path

import numpy as np

KEYS = {"common_features_*": "common_feature_index"}
SPARSE = (
    "101", "121", "122", "124", "125", "126", "127", "128", "129", "205", "206", "207", "210", "216", "508", "509",
    "702", "853", "301", "109_14", "110_14", "127_14", "150_14",
)  # fmt: skip
DENSE = ("D109_14", "D110_14", "D127_14", "D150_14", "D508", "D509", "D702", "D853")
EXTRACTED = ("click", "purchase", *SPARSE, *DENSE)
CONTEXTS = {"train": 50, "test": 20}
ROWS = 10  # of each context


def features(pairs: list[tuple[str, int, float]]) -> str:
    """A list of (field, id, value)."""
    return "\x01".join(f"{field}\x02{number}\x03{value}" for field, number, value in pairs)


def write(folder: Path, variant: str = "") -> None:
    """500 training and 200 test impressions, contexts in another order than in the common file, 25 items, 15 users."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(11)
    for part, contexts in CONTEXTS.items():
        names = [f"{part[:2]}{n:014x}" for n in rng.permutation(contexts)]
        common = [f"{name},{len(own := user(rng))},{features(own)}" for name in names]
        lines = []
        for number, name in enumerate(sorted(names * ROWS)):
            pairs = item(rng, new=part == "test")
            liked = 0.7 if pairs[0][1] % 3 == 0 else 0.2
            click = int(rng.random() < liked)
            buy = int(rng.random() < (0.4 if click else 0.05))  # a few are bought without a click
            lines.append(f"{number + 1},{click},{buy},{name},{len(pairs)},{features(pairs)}")
        lines.append(lines[-1])  # the same line twice
        for kind, content in (("common_features", common), ("sample_skeleton", lines)):
            (folder / f"{kind}_{part}.csv").write_text("".join(line + "\n" for line in content), "utf-8")


def user(rng: np.random.Generator) -> list[tuple[str, int, float]]:
    """Features of a context: the user, and histories with fields whose names begin like others."""
    pairs = [("109_14", int(i), 2.5) for i in rng.integers(1, 99, 3)]
    pairs += [("101", int(rng.integers(1, 16)), 1.0), ("121", int(rng.integers(1, 5)), 1.0)]
    pairs += [(field, int(rng.integers(1, 4)), 1.0) for field in ("122", "124", "125", "127", "128", "129")]
    if rng.random() < 0.5:
        pairs.append(("126", 3, 1.0))  # often missing
    return [*pairs, ("127_14", 101, 0.69), ("150_14", 7, 1.1)]


def item(rng: np.random.Generator, new: bool) -> list[tuple[str, int, float]]:
    """Features of an impression; the test file has items that the training file lacks."""
    number = int(rng.integers(1, 31 if new else 26))
    pairs = [("205", number, 1.0), ("206", number % 4 + 1, 1.0), ("207", number % 7 + 1, 1.0)]
    pairs += [("210", int(i), 1.0) for i in rng.integers(1, 50, 2)] + [("216", number % 3 + 1, 1.0)]
    if rng.random() < 0.6:
        pairs.append(("508", number % 4 + 1, 0.47))
    pairs += [("853", int(rng.integers(1, 4)), 0.2), ("301", int(rng.integers(1, 4)), 1.0)]
    return pairs


def extracted(folder: Path) -> None:
    """Files as torch-rechub extracts them: codes of the values with ten training rows, 0 for the others; some weights.

    300 training rows, 100 each for validation and test, 25 items of which every third is rare, 6 users.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(12)
    for part, rows in (("train", 300), ("val", 100), ("test", 100)):
        lines = [",".join(EXTRACTED)]
        for _ in range(rows):
            number = int(rng.integers(1, 26))
            user = int(rng.integers(1, 7))
            codes = {name: (user if name.startswith("1") else number) % 4 for name in SPARSE}
            codes |= {"101": user, "205": number if number % 3 else 0, "206": number % 5 + 1}
            click = int(rng.random() < (0.7 if number % 2 else 0.2))
            buy = int(click and rng.random() < 0.4)
            weights = [f"{rng.random():.4g}" for _ in DENSE]
            lines.append(",".join([str(click), str(buy), *(str(codes[name]) for name in SPARSE), *weights]))
        (folder / f"ali_ccp_{part}.csv").write_text("".join(f"{line}\n" for line in lines), "utf-8")
