"""Rules that the tests themselves keep."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Of a file's syntax tree."""
    return tuple(ast.walk(ast.parse(path.read_text("utf-8"))))


def imported(path: Path) -> set[str]:
    """Names of the modules of ``tests`` that a file imports, also by ``from tests.room import module``."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: write imports in full"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.split(".")[0] == "tests"}


def test_no_test_imports_another() -> None:
    """What two tests need stands in tests/support (tests/speed has helpers of its own)."""
    for path in TESTS.rglob("*.py"):
        for name in imported(path):
            parts = name.split(".")
            assert not any(part.startswith("test_") or part == "conftest" for part in parts), f"{path} imports {name}"
            room = parts[1] if len(parts) > 1 else "support"
            assert room == "support" or path.is_relative_to(TESTS / room), f"{path} imports {name}"


def test_real_processes_are_started_in_one_room_alone() -> None:
    """The fixture that starts the command in another process is asked for by end-to-end tests only."""
    for path in TESTS.rglob("test_*.py"):
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                asked = {ast.unparse(a.annotation) for a in node.args.args if a.annotation}
                assert "Start" not in asked or path.parent.name in ("end_to_end", "speed"), f"{path}: {node.name}"
