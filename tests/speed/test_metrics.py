"""How fast AUC and GAUC are, as ratios to what people write, on the same million rows in the same run.

tox -e speed        (or: make speed)
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from bench.metrics import compute
from tests.speed.report import report

ROWS, USERS, ROUNDS = 1_000_000, 100_000, 7
LOOP_USERS = 500  # the loop takes minutes for all; its time is proportional to the users


def group_by_loop(label: np.ndarray, score: np.ndarray, user: np.ndarray) -> float:
    """GAUC as tutorials do it: a data frame, its groups in turn, scikit-learn's AUC for those with both classes."""
    total = rows = 0.0
    for _, part in pl.DataFrame({"label": label, "score": score, "user": user}).group_by("user"):
        if part["label"].n_unique() == 2:
            total += roc_auc_score(part["label"].to_numpy(), part["score"].to_numpy()) * len(part)
            rows += len(part)
    return total / rows


def test_auc_and_gauc(benchmark: Callable[..., object]) -> None:
    """Float32 predictions, 19 % positives, 1 % of the rows tied; CPU seconds of this process, one thread, in turn."""
    draw = np.random.default_rng(0)
    logit = draw.normal(-1.8, 1.2, ROWS)
    label = (draw.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    score = (1 / (1 + np.exp(-logit - draw.normal(0, 1, ROWS)))).astype(np.float32)
    user = draw.integers(0, USERS, ROWS)
    some = user < LOOP_USERS
    part = label[some], score[some], user[some]
    ways: dict[str, Callable[[], float | None]] = {
        "auc": lambda: compute("auc", label, score, user, user),
        "scikit-learn": lambda: roc_auc_score(label, score),
        "gauc": lambda: compute("gauc", label, score, user, user),
        "group-by": lambda: group_by_loop(*part),
    }
    for way in ways.values():
        way()
    assert ways["auc"]() == pytest.approx(ways["scikit-learn"](), abs=1e-12)
    assert compute("gauc", *part[:2], part[2], part[2]) == pytest.approx(ways["group-by"](), abs=1e-12)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = time.process_time()
            way()
            times[name].append(time.process_time() - start)
    times["group-by"] = [t * USERS / LOOP_USERS for t in times["group-by"]]
    lines = ["| metric | here, ms | compared with | ms | ratio |", "|---|---|---|---|---|"]
    ratios = {}
    for name, other in (("auc", "scikit-learn"), ("gauc", "group-by")):
        ratios[name] = statistics.median(b / a for a, b in zip(times[name], times[other], strict=True))
        own, theirs = (f"{statistics.median(times[n]) * 1000:,.0f}" for n in (name, other))
        lines.append(f"| {name} | {own} | {other} | {theirs} | {ratios[name]:,.1f} |")
    lines += [
        "",
        f"{ROWS:,} rows and {USERS:,} users, equal values to 1e-12, checks of the input included. Medians of {ROUNDS}",
        f"rounds in turn, CPU time of one thread. scikit-learn {version('scikit-learn')}; group-by: a loop over the",
        f"groups of a polars data frame with `roc_auc_score`, timed on {LOOP_USERS:,} users and scaled.",
    ]
    report("Metrics", "\n".join(lines))
    benchmark.extra_info["ratios"] = ratios
    benchmark.pedantic(ways["auc"], rounds=1)
    assert ratios["auc"] >= 8 and ratios["gauc"] >= 1000, ratios
