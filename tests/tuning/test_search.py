"""Ways to search: a grid, a front of tasks, two stages, a budget of seconds; loss weights worth finding."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from torch import Tensor

from bench.api import Task
from bench.data.load import Data, load
from bench.data.tensors import Split
from bench.tuning.outcome import front
from bench.tuning.space import WEIGHT, Space
from tests.support.command import SMALL, Bench, Plugin

WORDS = ("-d", "sim-news", *SMALL, "--epochs", 2)
TASKS = ("click", "rec", "read_time", "rank", "interest")
FIXED = (
    "weight_decay=0", "batch_size=512", "embedding=8", "id_dropout=0", "features=concat", "norm=none",
    "schedule=constant", "warmup=0", "grad_clip=0", "decay_embeddings=false",
)  # fmt: skip
Refused = Callable[..., str]


@pytest.fixture
def outcome(bench: Bench, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Tunes in a results folder of this test; returns the outcome."""

    def call(*words: object) -> dict[str, Any]:
        done = bench("tune", *WORDS, *words, "--results", tmp_path / "results", "--json")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return call


# Grid


def test_a_grid_has_every_combination_once() -> None:
    ranges: dict[str, Any] = {
        "depth": IntDistribution(1, 2),
        "width": IntDistribution(16, 256, log=True),
        "lr": FloatDistribution(1e-4, 1e-2, log=True),
        "dropout": FloatDistribution(0.0, 0.5),
        "norm": CategoricalDistribution(["none", "batch"]),
        "balancer.weights.click": WEIGHT,
    }
    grid = Space(ranges, {}, (), {}).grid(3)
    assert grid.values["depth"] == [1, 2] and grid.values["width"] == [16, 64, 256]
    assert grid.values["lr"] == pytest.approx([1e-4, 1e-3, 1e-2]) and grid.values["dropout"] == [0.0, 0.25, 0.5]
    assert grid.values["norm"] == ["none", "batch"] and grid.values["balancer.weights.click"] == [1 / 6, 0.5, 5 / 6]
    points = {tuple(grid[i].values()) for i in range(len(grid))}
    assert len(points) == len(grid) == 2 * 3 * 3 * 3 * 2 * 3
    assert all(ranges[k]._contains(ranges[k].to_internal_repr(v)) for k, v in grid[len(grid) - 1].items())


def test_a_grid_is_tried_after_the_defaults(outcome: Callable[..., dict[str, Any]], refused: Refused) -> None:
    found = outcome("-m", "popularity", "--sampler", "grid", "--points", 4)
    first, *points = [t["settings"] for t in found["trials"]]
    assert first == {} and [p["shrinkage"] for p in points] == pytest.approx([1, 4.642, 21.54, 100], rel=1e-3)
    message = refused("tune", *WORDS, "-m", "popularity", "--sampler", "grid", "--points", 4, "--trials", 3)
    assert "the grid has 4 points: give --trials 5 (the defaults come first)" in message


# A front


def test_a_front_and_its_hypervolume() -> None:
    """Against the area counted by hand, and by chance points in three dimensions."""

    def trials(*values: list[float]) -> list[optuna.trial.FrozenTrial]:
        study = optuna.create_study(directions=["maximize"] * len(values[0]))
        for own in values:
            study.add_trial(optuna.trial.create_trial(values=own))
        return study.get_trials()

    found = front(trials([0.2, 0.6], [0.1, 0.5], [0.5, 0.3], [0.5, 0.1], [-0.1, 0.9]))
    assert found["front"] == [0, 2, 4]  # the last is worse than chance in one task: it adds no volume
    assert found["hypervolume"] == pytest.approx(0.2 * 0.6 + 0.3 * 0.3)
    assert front([]) == {"front": [], "hypervolume": 0.0}
    drawn = np.random.default_rng(0).random((8, 3))
    below = np.random.default_rng(1).random((200_000, 3))
    share = (drawn[:, None] >= below).all(axis=2).any(axis=0).mean()
    assert front(trials(*drawn.tolist()))["hypervolume"] == pytest.approx(share, abs=0.004)


def test_each_task_is_an_objective(
    outcome: Callable[..., dict[str, Any]], bench: Bench, refused: Refused, tmp_path: Path
) -> None:
    words = ("-m", "shared_bottom", "--pareto", "--trials", 4)
    found = outcome(*words)
    values = np.array([list(t["values"].values()) for t in found["trials"]])
    assert values.shape == (4, 5) and set(found["trials"][0]["values"]) == set(TASKS)
    assert [t["value"] for t in found["trials"]] == pytest.approx(values.mean(axis=1))
    beaten = [any((other >= own).all() and (other > own).any() for other in values) for own in values]
    assert found["front"] == [i for i, bad in enumerate(beaten) if not bad]
    shown = bench("tune", *WORDS, *words, "--results", tmp_path / "results").stdout
    assert f"front: trials {', '.join(map(str, found['front']))}; hypervolume" in shown
    assert "--pareto has several objectives" in refused("tune", *WORDS, *words, "--pruner", "median")
    assert "--pareto has several objectives" in refused("tune", *WORDS, *words, "--sampler", "cmaes")


# Two stages


def test_weights_after_settings(
    outcome: Callable[..., dict[str, Any]], bench: Bench, refused: Refused, tmp_path: Path
) -> None:
    words = ("-m", "shared_bottom", "-s", "lr=0.003")
    second = (*words, "--stage", "weights", "--trials", 3)
    where = ("--results", tmp_path / "results")
    assert "`bench tune -d sim-news -m shared_bottom --stage settings --trials 20`" in refused(
        "tune", *WORDS, *second, *where
    )
    first = outcome(*words, "--stage", "settings", "--trials", 4)
    assert all("balancer" not in t["settings"] for t in first["trials"])
    found = outcome(*second)
    chosen = first["best"]["settings"]
    assert found["study"]["after"] == {"key": first["key"], "settings": chosen}
    assert found["trials"][0]["settings"] == chosen
    assert found["trials"][0]["value"] == first["best"]["value"]
    for trial in found["trials"][1:]:
        assert set(trial["params"]) == {f"balancer.weights.{t}" for t in TASKS}
        assert {k: v for k, v in trial["settings"].items() if not k.startswith("balancer")} == chosen
    (record,) = json.loads(bench("run", "--tuned", *WORDS, *words, "--workers", 1, *where, "--json").stdout)
    assert {k: record["spec"]["config"][k] for k in found["best"]["settings"]} == found["best"]["settings"]
    assert record["cost"]["tuning_trials"] == 7
    assert record["cost"]["tuning_s"] == pytest.approx(first["seconds"] + found["seconds"], abs=0.002)


# Seconds


def test_a_budget_of_seconds_ends_a_study(outcome: Callable[..., dict[str, Any]], plugin: Plugin) -> None:
    path = plugin("slow", "def on_epoch(self, epoch, valid):\n    time.sleep(0.1)\n")
    words = ("-m", "slow", "--plugin", path, "--seconds")
    found = outcome(*words, 0.5)
    took = [t["seconds"] for t in found["trials"]]
    assert sum(took[:-1]) < 0.5 <= sum(took)  # the last one began within the budget
    assert len(outcome(*words, sum(took) + 0.5)["trials"]) > len(took)
    assert len(outcome(*words, 100, "--trials", len(took) + 3)["trials"]) == len(took) + 3


def test_a_study_needs_some_budget(refused: Refused) -> None:
    assert "say how long to search" in refused("tune", *WORDS, "-m", "popularity")


# Loss weights

ONE_HEAD = '''"""One linear output for all tasks."""

from torch import nn

from bench.api import Method


class OneHead(Method):
    """Both tasks read the same number."""

    def __init__(self, schema, inputs):
        super().__init__(schema)
        self.line = nn.Linear(1, 1)

    def forward(self, batch):
        value = self.line(batch.items.num[batch.item, :1]).squeeze(1)
        self.shared = [value]
        return {t.name: value for t in self.tasks}
'''


def conflicting(folder: Path) -> Data:
    """Two labels that one number cannot serve: they rise and fall with the article's length."""
    data = load(folder)
    schema = replace(data.schema, tasks=(Task("up", "regression"), Task("down", "regression")))

    def relabelled(split: Split, seed: int) -> Split:
        length = split.items.num[split.item.long(), 0]
        noise = np.random.default_rng(seed).standard_normal((2, split.rows))
        up, down = length + 0.3 * Tensor(noise[0]), -length + 1.0 * Tensor(noise[1])
        return replace(split, schema=schema, labels={"up": up, "down": down}, truth={})

    return replace(data, schema=schema, train=relabelled(data.train, 0), valid=relabelled(data.valid, 1))


@pytest.mark.slow
def test_loss_weights_come_within_two_percent_of_a_dense_grid(
    outcome: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 40 trials the best is compared with 401 weights whose models are known in closed form: with weights (w, 1 - w)
    and least squares the one output is w times the fit of the one task and 1 - w times that of the other."""
    monkeypatch.setattr("bench.tuning.study.load", conflicting)
    path = tmp_path / "one_head.py"
    path.write_text(ONE_HEAD)
    settings = [w for setting in (*FIXED, "lr=0.03") for w in ("-s", setting)]
    found = outcome("-m", "one_head", "--plugin", path, *settings, "--epochs", 30, "--trials", 40)

    from bench.data.prepare import prepare

    data = conflicting(prepare("sim-news", {"users": 60, "items": 100, "groups": 200}))
    parts = []
    for split in (data.train, data.valid):
        length = split.items.num[split.item.long(), 0].numpy().astype(float)
        design = np.stack([length, np.ones_like(length)], axis=1)
        parts.append((design, np.stack([split.labels["up"].numpy(), split.labels["down"].numpy()], axis=1)))
    (design, labels), (there, wanted) = parts
    fits = there @ np.linalg.lstsq(design, labels, rcond=None)[0]
    chance = np.sqrt(((wanted - labels.mean(axis=0)) ** 2).mean(axis=0))

    def skill(w: float) -> float:
        output = fits @ np.array([w, 1 - w])
        return float((1 - np.sqrt(((wanted - output[:, None]) ** 2).mean(axis=0)) / chance).mean())

    dense = {w: skill(w) for w in np.linspace(0, 1, 401)}
    known = max(dense, key=lambda w: dense[w])
    assert 0.6 < known < 0.98 and skill(0.5) < 0.5 * dense[known]  # neither equal weights nor a single task
    weights = found["best"]["settings"]["balancer.weights"]
    assert skill(weights["up"]) > 0.98 * dense[known]
    assert found["best"]["value"] == pytest.approx(dense[known], rel=0.02)  # as trained, not as computed
    assert math.isclose(weights["up"] + weights["down"], 1, abs_tol=1e-3)
