"""What the data sets are, read from their files without importing them: a listing must not wait for torch."""

from __future__ import annotations

import ast
import json
from typing import Any

from bench import registry
from bench.data import cache


def datasets() -> list[dict[str, Any]]:
    """Name, domain, tasks, licence and state of every data set.

    state: simulated; prepared (in this machine's cache, with its size); fetched on first use; or needs files, which
    ``bench data prepare NAME`` names.
    """
    return [_row(entry) for entry in registry.entries("datasets").values()]


def _row(entry: registry.Entry) -> dict[str, Any]:
    said = _class_body(entry)
    tasks = [
        c.args[0].value for c in _calls(said.get("tasks"), "Task") if c.args and isinstance(c.args[0], ast.Constant)
    ]
    return {
        "name": entry.name,
        "about": entry.summary,
        "domain": _text(said.get("domain")),
        "tasks": list(dict.fromkeys(str(t) for t in tasks)),
        "licence": _text(said.get("licence")),
        "state": _state(entry, said.get("sources")),
    }


def _class_body(entry: registry.Entry) -> dict[str, ast.AST]:
    """What the class of a file assigns or defines, by name; nothing if the file is broken (the listing says so)."""
    try:
        tree = ast.parse(entry.path.read_bytes(), entry.path.name)
    except (SyntaxError, ValueError, OSError):
        return {}
    found: dict[str, ast.AST] = {}
    for node in [n for c in tree.body if isinstance(c, ast.ClassDef) for n in c.body]:
        if isinstance(node, ast.Assign):
            found[ast.unparse(node.targets[0])] = node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            found[ast.unparse(node.target)] = node.value
        elif isinstance(node, ast.FunctionDef):
            found[node.name] = node
    return found


def _calls(node: ast.AST | None, *names: str) -> list[ast.Call]:
    calls = [n for n in ast.walk(node) if isinstance(n, ast.Call)] if node is not None else []
    return [c for c in calls if ast.unparse(c.func) in names]


def _text(node: ast.AST | None) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else ""


def _state(entry: registry.Entry, sources: ast.AST | None) -> str:
    done = sorted((cache.root() / "data" / entry.name).glob("*/meta.json"), key=lambda path: path.stat().st_mtime)
    if done:
        parts = json.loads(done[-1].read_text("utf-8"))["parts"]
        return f"prepared ({sum(part['rows'] for part in parts.values()):,} rows)"
    if sources is None:
        return "simulated"
    return "fetched on first use" if _calls(sources, "Download", "Package") else "needs files"
