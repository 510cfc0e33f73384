"""The audit of code: records whose numbers came from other code than is here.

Audited is what a training step, a prediction or a metric executes: the files of a method, of the components that its
configuration names and of the loop that trains it, with all that they import of ``AUDITED``. Their syntax trees count,
not words and layout. The code of data sets is left out: each record has the hash of what it made.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench import registry
from bench.errors import BenchError
from bench.spec import config, digest
from bench.spec.command import COMPONENTS
from bench.storage.records import Store
from bench.training import session

# Digests of another scheme cannot be compared: later versions of Python write a syntax tree otherwise.
SCHEME = f"syntax-1 of Python {sys.version_info.major}.{sys.version_info.minor}"
AUDITED = (
    "baselines", "methods", "bench/nn", "bench/text", "bench/training", "bench/metrics", "bench/kinds.py",
    "bench/api.py", "bench/collective.py", "bench/data/mapped.py", "bench/data/tensors.py",
)  # fmt: skip


def method_digest(method: str, resolved: Mapping[str, Any]) -> str:
    """Digest of the code that a method's numbers come from. It audits; the declared versions decide."""
    named = [("balancer" if key.startswith("balancer") else "method", key) for key in resolved.keys() & COMPONENTS]
    parts = [registry.find(kind, resolved[key]).path for kind, key in named]
    return digest(sorted(closure([Path(session.__file__), registry.find("method", method).path, *parts]).values()))


def closure(start: Iterable[Path]) -> dict[Path, str]:
    """Hashes of files, and of all audited ones that they import, directly or not, within functions too."""
    todo, found = list(start), dict[Path, str]()
    while todo:
        path = todo.pop()
        if path not in found and path.is_file():
            found[path], imported = _read(path)
            todo += imported
    return found


def has_changed(record: Mapping[str, Any]) -> bool | None:
    """Whether the code of a record is other code now; None if its digest is of another scheme."""
    spec, code = record["spec"], record["code"]
    if code.get("digest_scheme") != SCHEME:
        return None
    return bool(code["method_digest"] != method_digest(spec["method"], spec["config"]))


def stale_records(store: Store) -> tuple[list[str], int]:
    """Records whose code has changed under unchanged versions (run them again, or bump a version), and how many cannot
    be audited. Those of other versions, and of a method that is not here, are neither."""
    stale, unaudited = [], 0
    for record in store.records():
        spec = record["spec"]
        name, version = spec["method"], spec["method_version"]
        try:
            now = registry.load_method(name).version, config.resolve(name, spec["config"])[1]
        except BenchError:
            continue
        if now == (version, spec["parts"]):
            changed = has_changed(record)
            unaudited += changed is None
            stale += [f"{store.place(spec, record['key'])}: {name} version {version} had other code"] * bool(changed)
    return stale, unaudited


class _Executed(ast.NodeTransformer):
    """Takes away what does nothing when it is executed: docstrings, ``...``, imports for types alone."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else node

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test) == "TYPE_CHECKING" and not node.orelse else self.generic_visit(node)


@registry.remembered
def _read(path: Path) -> tuple[str, list[Path]]:
    """A file's hash, and the audited files that it imports itself: modules, and the packages above them."""
    tree = _Executed().visit(ast.parse(path.read_bytes()))
    places: set[Path] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            places |= {registry.ROOT.joinpath(*alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            folder = path.parents[node.level - 1] if node.level else registry.ROOT
            place = folder.joinpath(*(node.module or "").split("."))
            places |= {place, *(place / alias.name for alias in node.names)}
    files = {place.with_suffix(".py") for place in places}
    files |= {above / "__init__.py" for place in places for above in (place, *place.parents)}
    audited = [registry.ROOT / part for part in AUDITED]
    imported = [file for file in files if file.is_file() and any(file.is_relative_to(part) for part in audited)]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imported
