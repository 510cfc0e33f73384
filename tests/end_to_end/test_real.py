"""On the real data and the real language model (`make slow`): the quick suite's claims and the simulation's promises.

Raw files and weights come from packages, through the index, on the first run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from bench.data.describe import verify
from bench.data.load import load
from bench.data.prepare import configured, prepare
from bench.datasets.logs.wording import NEWS, SHOP, VIDEO, Wording
from bench.execution.execute import Place, execute
from bench.execution.progress import Progress
from bench.metrics import METRICS, skill
from bench.statistics.intervals import mean_interval
from bench.storage.records import Store
from bench.suites.specify import specify
from bench.suites.sweep import load as suite_of
from bench.text.encode import vectors
from bench.text.models import identity

pytestmark = pytest.mark.slow
QUICK = suite_of("quick")
Results = dict[str, list[dict[str, Any]]]


def run(dataset: str, folder: Path, *methods: str) -> Results:
    """Records of methods on a data set of the quick suite, by method."""
    setup, seeds = QUICK.datasets[dataset], range(QUICK.seeds)
    specs = [specify(dataset, m, given=setup.settings, seed=s, budget=setup.budget) for m in methods for s in seeds]
    store = Store(folder)
    execute(specs, store, Progress(len(specs)), Place(torch.device("cpu"), workers=2))
    found: Results = {m: [] for m in methods}
    for record in store.records():
        assert record["status"] == "ok", record["error"]
        found[record["spec"]["method"]].append(record)
    return found


@pytest.fixture(scope="module")
def news(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run("sim-news", tmp_path_factory.mktemp("news"), *QUICK.methods)


def values(records: list[dict[str, Any]], task: Mapping[str, str], *place: str) -> list[float]:
    """One value a seed."""
    found = []
    for record in records:
        part = record["metrics"]
        for key in place:
            part = part[key]
        found.append(part[task["name"]][task["metric"]])
    return found


def test_shared_bottom_beats_popularity_and_chance_on_every_task_of_movielens(tmp_path: Path) -> None:
    found = run("movielens-100k", tmp_path, "shared_bottom", "popularity")
    first = found["shared_bottom"][0]
    for task in first["tasks"]:
        chance = first["references"]["chance"]["test"][task["name"]][task["metric"]]
        ours, popular = (values(found[m], task, "test") for m in ("shared_bottom", "popularity"))
        for value, base in zip(ours, popular, strict=True):
            assert skill(task["metric"], value, chance) > max(0.0, skill(task["metric"], base, chance)), task


def test_nothing_beats_the_oracle_beyond_noise(news: Results) -> None:
    for method, records in news.items():
        for task in records[0]["tasks"]:
            known = records[0]["references"]["oracle"]["test"][task["name"]][task["metric"]]
            centre, half = mean_interval(values(records, task, "test"))
            sign = 1 if METRICS[task["metric"]].larger else -1
            assert sign * (centre - known) <= (half or 0.0), (method, task)


def test_text_places_unseen_articles_where_ids_cannot(news: Results) -> None:
    for task in news["frozen"][0]["tasks"]:
        if task["scope"] != "pair":
            continue
        sign = 1 if METRICS[task["metric"]].larger else -1
        place = ("slices", "cold_item", "metrics")
        text = mean(values(news["frozen"], task, *place))
        for other in ("single_task", "shared_bottom", "mmoe"):
            assert sign * (text - mean(values(news[other], task, *place))) > 0, (task, other)


@pytest.mark.parametrize("name", list(QUICK.datasets))
def test_prepared_data_pass_their_checks(name: str) -> None:
    dataset, _ = configured(name, {})
    problems = [(title, problem) for title, problem in verify(dataset, load(prepare(name))) if problem]
    assert not problems


def test_counts_of_the_real_data() -> None:
    rows = {name: load(prepare(name)).meta["parts"] for name in ("movielens-100k", "complete-journey")}
    assert sum(part["groups"] for part in rows["movielens-100k"].values()) == 99_984
    assert {k: v["rows"] for k, v in rows["complete-journey"].items()} == {"train": 21812, "valid": 6282, "test": 6836}


@pytest.mark.parametrize("words", [NEWS, SHOP, VIDEO], ids=["news", "shop", "video"])
def test_only_a_language_model_can_place_shifted_titles(words: Wording) -> None:
    """A linear probe, trained on titles of the seen vocabulary, on titles that share no topic word with them."""
    rng = np.random.default_rng(7)
    topic = rng.integers(len(words.topics), size=1600)
    known, new = topic[:1200], topic[1200:]
    seen, _ = words.compose(known, np.zeros(len(known), bool), rng)
    shifted, _ = words.compose(new, np.ones(len(new), bool), rng)
    encoded = vectors([*seen, *shifted], identity("all-MiniLM-L6-v2"))
    probe = LogisticRegression(max_iter=3000).fit(encoded[: len(seen)], known)
    assert probe.score(encoded[len(seen) :], new) > 0.85
    counts = TfidfVectorizer().fit(seen)
    words_only = LogisticRegression(max_iter=3000).fit(counts.transform(seen), known)
    assert words_only.score(counts.transform(shifted), new) < 0.25  # chance is .125
