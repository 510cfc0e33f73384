"""The same spec gives the same numbers: in other processes, with other hash seeds, beside and after other runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.data.load import load
from bench.data.prepare import prepare
from bench.registry import methods
from bench.spec import derive_seed
from tests.support.command import SMALL, Bench, Plugin, Start

Records = Callable[[Path], dict[str, Any]]

# Notes the items of each batch of each epoch, as fit gives them, in a file; the numbers are not changed.
NOTING = """
def step(self, batch, optimizer):
    with open({path!r}, "a") as file:
        print(*batch.item.tolist(), *batch.labels["click"].tolist(), file=file)
    return super().step(batch, optimizer)
"""


def test_other_processes_give_the_same_records(start: Start, bench: Bench, records: Records, tmp_path: Path) -> None:
    """Two workers under another hash seed, with a cache of their own: every record is that of one process here."""
    trained = [name for name in ("single_task", "shared_bottom", "mmoe") if name in methods()]
    chosen = [word for name in (*trained, "popularity") for word in ("-m", name)]
    words = ("run", "-d", "sim-news", *SMALL, *chosen, "-s", "balancer=static", "--epochs", 2)
    environment = {**os.environ, "PYTHONHASHSEED": "2", "BENCH_CACHE": str(tmp_path / "cache")}
    process = start(*words, "--workers", 2, "--results", tmp_path / "results-there", env=environment)
    bench(*words, "--workers", 1, "--results", tmp_path / "results-here")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    here = records(tmp_path / "results-here")
    assert len(here) == len(trained) + 1
    assert all(r["status"] == "ok" and (r["curve"] or r["spec"]["method"] == "popularity") for r in here.values())
    assert records(tmp_path / "results-there") == here
    for path in (tmp_path / "results-here" / "predictions").iterdir():
        assert (tmp_path / "results-there" / "predictions" / path.name).read_bytes() == path.read_bytes()


def test_runs_beside_or_before_it_do_not_change_a_run(bench: Bench, records: Records, tmp_path: Path) -> None:
    """Alone, after other methods and seeds, and in another order of the command line: no state leaks between runs."""
    words = ("run", "-d", "sim-video", *SMALL, "--epochs", 2, "--workers", 1)
    bench(*words, "-m", "mmoe", "--results", tmp_path / "alone")
    torch.manual_seed(99)
    np.random.seed(99)
    bench(*words, "-m", "single_task", "-m", "mmoe", "--seeds", 2, "--results", tmp_path / "after")
    bench(*words, "-m", "mmoe", "-m", "single_task", "--seeds", 2, "--results", tmp_path / "order")
    alone, after = records(tmp_path / "alone"), records(tmp_path / "after")
    assert len(alone) == 1 and len(after) == 4
    assert {k: after[k] for k in alone} == alone
    assert records(tmp_path / "order") == after


def test_seeds_and_settings_matter(bench: Bench, tmp_path: Path) -> None:
    """What is in the spec changes the numbers; what is not (workers, folder) has been shown not to."""
    words = ("run", "-d", "sim-news", *SMALL, "-m", "shared_bottom", "--workers", 1, "--results", tmp_path, "--json")
    variants = [("--epochs", 2), ("--epochs", 3), ("--epochs", 2, "-s", "lr=0.01"), ("--epochs", 2, "--data", "seed=1")]
    found = [json.loads(bench(*words, "--seeds", 2, *variant).stdout) for variant in variants]
    runs = [r for some in found for r in some]
    assert len({r["key"] for r in runs}) == len({json.dumps(r["curve"]) for r in runs}) == 2 * len(variants)
    assert len({r["data"]["sha256"] for r in runs}) == 2  # of which one for each data seed


def test_batches_are_the_same_for_every_method(bench: Bench, plugin: Plugin, records: Records, tmp_path: Path) -> None:
    """Two methods of other sizes, which draw other numbers, see the same rows in the same order; seeds differ."""
    notes = {name: tmp_path / f"{name}.txt" for name in ("small", "large")}
    head = "from baselines.mmoe import Mmoe as SharedBottom"  # another architecture under the same skeleton
    small = plugin("small", NOTING.format(path=str(notes["small"])))
    large = plugin("large", NOTING.format(path=str(notes["large"])) + "defaults = {'embedding': 32}\n", head=head)
    words = ("-d", "sim-news", *SMALL, "--epochs", 2, "-s", "batch_size=256", "--workers", 1, "--seeds", 2)
    both = ("-m", "small", "-m", "large", "--plugin", small, "--plugin", large)
    bench("run", *words, *both, "--results", tmp_path / "results")
    lines = {name: path.read_text().splitlines() for name, path in notes.items()}
    assert lines["small"] == lines["large"] and len(lines["small"]) % 4 == 0
    epochs = np.array_split(np.array(lines["small"], dtype=object), 4)  # seed 0 twice, seed 1 twice
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert len({tuple(sorted(" ".join(epoch).split())) for epoch in epochs}) == 1  # the same rows each time
    found = records(tmp_path / "results").values()
    assert len({r["data"]["sha256"] for r in found}) == 1
    assert len({json.dumps(r["metrics"]) for r in found}) == 4

    data = load(prepare("sim-news", {"users": 60, "items": 100, "groups": 200}))
    generator = torch.Generator().manual_seed(derive_seed("batches", 0))
    batches = [b for _ in range(2) for b in data.train.batches(256, generator)]
    assert [line.split()[: len(b.item)] for line, b in zip(lines["small"], batches, strict=False)] == [
        [str(i) for i in b.item.tolist()] for b in batches
    ]


@pytest.mark.parametrize("dataset", ["sim-news", "sim-shop", "sim-video"])
def test_preparing_again_gives_the_same_bytes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dataset: str
) -> None:
    made = []
    for place in ("one", "two"):
        monkeypatch.setenv("BENCH_CACHE", str(tmp_path / place))
        folder = Path(bench("data", "prepare", dataset, *SMALL).stdout.strip())
        made.append(
            {p.relative_to(tmp_path / place).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        )
    assert made[0] == made[1]
