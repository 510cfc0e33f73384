"""What the package promises: exported names, dependencies and extras, types, versions."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import bench as package
from bench.errors import BenchError, extra
from bench.registry import ROOT
from tests.support.command import SMALL, Bench

# What files of methods, balancers and data sets may import. A name that goes breaks plugins: say so in CHANGELOG.md.
EXPORTED = {
    "bench.api": """Balancer Batch Dataset Field Inputs Items Method Schema Tables Task Temporal batch_mean
        several task_loss""",
    "bench.nn": """USER_ENCODERS Architecture BatchNorm Dropout Experts Gate HistoryAttention HistoryTransformer
        MakeInputs MakeTrunk Mlp OnTrunk base_rate base_rate_of mix mlp mlps""",
    "bench.spec": "CLEAN PAPER Spec canonical derive_seed digest rounded",
}
NAMED = {  # distribution -> what is imported of it, where the names differ
    "Jinja2": {"jinja2"},
    "PyYAML": {"yaml"},
    "mlflow-skinny": {"mlflow"},
    "scikit-learn": {"sklearn"},
    "transformers": {"transformers", "tokenizers"},
}
FOR_OTHERS = {"cmaes": "optuna's sampler imports it", "tensorboard": "accelerate's tracker imports it"}
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
FEATURES = sorted(EXTRAS.keys() - {"all", "dev", "peers"})


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=\[]", requirement)[0] for requirement in requirements}


def imported_as(distributions: set[str]) -> set[str]:
    return {module for name in distributions for module in NAMED.get(name, {name})}


def imports(node: ast.AST, within: str = "") -> Iterator[tuple[str, str]]:
    """Top-level modules that code imports when it runs, each with the extra that its block names ("" for none)."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        inner = within
        match child:
            case ast.With(items=[ast.withitem(ast.Call(ast.Name("extra"), [ast.Constant(str(named))]))]):
                inner = named
            case ast.Import(modules):
                yield from ((module.name.partition(".")[0], within) for module in modules)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.partition(".")[0], within
            case ast.Call(ast.Name("import_module"), [ast.Constant(str(module)), *_]):
                yield module.partition(".")[0], within
        yield from imports(child, inner)


@cache
def used() -> dict[str, set[str]]:
    """The other projects' modules that the code imports: under "" those it always needs, else by extra."""
    found: dict[str, set[str]] = defaultdict(set)
    own = {"bench", "baselines", "methods", *sys.stdlib_module_names}
    for path in (p for folder in ("bench", "baselines", "methods") for p in (ROOT / folder).rglob("*.py")):
        for module, within in imports(ast.parse(path.read_bytes())):
            if module not in own:
                found[within].add(module)
    return found


@pytest.mark.parametrize("name", EXPORTED)
def test_exported_names(name: str) -> None:
    """A package hands on all that it imports, but for its modules; a module what it defines, and what it is said to."""
    wanted = EXPORTED[name].split()
    module = importlib.import_module(name)
    public = {n: v for n, v in vars(module).items() if n[0] != "_" and not inspect.ismodule(v)}
    if not hasattr(module, "__path__"):
        public = {n: v for n, v in public.items() if getattr(v, "__module__", "") == name or n in wanted}
    assert sorted(public) == sorted(wanted)


def test_base_dependencies_are_what_is_imported_without_an_extra() -> None:
    base = names(PROJECT["dependencies"])
    assert used()[""] == imported_as(base - FOR_OTHERS.keys())


def test_each_extra_is_what_its_imports_need() -> None:
    assert used().keys() - {""} == set(FEATURES)
    for name in FEATURES:
        here = names(EXTRAS[name])
        assert not here & names(PROJECT["dependencies"])
        assert used()[name] <= imported_as(here), name
    for name in set().union(*(names(EXTRAS[n]) for n in FEATURES)) - FOR_OTHERS.keys():
        assert any(imported_as({name}) <= used()[n] for n in FEATURES), f"nothing imports {name}"


def test_development_has_all_extras() -> None:
    assert EXTRAS["all"] == [f"mlm-mtl-bench[{','.join(FEATURES)}]"]
    assert EXTRAS["dev"][0] == "mlm-mtl-bench[all]"
    page = (ROOT / "docs" / "installation.md").read_text("utf-8")
    assert all(f"| `{name}` |" in page for name in EXTRAS)


def test_every_dependency_is_pinned_at_its_newest_and_at_its_lowest() -> None:
    direct = {r for r in [*PROJECT["dependencies"], *sum(EXTRAS.values(), [])] if not r.startswith("mlm-mtl-bench")}
    pinned, lowest = ((ROOT / f).read_text("utf-8").splitlines() for f in ("constraints.txt", "constraints-lowest.txt"))

    def plain(requirement: str) -> str:
        return requirement.lower().replace("_", "-")

    assert {plain(n) for n in names(list(direct))} <= {plain(line.partition("==")[0]) for line in pinned}
    peers = names(EXTRAS["peers"])
    wanted = {plain(r.partition(",")[0].replace(">=", "==")) for r in direct if not names([r]) <= peers}
    assert wanted == {plain(line) for line in lowest if not line.startswith("#")}


def test_a_missing_package_is_told_with_its_extra(
    refused: Callable[..., str], bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module, name in (("lightgbm", "gbdt"), ("implicit.cpu.als", "mf")):
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.delitem(sys.modules, f"baselines.{name}", raising=False)
        said = refused("run", "-d", "sim-news", "-m", name, "--results", tmp_path)
        assert said == f"the package '{module}' is not installed; pip install 'mlm-mtl-bench[baselines]' adds it"
        assert name in bench("list", "baselines").stdout
    with pytest.raises(BenchError, match=r"'nowhere' .* 'mlm-mtl-bench\[models\]' adds it"), extra("models"):
        importlib.import_module("nowhere")


@pytest.mark.slow
def test_the_main_job_needs_no_extra(tmp_path: Path) -> None:
    """In a process in which no package of an extra can be imported."""
    program = """
import sys
from importlib.machinery import PathFinder
absent, words, find = set(sys.argv[1].split(",")), sys.argv[2:], PathFinder.find_spec
PathFinder.find_spec = lambda name, *more: None if name.partition(".")[0] in absent else find(name, *more)
from bench.cli import main
main(["list"], standalone_mode=False)
main(["run", "-d", "sim-news", "-m", "shared_bottom", "--epochs", "1", "--workers", "1", *words], standalone_mode=False)
main(["board", *words[-2:]], standalone_mode=False)
"""
    absent = imported_as(set().union(*(names(EXTRAS[name]) for name in FEATURES)))
    words = [sys.executable, "-c", program, ",".join(absent), *SMALL, "--results", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONWARNINGS": "error"})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "LEADERBOARD.md").exists() and len(list(tmp_path.glob("runs/*/*/*.json"))) == 1


def test_types_and_versions_are_told() -> None:
    assert Path(package.__file__).with_name("py.typed").exists()
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert '"py.typed"' in text
    assert f"\nversion: {package.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
