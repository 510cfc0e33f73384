"""Studies: what is searched, in which order, on which data, and what remains of it after an interruption."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from bench import metrics, registry
from bench.data.load import load
from bench.data.prepare import prepare
from bench.errors import BenchError
from bench.spec.settings import COMMON_SPACE
from bench.storage.records import Store
from bench.suites.specify import specify
from bench.training.contract import tiny_language_model
from bench.training.session import TrainingView
from bench.training.skill import constants
from bench.tuning.propose import propose
from bench.tuning.space import EQUAL, Space, _around, simplex, space_of
from bench.tuning.study import Search, training_seed
from tests.support.command import SMALL, Bench, Plugin
from tests.support.runs import made

KNOBS = {"users": 60, "items": 100, "groups": 200}
WORDS = ("-d", "sim-news", *SMALL, "--epochs", 2)
TASKS = ("click", "rec", "read_time", "rank", "interest")
Refused = Callable[..., str]


def small() -> TrainingView:
    return TrainingView.of(load(prepare("sim-news", KNOBS)))


def space(method: str, **fixed: Any) -> Space:
    return space_of(specify("sim-news", method, given=fixed, knobs=KNOBS), fixed, small())


@pytest.fixture
def study(bench: Bench, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Tunes in a results folder of this test; returns the outcome."""

    def call(method: str, trials: int, *words: object, results: str = "results") -> dict[str, Any]:
        done = bench(
            "tune", *WORDS, "-m", method, "--trials", trials, *words, "--results", tmp_path / results, "--json"
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return call


def trials_of(outcome: dict[str, Any]) -> list[dict[str, Any]]:
    """The trials without what the clock says."""
    return [{k: v for k, v in t.items() if k != "seconds"} for t in outcome["trials"]]


# The space


def test_the_space_is_the_method_s_the_common_one_and_the_loss_weights() -> None:
    found = space("mmoe")
    own = {"experts", "width", "depth", "tower", "dropout"}
    common = set(COMMON_SPACE) - {"precision"}
    assert set(found.ranges) == own | common | {f"balancer.weights.{t}" for t in TASKS}
    defaults = specify("sim-news", "mmoe").config
    assert {k: v for k, v in found.start.items() if k in defaults} == {k: defaults[k] for k in own | common}
    assert found.settings(0, found.start) == {}


def test_parts_of_a_method_bring_their_own_space() -> None:
    found = space("frozen", trunk="mmoe", lm=tiny_language_model()).ranges.keys()
    assert {k for k in found if k.startswith("trunk.")} == {f"trunk.{k}" for k in registry.load_method("mmoe").space}
    assert "balancer.weights.click" in found
    found = space("shared_bottom", balancer="gradnorm").ranges.keys()
    assert "balancer.alpha" in found and not any("weights" in k for k in found)


def test_what_cannot_matter_is_not_searched() -> None:
    assert set(space("popularity").ranges) == {"shrinkage"}  # it does not train
    assert not any(k.startswith("balancer") for k in space("single_task").ranges)  # no two tasks share anything


def test_what_is_fixed_is_not_searched() -> None:
    found = space("shared_bottom", lr=0.003, balancer="static")
    assert "lr" not in found.ranges and found.base == {} and found.weighted == ("balancer.weights",)
    weights = dict.fromkeys(TASKS, 0.2)
    assert space("shared_bottom", **{"balancer": "static", "balancer.weights": weights}).weighted == ()
    assert not any(k.startswith("balancer") for k in space("shared_bottom", balancer="uniform").ranges)
    with pytest.raises(BenchError, match="nothing left to tune"):
        space("popularity", shrinkage=2.0)


def test_a_default_outside_the_common_range_widens_it() -> None:
    for found, default in ((COMMON_SPACE["lr"], 2e-5), (COMMON_SPACE["batch_size"], 64)):
        wide = _around(found, default)
        assert wide._contains(wide.to_internal_repr(default)) and not isinstance(wide, str)
        assert _around(wide, default) is wide
    assert _around(COMMON_SPACE["lr"], 2e-5) == optuna.distributions.FloatDistribution(2e-5, 1e-2, log=True)


def test_loss_weights_are_uniform_on_the_simplex() -> None:
    """Their moments are those of a Dirichlet distribution with all parameters 1: mean 1/T and variance
    (T-1) / (T^2 (T+1))."""
    generator = np.random.default_rng(0)
    drawn = np.array(
        [list(simplex(dict(zip(TASKS, row, strict=True))).values()) for row in generator.random((20000, 5))]
    )
    assert (drawn > 0).all() and np.allclose(drawn.sum(axis=1), 1)
    assert np.allclose(drawn.mean(axis=0), 1 / 5, atol=0.005)
    assert np.allclose(drawn.var(axis=0), 4 / (25 * 6), atol=0.001)
    assert simplex(dict.fromkeys(TASKS, EQUAL)) == pytest.approx(dict.fromkeys(TASKS, 0.2))


# Trials


def test_the_defaults_come_first_and_weights_lie_on_the_simplex(study: Callable[..., dict[str, Any]]) -> None:
    found = study("shared_bottom", 3, "-s", "lr=0.003")
    first, *others = found["trials"]
    assert first["settings"] == {} and first["state"] == "complete"
    assert found["study"]["spec"]["config"]["lr"] == 0.003 and found["study"]["spec"]["config"]["balancer"] == "uniform"
    for trial in others:
        assert "lr" not in trial["params"] and trial["settings"]["balancer"] == "static"
        weights = trial["settings"]["balancer.weights"]
        assert set(weights) == set(TASKS) and min(weights.values()) > 0
        assert sum(weights.values()) == pytest.approx(1, abs=1e-3)  # 4 significant digits
        assert set(trial["valid"]) == set(TASKS) and trial["value"] == pytest.approx(max(trial["skills"].values()))
    assert len({json.dumps(t["settings"]) for t in found["trials"]}) == 3
    assert found["best"]["value"] == max(t["value"] for t in found["trials"])
    assert found["seconds"] == pytest.approx(sum(t["seconds"] for t in found["trials"]), abs=0.01)
    assert found["importances"] == {}


def test_the_value_of_trial_0_is_that_of_an_ordinary_run(study: Callable[..., dict[str, Any]]) -> None:
    """It is recomputed from the record of the same spec: the mean skill, over chance, of its validation metrics."""
    found = study("single_task", 1)
    spec = specify("sim-news", "single_task", knobs=KNOBS, seed=training_seed(0), budget={"epochs": 2})
    assert spec.to_dict() == found["study"]["spec"]
    record, _ = made(spec)
    base = constants(small().train, small().valid)
    skills = []
    for task in record["tasks"]:
        name, metric = task["name"], task["metric"]
        value, chance = record["metrics"]["valid"][name][metric], base[name][metric]
        assert chance is not None
        skills.append(metrics.skill(metric, value, chance))
    assert found["trials"][0]["value"] == pytest.approx(sum(skills) / len(skills), rel=1e-12)


def test_the_same_seed_gives_the_same_trials(study: Callable[..., dict[str, Any]]) -> None:
    """In one go, or in pieces; beyond the sampler's random start of 10 trials."""
    whole = study("popularity", 13)
    for trials in (1, 12, 13):
        pieces = study("popularity", trials, results="pieces")
    assert trials_of(pieces) == trials_of(whole) and pieces["key"] == whole["key"]
    assert pieces["importances"] == whole["importances"] == {"shrinkage": 1.0}
    other = study("popularity", 3, "--seed", 1)
    assert other["key"] != whole["key"] and trials_of(other)[1:] != trials_of(whole)[1:3]


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "random"])
def test_what_is_proposed_does_not_depend_on_interruptions(sampler: str) -> None:
    """A new process for each trial, some killed while its parameters were written: the trials of one that lived on."""
    found, search = space("shared_bottom"), Search(sampler)
    half = Space(dict([*found.ranges.items()][:7]), {}, (), {})
    whole = optuna.create_study(direction="maximize", study_name="same")
    storage = optuna.storages.InMemoryStorage()
    for number in range(13 if sampler == "gp" else 16):  # beyond its random start; each proposal of "gp" takes long
        pieces = optuna.create_study(direction="maximize", study_name="same", storage=storage, load_if_exists=True)
        if number % 3 == 2 and sampler != "gp":  # it also reads what it has proposed itself (docs/tuning.md)
            assert len(propose(pieces, half, search, pieces.ask()).params) == 7
            pieces = optuna.load_study(study_name="same", storage=storage)
        for each in (whole, pieces):
            left = [t for t in each.get_trials(deepcopy=False) if not t.state.is_finished()]
            trial = propose(each, found, search, left[0] if left else each.ask())
            assert trial.number == number
            each.tell(trial, -abs(trial.params["dropout"] - 0.3) - abs(math.log(trial.params["lr"] / 1e-3)))
    assert [t.params for t in pieces.trials] == [t.params for t in whole.trials]


def test_what_a_study_is_decides_its_key(study: Callable[..., dict[str, Any]]) -> None:
    words: list[tuple[object, ...]] = [
        (), ("--seed", 1), ("--sampler", "random"), ("--pruner", "median"), ("--epochs", 3), ("--patience", 1),
        ("-s", "lr=0.002"), ("-s", "lr=0.003"), ("--data", "users=61"),
    ]  # fmt: skip
    keys = [study("popularity", 1, *more)["key"] for more in words]
    assert len(set(keys)) == len(keys)


def test_finished_trials_are_not_run_again(
    bench: Bench, study: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = study("popularity", 3)
    (outcome,) = (tmp_path / "results" / "studies").rglob("*.json")
    stored = outcome.read_bytes()
    monkeypatch.setattr("bench.training.session.trained", None)  # a trial would fail
    words = ("tune", *WORDS, "-m", "popularity", "--trials", 3, "--results", tmp_path / "results")
    done = bench(*words)
    assert done.stderr.count("already stored (complete)") == 3
    assert done.stdout.splitlines()[-1].startswith("bench run --tuned -d sim-news -m popularity ")
    assert outcome.read_bytes() == stored
    assert trials_of(study("popularity", 2)) == trials_of(first)


def test_failed_diverged_and_pruned_trials_are_stored_with_their_reason(
    study: Callable[..., dict[str, Any]], plugin: Plugin
) -> None:
    """Wide ones fail, deep ones diverge; the others go on."""
    body = """
        def __init__(self, schema, inputs, *, width=128, depth=1, tower=32, dropout=0.1):
            super().__init__(schema, inputs, width=width, depth=depth, tower=tower, dropout=dropout)
            self.made = width, depth

        def on_start(self, train):
            if self.made[0] > 160:
                raise RuntimeError("too wide")

        def losses(self, outputs, batch):
            return super().losses(outputs, batch) * (float("nan") if self.made[1] == 3 else 1.0)
    """
    path = plugin("moody", body)
    fixed = [w for key in ("batch_size=2048", "balancer=uniform", "features=concat") for w in ("-s", key)]
    found = study("moody", 12, *fixed, "--plugin", path, "--pruner", "median")
    assert len(found["trials"]) == 12
    for trial in found["trials"]:
        made = {"width": 128, "depth": 1, **trial["settings"]}
        if made["width"] > 160:
            assert trial["state"] == "fail" and trial["reason"].startswith("failed: RuntimeError: too wide (moody.py:")
        elif made["depth"] == 3:
            assert trial["state"] == "fail" and trial["reason"] == "diverged: training loss is not finite in epoch 1"
        elif trial["state"] == "pruned":
            assert trial["reason"] == f"after epoch {len(trial['skills'])}" and set(trial["valid"]) == set(TASKS)
        else:
            assert trial["state"] == "complete" and trial["reason"] is None
        assert (trial["value"] is None) == (trial["state"] != "complete")
    reasons = {(t["reason"] or "").partition(":")[0] for t in found["trials"]}
    assert {"failed", "diverged", ""} <= reasons


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_pruning_ends_trials_early(study: Callable[..., dict[str, Any]], pruner: str) -> None:
    found = study("shared_bottom", 8, "--pruner", pruner, "--epochs", 4)
    pruned = [t for t in found["trials"] if t["state"] == "pruned"]
    assert pruned and all(t["reason"] == f"after epoch {len(t['skills'])}" for t in pruned)
    assert all(len(t["skills"]) < 4 for t in pruned)


def test_a_study_without_any_result_says_so(bench: Bench, plugin: Plugin, tmp_path: Path) -> None:
    path = plugin("broken", "def on_start(self, train):\n    raise RuntimeError('no luck')\n")
    words = ("tune", *WORDS, "-m", "broken", "--plugin", path, "--trials", 2, "--results", tmp_path)
    shown = bench(*words, code=1)
    assert "no trial has a result; the first: failed: RuntimeError: no luck (broken.py:" in shown.stderr
    (outcome,) = (tmp_path / "studies").rglob("*.json")
    assert json.loads(outcome.read_text())["best"] is None
    assert "no finished study of broken" in bench("run", "--tuned", *words[1:-4], "--results", tmp_path, code=2).stderr


# The test part


def test_tuning_cannot_reach_the_test_part(
    study: Callable[..., dict[str, Any]], bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data folder whose test part is poisoned gives the same study; a run, which tests, does not survive it."""
    assert not hasattr(small(), "test") and not hasattr(small(), "extra")
    whole = study("shared_bottom", 3)
    folder = prepare("sim-news", KNOBS)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    poisoned = tmp_path / "cache" / "data" / "sim-news" / folder.name
    shutil.copytree(folder, poisoned)
    arrays = list((poisoned / "arrays" / "test").rglob("*.npy"))
    for path in arrays:
        array = np.load(path)
        np.save(path, np.full_like(array, np.nan if array.dtype.kind == "f" else np.iinfo(np.int8).max))
    assert len(arrays) > 10
    assert trials_of(study("shared_bottom", 3, results="poisoned")) == trials_of(whole)
    with pytest.raises(IndexError):
        bench("run", *WORDS, "-m", "shared_bottom", "--workers", 1, "--results", tmp_path / "ran")


# Final runs


def test_tuned_runs_have_fresh_seeds_and_say_what_their_settings_cost(
    study: Callable[..., dict[str, Any]], bench: Bench, tmp_path: Path
) -> None:
    found = study("popularity", 5)
    assert found["best"]["trial"] > 0
    words = ("run", *WORDS, "-m", "popularity", "--workers", 1, "--results", tmp_path / "results")
    records = json.loads(bench(*words, "--tuned", "--seeds", 2, "--json").stdout)
    assert [r["spec"]["seed"] for r in records] == [0, 1] and found["study"]["spec"]["seed"] > 2**32
    for record in records:
        assert record["spec"]["config"]["shrinkage"] == found["best"]["settings"]["shrinkage"]
        assert record["cost"]["tuning_trials"] == 5 and record["cost"]["tuning_s"] == found["seconds"]
        assert record["status"] == "ok" and record["role"] == "final"
    (run,) = json.loads(bench("status", *WORDS, "-m", "popularity", *words[-2:], "--tuned", "--json").stdout)
    assert run["state"] == "done" and run["key"] == records[0]["key"]
    bench("status", *WORDS, "-m", "popularity", *words[-2:], code=1)
    bench(*words)
    untuned = [r["cost"] for r in Store(tmp_path / "results").records() if r["key"] not in {r["key"] for r in records}]
    assert [(c["tuning_trials"], c["tuning_s"]) for c in untuned] == [(0, 0.0)]


def test_loss_weights_reach_the_final_run(study: Callable[..., dict[str, Any]], bench: Bench, tmp_path: Path) -> None:
    found = study("shared_bottom", 4)
    outcome = tmp_path / "results" / "studies" / "sim-news" / "shared_bottom" / f"{found['key']}.json"
    chosen = found["trials"][2]
    found["best"] |= {"trial": 2, "settings": chosen["settings"]}  # whichever was best
    found["best"]["parts"] = {"balancer": 1}
    outcome.write_text(json.dumps(found))
    words = ("run", *WORDS, "-m", "shared_bottom", "--workers", 1, "--results", tmp_path / "results")
    (record,) = json.loads(bench(*words, "--tuned", "--json").stdout)
    made = record["spec"]["config"]
    assert made["balancer"] == "static" and made["lr"] == chosen["settings"]["lr"]
    assert made["balancer.weights"] == chosen["settings"]["balancer.weights"]


def test_the_study_must_be_of_the_same_settings_data_and_budget(
    study: Callable[..., dict[str, Any]], refused: Refused, tmp_path: Path
) -> None:
    study("popularity", 1, "-s", "lr=0.003")
    words = ("run", "--tuned", "-m", "popularity", "--results", tmp_path / "results")
    others: list[tuple[object, ...]] = [
        WORDS, (*WORDS[:-1], 3, "-s", "lr=0.003"), ("-d", "sim-news", "--epochs", 2, "-s", "lr=0.003")
    ]  # fmt: skip
    for other in others:
        message = refused(*words, *other)
        assert "no finished study of popularity on sim-news" in message
        assert "`bench tune -d sim-news -m popularity --trials 20`" in message


def test_the_latest_study_counts(study: Callable[..., dict[str, Any]], bench: Bench, tmp_path: Path) -> None:
    words = ("run", "--tuned", *WORDS, "-m", "popularity", "--workers", 1, "--results", tmp_path / "results", "--json")
    for seed in (0, 1):
        latest = study("popularity", 3 + seed, "--seed", seed)
        (record,) = json.loads(bench(*words).stdout)
        assert record["spec"]["config"]["shrinkage"] == pytest.approx(latest["best"]["settings"].get("shrinkage", 10.0))
        assert latest["best"]["trial"] == 0 or record["cost"]["tuning_trials"] == 3 + seed


# Bad input


def test_bad_input_is_named(refused: Refused, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("tune", *WORDS, "--trials", 1, "--results", tmp_path / "results", "-m")
    assert "'annealing' is not one of" in bench(*words, "popularity", "--sampler", "annealing", code=2).stderr
    assert "did you mean 'popularity'" in refused(*words, "popularty")
    assert "unknown setting 'shrinkag'" in refused(*words, "popularity", "-s", "shrinkag=1")
    assert "nothing left to tune" in refused(*words, "popularity", "-s", "shrinkage=1")
    assert "declines data set 'sim-news'" in refused(*words, "esmm")
    message = refused(*words, "popularity", "--storage", f"sqlite:///{tmp_path / 'missing' / 'study.db'}")
    assert "--storage cannot be used as a study's storage: " in message
    assert "--storage cannot be used" in refused(*words, "popularity", "--storage", "nonsense")
    assert not list((tmp_path / "results").rglob("*.json"))
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused(*words[:-2], tmp_path / "file" / "below", "-m", "popularity")


def test_damaged_files_are_named(study: Callable[..., dict[str, Any]], refused: Refused, tmp_path: Path) -> None:
    study("popularity", 1)
    outcome, log = (next((tmp_path / "results" / "studies").rglob(f"*.{end}")) for end in ("json", "log"))
    words = (*WORDS, "-m", "popularity", "--results", tmp_path / "results")
    for text in ("{", "[]", '{"schema": 2}', '{"schema": 1, "key": "x", "study": {}}'):
        outcome.write_text(text)
        assert outcome.name in refused("run", "--tuned", *words)
    log.write_text("nonsense\n" + log.read_text())
    assert log.name in refused("tune", *words, "--trials", 2)


def test_a_database_holds_the_same_study(study: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    words = ("--storage", f"sqlite:///{tmp_path / 'study.db'}")
    study("popularity", 2, *words, results="database")
    assert trials_of(study("popularity", 4, *words, results="database")) == trials_of(study("popularity", 4))
    assert not list((tmp_path / "database").rglob("*.log"))
