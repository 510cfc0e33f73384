"""Sweeps in YAML: what a file means, and that everything wrong in one is named with its file and line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from bench import registry
from bench.errors import BenchError
from bench.suites.sweep import Entry, Setup, load, paths
from tests.support.command import SMALL, Bench

WHOLE = """
about: Everything that a sweep can have
protocol: clean
seeds: 2
budget: { epochs: 4, patience: 2 }
methods:
  - popularity
  - method: mmoe
    settings: { lr: 1e-3 }
    grid: { experts: [2, 4], norm: [none, layer] }
datasets:
  sim-shop:
  sim-news:
    knobs: { correlation: -0.5 }
    settings: { batch_size: 512 }
    budget: { epochs: 1 }
    methods:
      - { method: shared_bottom, settings: { balancer: static, balancer.weights: { click: 2 } } }
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "sweep.yaml"
        path.write_text(text, "utf-8")
        return path

    return write


def test_a_whole_sweep(sweep: Callable[[str], Path]) -> None:
    suite = load(str(sweep(WHOLE)))
    grid = [(2, "none"), (2, "layer"), (4, "none"), (4, "layer")]
    common = [Entry("popularity"), *(Entry("mmoe", {"lr": 1e-3, "experts": e, "norm": n}) for e, n in grid)]
    own = Entry("shared_bottom", {"balancer": "static", "balancer.weights": {"click": 2}})
    assert (suite.about, suite.seeds) == ("Everything that a sweep can have", 2)
    assert suite.datasets == {
        "sim-shop": Setup(common, {"epochs": 4, "patience": 2}),
        "sim-news": Setup([*common, own], {"epochs": 1, "patience": 2}, {"batch_size": 512}, {"correlation": -0.5}),
    }
    assert suite.methods == ["popularity", "mmoe", "shared_bottom"]


def test_what_may_be_left_out(sweep: Callable[[str], Path]) -> None:
    suite = load(str(sweep("datasets: { sim-news: { methods: [mf] } }\n")))
    assert (suite.about, suite.seeds, suite.datasets) == ("", 1, {"sim-news": Setup([Entry("mf")])})


def test_words_and_numbers_are_those_of_json(sweep: Callable[[str], Path]) -> None:
    """Where YAML 1.1 would have a truth value, an octal, a number of base 60 or a date."""
    settings = "{ a: no, b: 010, c: 1:30, d: 2024-01-01, e: 1e3, f: -2, g: 1_000, h: true, i: null, j: [.5, on] }"
    (entry,) = (
        load(str(sweep(f"datasets: {{ sim-news: {{ methods: [{{ method: mf, settings: {settings} }}] }} }}")))
        .datasets["sim-news"]
        .entries
    )
    assert entry.settings == {
        "a": "no", "b": "010", "c": "1:30", "d": "2024-01-01", "e": 1000.0, "f": -2, "g": "1_000", "h": True, "i": None,
        "j": [0.5, "on"],
    }  # fmt: skip


def test_a_sweep_runs_and_options_go_before(bench: Bench, sweep: Callable[[str], Path], tmp_path: Path) -> None:
    text = """
        seeds: 2
        methods: [popularity]
        datasets:
          sim-news:
            knobs: { users: 60, items: 100, groups: 200, correlation: -0.5 }
        """
    words = ("--suite", sweep(text), "--results", tmp_path / "results", "--json")
    records = json.loads(bench("run", *words, "--workers", 1, "--data", "items=110").stdout)
    assert [r["spec"]["seed"] for r in records] == [0, 1]
    chosen = {k: records[0]["spec"]["dataset_config"][k] for k in ("users", "items", "correlation")}
    assert chosen == {"users": 60, "items": 110, "correlation": -0.5}
    assert {run["state"] for run in json.loads(bench("status", *words, "--data", "items=110").stdout)} == {"done"}
    assert {run["state"] for run in json.loads(bench("status", *words, code=1).stdout)} == {"missing"}


METHODS = "methods: [mf]\n"
NEWS = "datasets: { sim-news: }\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": is empty; it needs datasets and methods"),
        ("# only a comment\n", ": is empty"),
        ("- mf\n", ' line 1: a sweep: expected a mapping such as KEY: VALUE, got ["mf"]'),
        (METHODS, " line 1: datasets are missing"),
        (NEWS, " line 1: sim-news has no methods; give some there or on top"),
        (METHODS + "datasets: {}\n", " line 2: datasets: expected at least one, got {}"),
        (METHODS + "datasets: [sim-news]\n",
         ' line 2: datasets: expected a mapping such as KEY: VALUE, got ["sim-news"]'),
        (METHODS + NEWS + "sedes: 3\n", " line 3: unknown key 'sedes'; did you mean 'seeds'?"),
        (METHODS + NEWS + "seeds: 0\n", " line 3: seeds: expected a whole number, at least 1, got 0"),
        (METHODS + NEWS + "seeds: 1.5\n", " line 3: seeds: expected a whole number, at least 1, got 1.5"),
        (METHODS + NEWS + "seeds: true\n", " line 3: seeds: expected a whole number, at least 1, got true"),
        (METHODS + NEWS + "seeds: three\n", ' line 3: seeds: expected a whole number, at least 1, got "three"'),
        (METHODS + NEWS + "about: 3\n", " line 3: about: expected a text, got 3"),
        (METHODS + NEWS + "protocol: raw\n", " line 3: unknown protocol 'raw'; known: clean"),
        (METHODS + NEWS + "protocol: claen\n", " line 3: unknown protocol 'claen'; did you mean 'clean'?"),
        (METHODS + NEWS + METHODS, " line 3: 'methods' is there twice; leave one out"),
        (METHODS + NEWS + "budget: { epoch: 3 }\n", " line 3: unknown key 'epoch'; did you mean 'epochs'?"),
        (METHODS + NEWS + "budget: { epochs: many }\n",
         ' line 3: epochs: expected a whole number, at least 1, got "many"'),
        (METHODS + NEWS + "budget: 3\n", " line 3: budget: expected a mapping such as KEY: VALUE, got 3"),
        (METHODS + "datasets:\n  sim-news:\n    methods: []\n",
         " line 4: methods: expected a list with at least one item"),
        (METHODS + "datasets:\n  sim-news:\n    seting: {}\n",
         " line 4: unknown key 'seting'; did you mean 'settings'?"),
        (METHODS + "datasets:\n  sim-news:\n    settings: {lr: 1, lr: 2}\n", " line 4: 'lr' is there twice"),
        (METHODS + "datasets:\n  sim-news:\n  sim-news:\n", " line 4: 'sim-news' is there twice"),
        ("methods: mf\n" + NEWS, ' line 1: methods: expected a list with at least one item, got "mf"'),
        ("methods:\n  - 3\n" + NEWS, " line 2: methods: expected a name, or a method with settings, got 3"),
        ("methods:\n  - settings: { lr: 1 }\n" + NEWS, " line 2: methods: an entry has no method; give a name"),
        ("methods:\n  - { method: mf, setting: {} }\n" + NEWS,
         " line 2: unknown key 'setting'; did you mean 'settings'?"),
        ("methods: [{ method: mf, settings: 3 }]\n" + NEWS, " line 1: settings: expected a mapping"),
        ("methods: [{ method: mf, settings: { 3: 4 } }]\n" + NEWS,
         " line 1: a key of settings: expected a text, got 3"),
        ("methods: [{ method: mf, grid: { lr: 3 } }]\n" + NEWS,
         " line 1: grid of lr: expected a list with at least one"),
        ("methods: [{ method: mf, grid: { lr: [] } }]\n" + NEWS,
         " line 1: grid of lr: expected a list with at least one"),
        ("methods: [{ method: mf, settings: { lr: 1 }, grid: { lr: [2] } }]\n" + NEWS, " line 1: 'lr' stands in both"),
        ("methods: [{ method: mf, settings: { a: { b: 1, b: 2 } } }]\n" + NEWS, " line 1: 'b' is there twice"),
        (METHODS + "about: !!python/name:os.system\n" + NEWS,
         " line 2: the tag tag:yaml.org,2002:python/name:os.system is not"),
        (METHODS + "about: !mine x\n" + NEWS, " line 2: the tag !mine is not allowed; write plain values"),
        (METHODS + "datasets: !!set { sim-news }\n", " line 2: the tag tag:yaml.org,2002:set is not allowed"),
        (METHODS + "seeds: !!int many\n" + NEWS, " line 2: 'many' is no int"),
        (METHODS + "seeds: !!bool many\n" + NEWS, " line 2: 'many' is no bool"),
        ("methods: [{ method: mf, settings: { lr: 1e999 } }]\n" + NEWS, " line 1: '1e999' is no float"),
        (METHODS + "about: *nothing\n" + NEWS, " line 2: found undefined alias 'nothing'"),
        ("methods: [{ method: mf, settings: &a { lr: *a } }]\n" + NEWS, ": something in it contains itself"),
        (METHODS + "datasets: { sim-news\n", " line 3: "),
        (METHODS + "about: a: b\n" + NEWS, " line 2: mapping values are not allowed here"),
        (METHODS + NEWS + "---\n" + METHODS, " line 3: but found another document"),
        ("about: \x01\n", ": special characters are not allowed"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(sweep: Callable[[str], Path], text: str, message: str) -> None:
    path = sweep(text)
    with pytest.raises(BenchError, match=f"^{re.escape(f'{path}{message}')}") as caught:
        load(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods:\n  - mmeo\n" + NEWS, " line 2: unknown method 'mmeo'; did you mean 'mmoe'?"),
        (METHODS + "datasets:\n  sim-newz:\n    budget: {}\n",
         " line 3: unknown dataset 'sim-newz'; did you mean 'sim-news'?"),
        ("methods:\n  - mf\n  - { method: mmoe, grid: { exprts: [3] } }\n" + NEWS,
         " line 3, on sim-news: unknown setting 'exprts'; did you mean 'experts'?"),
        ("methods: [{ method: mmoe, settings: { experts: two } }]\n" + NEWS,
         ' line 1, on sim-news: setting \'experts\': expected a whole number such as'),
        (METHODS + "datasets: { sim-news: { knobs: { usrs: 3 } } }\n", " line 1, on sim-news: unknown "),
    ],
)  # fmt: skip
def test_unknown_names_are_placed(
    refused: Callable[..., str], sweep: Callable[[str], Path], tmp_path: Path, text: str, message: str
) -> None:
    path = sweep(text)
    assert refused("run", "--suite", path, "--results", tmp_path / "results").startswith(f"{path}{message}")
    assert not (tmp_path / "results").exists()


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for name, what in (
        ("none.yaml", "No such file"),
        ("folder.yml", "Is a directory"),
        ("latin.yaml", "no text in UTF-8"),
    ):
        path = tmp_path / name
        if "folder" in name:
            path.mkdir()
        if "latin" in name:
            path.write_bytes(b"about: \xe9\n")
        with pytest.raises(BenchError, match=f"^{re.escape(str(path))}: .*{what}"):
            load(str(path))


def test_the_example_of_the_documentation(bench: Bench, tmp_path: Path) -> None:
    """It runs as it stands; on small data and for one epoch here."""
    (text,) = re.findall(r"```yaml\n(.*?)```", (registry.ROOT / "docs" / "sweeps.md").read_text("utf-8"), re.DOTALL)
    path = tmp_path / "sweep.yaml"
    path.write_text(text, "utf-8")
    words = ("run", "--suite", path, *SMALL, "--epochs", 1, "--seeds", 1, "--workers", 1, "--results", tmp_path / "r")
    records = json.loads(bench(*words, "--json").stdout)
    assert {r["status"] for r in records} == {"ok"}
    assert len(records) == sum(len(setup.entries) for setup in load(str(path)).datasets.values())


def test_suites_are_plain_yaml() -> None:
    """Another loader of YAML 1.1 reads the same: nothing in them hangs on what this one makes of words."""
    for name, path in paths().items():
        read, suite = yaml.safe_load(path.read_text("utf-8")), load(name)
        assert (read["about"], read["seeds"], list(read["datasets"])) == (
            suite.about,
            suite.seeds,
            list(suite.datasets),
        )
        for dataset, setup in suite.datasets.items():
            assert (read["datasets"][dataset]["budget"], read["datasets"][dataset]["settings"]) == (
                setup.budget, setup.settings,
            )  # fmt: skip
