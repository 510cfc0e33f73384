"""Content keys, derived seeds, configuration and registry."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import registry
from bench.errors import BenchError, unknown
from bench.spec import Spec, canonical, config, derive_seed, digest, rounded
from bench.spec.settings import COMMON, COMMON_SPACE, parse
from bench.suites.specify import specify

SPEC = Spec(
    dataset="movielens-100k",
    dataset_version=1,
    dataset_config={},
    method="mmoe",
    method_version=1,
    parts={"balancer": 1},
    config={"lr": 0.001, "experts": 4, "balancer": "uniform"},
    lm=None,
    seed=3,
    budget={"epochs": 20, "patience": 3},
)


def test_one_literal_key_stays() -> None:
    """If this fails, every stored record would get another name: bump the protocol instead."""
    assert SPEC.key == "8559724d734483ce"


def test_the_key_holds_all_that_decides_and_nothing_else() -> None:
    same = Spec(**{**SPEC.__dict__, "config": dict(reversed(SPEC.config.items()))})
    assert same.key == SPEC.key
    for name, value in {
        "seed": 4,
        "method_version": 2,
        "parts": {"balancer": 2},
        "lm": "x@1",
        "protocol": "paper",
    }.items():
        assert Spec(**{**SPEC.__dict__, name: value}).key != SPEC.key
    almost = Spec(**{**SPEC.__dict__, "config": {**SPEC.config, "lr": 0.00100001}})
    assert almost.key == SPEC.key  # the same to 4 significant digits


def test_canonical_json() -> None:
    assert canonical({"b": [1, 2.5], "a": "ä"}) == '{"a":"ä","b":[1,2.5]}'
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical({"a": math.nan})


@given(st.floats(-1e300, 1e300))
def test_rounding_keeps_four_digits_and_settles(value: float) -> None:
    once = rounded(value)
    assert rounded(once) == once
    assert math.isclose(once, value, rel_tol=1e-3)


def test_derived_seeds_depend_on_every_part() -> None:
    seeds = [derive_seed(*parts) for parts in (("a", 1), ("a", 2), ("b", 1), ("a", "1"), ("a",))]
    assert len(set(seeds)) == 5
    assert all(0 <= s < 2**63 for s in seeds)
    assert derive_seed("batches", 0) == 7849960795373768558
    assert digest([1]) == digest([1])


def test_settings_of_components_are_prefixed() -> None:
    resolved, parts = config.resolve("frozen", {"trunk": "mmoe", "trunk.experts": 2, "balancer": "static"})
    assert resolved["trunk.experts"] == 2
    assert resolved["balancer.weights"] is None
    assert parts == {"trunk": 1, "balancer": 1}
    assert "experts" not in resolved


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"expert": 2}, "did you mean 'experts'"),
        ({"experts": "many"}, "expected a whole number such as 4"),
        ({"experts": 2.5}, "expected a whole number"),
        ({"lr": "fast"}, "expected a number"),
        ({"lr": -1.0}, "must be positive"),
        ({"balancer": "unifrom"}, "did you mean 'uniform'"),
        ({"balancer": 3}, "expected a name"),
        ({"schedule": "cosin"}, "unknown value of 'schedule' 'cosin'; did you mean 'cosine'"),
        ({"features": "deepfm"}, "did you mean 'fm'"),
        ({"augment": "corp"}, "unknown value of 'augment' 'corp'; did you mean 'crop'"),
        ({"norm": "none at all"}, "unknown value of 'norm'"),
        ({"precision": "float16"}, "did you mean 'bfloat16'|did you mean 'float32'"),
        ({"warmup": 1.0}, "at least 0 and below 1"),
        ({"grad_clip": -1}, "'grad_clip' must be at least 0"),
    ],
)
def test_bad_settings(given_: dict[str, object], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        config.resolve("mmoe", given_)


def test_a_whole_number_may_stand_for_a_real_one() -> None:
    assert config.resolve("mmoe", {"lr": 1})[0]["lr"] == 1.0


def test_a_method_may_not_take_the_name_of_a_common_setting(tmp_path: Path) -> None:
    path = tmp_path / "greedy.py"
    head = "from bench.api import Method\n\n\nclass Greedy(Method):\n"
    path.write_text(f"{head}    def __init__(self, schema, inputs, *, warmup=3): ...\n")
    registry.add_plugin(path)
    try:
        with pytest.raises(BenchError, match="method 'greedy': setting 'warmup' is common to all methods"):
            config.resolve("greedy", {})
    finally:
        registry._plugins.pop("greedy")


def test_a_trunk_is_an_architecture() -> None:
    with pytest.raises(BenchError, match="itself built on a trunk"):
        config.resolve("frozen", {"trunk": "frozen"})


def test_parse() -> None:
    values = {"3": 3, "0.5": 0.5, "true": True, "null": None, "mmoe": "mmoe", '{"a": 1}': {"a": 1}}
    assert {text: parse(text) for text in values} == values


def test_common_settings_have_ranges_that_hold_their_defaults() -> None:
    assert set(COMMON) - set(COMMON_SPACE) == {"balancer", "augment", "augment_rate", "embedding_updates"}
    for key, space in COMMON_SPACE.items():
        assert space._contains(space.to_internal_repr(COMMON[key])), key


def test_specify_resolves_everything() -> None:
    spec = specify("sim-news", "mmoe", given={"experts": 2}, knobs={"groups": 300}, seed=1, budget={"epochs": 2})
    assert spec.config["experts"] == 2
    assert spec.config["lr"] == COMMON["lr"]
    assert spec.dataset_config["groups"] == 300
    assert spec.dataset_config["users"] == 2000
    assert spec.budget == {"epochs": 2, "patience": 3}
    with pytest.raises(BenchError, match="unknown setting 'group'"):
        specify("sim-news", "mmoe", knobs={"group": 300})


def test_language_models_are_named_by_their_weights() -> None:
    assert specify("sim-news", "frozen").lm == "all-MiniLM-L6-v2@53aa5117"
    with pytest.raises(BenchError, match="did you mean 'all-MiniLM-L6-v2'"):
        specify("sim-news", "frozen", given={"lm": "all-MiniLM-L6"})


def test_unknown_names_suggest() -> None:
    assert "did you mean 'mmoe'" in str(unknown("method", "mmeo", ["mmoe", "ple"]))
    assert "known: mmoe, ple" in str(unknown("method", "zzz", ["ple", "mmoe"]))


def test_a_file_must_define_one_class(tmp_path: Path) -> None:
    for body, message in (("x = 1\n", "found none"), ("def broken(:\n", "SyntaxError")):
        path = tmp_path / f"odd_{len(body)}.py"
        path.write_text(body)
        registry.add_plugin(path)
        with pytest.raises(BenchError, match=message):
            registry.load_method(path.stem)
        registry._plugins.pop(path.stem)


def test_a_plugin_may_not_take_a_name(tmp_path: Path) -> None:
    path = tmp_path / "mmoe.py"
    path.write_text("")
    registry.add_plugin(path)
    try:
        with pytest.raises(BenchError, match="already taken"):
            registry.methods()
    finally:
        registry._plugins.pop("mmoe")


def test_lowest_constraints_are_the_lower_bounds() -> None:
    root = registry.ROOT
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [r for name, some in project["optional-dependencies"].items() if name != "peers" for r in some]
    wanted = [r for r in (*project["dependencies"], *extras) if not r.startswith(project["name"])]
    bounds = {r.partition(">=")[0]: r.partition(">=")[2].partition(",")[0] for r in wanted}
    for file, exact in (("constraints-lowest.txt", True), ("constraints.txt", False)):
        lines = [line for line in (root / file).read_text("utf-8").splitlines() if not line.startswith("#")]
        pinned = dict(line.split("==") for line in lines)
        assert set(bounds) <= set(pinned), file
        if exact:
            assert pinned == bounds
