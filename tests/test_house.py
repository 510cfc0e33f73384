"""The guards of the house: short functions, few lines, commands, settings and rooms; an `__init__` says no more."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import registry
from bench.cli import main
from bench.spec.settings import SETTINGS

ROOT = registry.ROOT
BENCH = ROOT / "bench"
LINES = 18_000  # of bench without its data sets
LONGEST = 60  # lines of a function
COMMANDS, COMMON_SETTINGS, ROOMS = 18, 18, 26


def modules(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text("utf-8"))


def test_functions_are_short() -> None:
    long = {
        f"{path}:{node.lineno} {node.name}": length
        for path, tree in modules("bench", "baselines", "methods")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and (length := (node.end_lineno or 0) - node.lineno + 1) > LONGEST
    }
    assert not long


def test_the_engine_stays_small() -> None:
    """Lines of bench without its data sets."""
    found = {p: len(p.read_text("utf-8").splitlines()) for p in BENCH.rglob("*.py")}
    assert sum(n for p, n in found.items() if BENCH / "datasets" not in p.parents) <= LINES


def test_what_a_newcomer_has_to_learn_stays_little() -> None:
    assert len(main.commands) <= COMMANDS and len(SETTINGS) <= COMMON_SETTINGS
    top = [p for p in BENCH.iterdir() if (p.is_dir() and (p / "__init__.py").exists()) or p.suffix == ".py"]
    assert len([p for p in top if p.name != "__init__.py"]) <= ROOMS


@pytest.mark.parametrize("path", sorted(BENCH.rglob("*/__init__.py")), ids=lambda p: p.parent.name)
def test_a_room_says_what_it_is_for(path: Path) -> None:
    """Its `__init__` is a docstring, and the imports of what it hands on if it is a face."""
    docstring, *rest = ast.parse(path.read_text("utf-8")).body
    assert isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant)
    for node in rest:
        handed_on = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        assert isinstance(node, (ast.Import, ast.ImportFrom)) or handed_on, ast.unparse(node)
