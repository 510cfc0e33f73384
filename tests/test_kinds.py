"""Task kinds: a new one is one class, a new metric one function and its name; both go end to end to a scored record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import inf
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench import registry
from bench.api import Tables, Task
from bench.data.encode import encode
from bench.datasets.sim_news import SimNews
from bench.errors import BenchError
from bench.kinds import KINDS, Kind
from bench.metrics import METRICS, exact
from bench.nn import base_rate
from tests.support.command import SMALL, Bench


@pytest.fixture
def count() -> Iterator[None]:
    """A kind of its own with a metric of its own, for one test."""

    @exact.metric("within_one")
    def within_one(label: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Share of rows that are off by at most one."""
        return np.abs(label - value) <= 1

    class Count(Kind):
        """How many: the output is the logarithm of a Poisson rate."""

        metrics = ("rmse", "within_one")
        labels = (0, inf)

        def each(self, output: Tensor, target: Tensor) -> Tensor:
            """Returns the negative log-likelihood."""
            return F.poisson_nll_loss(output, target, reduction="none")

        def prediction(self, output: Tensor) -> Tensor:
            """Returns rates."""
            return output.exp()

        def raw(self, prediction: Tensor, least: float = 1e-6) -> Tensor:
            """Returns the logarithms of rates."""
            return prediction.clamp(min=least).log()

    yield
    del KINDS["count"], METRICS["within_one"]


class Counted(SimNews):
    """The simulated news, and how often an article was opened: which depends on the time of the day."""

    forbidden = (*SimNews.forbidden, "opened")
    least = 0

    def __init__(self, **knobs: float) -> None:
        super().__init__(**knobs)  # type: ignore[arg-type]
        self.tasks = (Task("click", "binary"), Task("opened", "count"))

    def build(self, raw: Mapping[str, Path]) -> Tables:
        tables = super().build(raw)
        daypart = tables.groups.select("group", pl.col("daypart").cast(pl.String).rank("dense").alias("rate"))
        rate = tables.rows.join(daypart, on="group", how="left", maintain_order="left")["rate"].to_numpy()
        opened = np.random.default_rng(0).poisson(1.5 * rate) + self.least
        columns = {"opened": pl.Series(opened.astype(np.float32)), "truth:opened": pl.Series(1.5 * rate)}
        tables.rows = tables.rows.with_columns(**columns)
        return tables


def test_a_kind_is_one_class_and_a_metric_one_function(
    count: None, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "load_dataset", lambda name: Counted)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))  # these data are no others'
    methods = ("shared_bottom", "gbdt", "logistic_regression", "popularity", "mf")
    flags = [word for name in methods for word in ("-m", name)]
    bench("run", "-d", "sim-news", *flags, *SMALL, "--epochs", 3, "--workers", 1, "--results", tmp_path / "results")
    records = [json.loads(path.read_text("utf-8")) for path in tmp_path.glob("results/runs/*/*/*.json")]
    assert sorted(r["spec"]["method"] for r in records) == sorted(methods)
    for record in records:
        assert record["status"] == "ok", record["error"]
        assert {t["name"]: (t["kind"], t["metric"]) for t in record["tasks"]}["opened"] == ("count", "rmse")
        found, chance = record["metrics"]["test"]["opened"], record["references"]["chance"]["test"]["opened"]
        assert found.keys() == {"rmse", "within_one"} and 0 < found["within_one"] < 1
        personal = record["spec"]["method"] in ("gbdt", "logistic_regression", "shared_bottom")
        assert found["rmse"] < (chance["rmse"] if personal else 1.2 * chance["rmse"]), record["spec"]["method"]


def test_labels_outside_the_range_of_a_kind_are_refused(count: None) -> None:
    dataset = Counted(users=60, items=100, groups=200)
    dataset.least = -1
    with pytest.raises(BenchError, match="label 'opened': -1 is outside 0 to inf, those of a count task"):
        encode(dataset, dataset.build({}))


def test_classes_that_nobody_names_are_refused() -> None:
    dataset = SimNews(users=60, items=100, groups=200)
    dataset.tasks = (Task("interest", "multiclass", scope="user"),)
    with pytest.raises(BenchError, match="task 'interest' has no classes: name them in `tasks`"):
        encode(dataset, dataset.build({}))


def test_a_name_that_is_taken_is_refused() -> None:
    known = KINDS["binary"]
    with pytest.raises(BenchError, match="'binary' is already taken"):
        type("Binary", (Kind,), {})
    assert KINDS["binary"] is known


def test_every_kind_names_metrics_that_there_are() -> None:
    for name, kind in KINDS.items():
        assert {*kind.metrics, *kind.others} <= METRICS.keys(), name


@pytest.mark.parametrize("name", KINDS)
def test_raw_outputs_and_predictions_are_inverse(name: str) -> None:
    task = Task("t", name, classes=("a", "b", "c") if KINDS[name].classes else ())
    output = task.traits.shaped(torch.randn(5, task.outputs, generator=torch.Generator().manual_seed(0)))
    prediction = task.traits.prediction(output)
    torch.testing.assert_close(task.traits.prediction(task.traits.raw(prediction)), prediction)


@pytest.mark.parametrize("name", KINDS)
def test_the_best_constant_has_the_least_loss(name: str) -> None:
    """No step away from the base rate lowers the mean loss; of pieces it is that of all labels."""
    task = Task("t", name, classes=("a", "b") if KINDS[name].classes else ())
    label = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0] * 400)
    best = base_rate(task, label)
    pieces = [label[:700].numpy(), np.empty(0, np.float32), label[700:].numpy()]
    parts = task.traits.constant(iter(pieces), task.outputs)
    if best is None:
        assert parts is None and task.traits.grouped
        return
    assert parts is not None
    whole = task.traits.raw(torch.from_numpy(np.asarray(parts)).reshape(-1)).float()
    torch.testing.assert_close(whole, best, atol=1e-5, rtol=1e-5)
    group = torch.zeros(len(label), dtype=torch.int32)

    def loss(output: Tensor) -> float:
        shaped = task.traits.shaped(output.repeat(len(label), 1))
        return task.traits.loss(shaped, label, group, 1).item()

    for i in range(task.outputs):
        for step in (-0.1, 0.1):
            moved = best.clone()
            moved[i] += step
            assert loss(moved) > loss(best)
    assert task.traits.constant(iter([np.empty(0, np.float32)]), task.outputs) is None
