"""File name -> class, by scanning folders. There is no table and no decorator: the file is the registration.

Listing imports nothing, so a broken file fails alone, by name, when it is asked for.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, wraps
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from bench.errors import BenchError, unknown

if TYPE_CHECKING:
    from bench.api import Balancer, Dataset, Method

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {
    "datasets": {"bench.datasets": "Dataset"},
    "baselines": {"baselines": "Method"},
    "methods": {"methods": "Method"},
    "balancers": {"baselines.balancers": "Balancer"},
}
# Imports that make a method what it is.
AUDITED = ("baselines", "methods", "bench.api", "bench.nn", "bench.nn.norms", "bench.text")
_plugins: dict[str, Path] = {}
T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """A registered file. ``kind``: datasets, baselines, methods or balancers."""

    name: str
    kind: str
    path: Path
    module: str | None  # None: a file outside the packages
    variant: str = ""  # of a data set family

    @property
    def summary(self) -> str:
        """First line of the file's docstring, read without importing it."""
        try:
            text = ast.get_docstring(ast.parse(self.path.read_bytes(), self.path.name)) or ""
        except (SyntaxError, ValueError, OSError) as error:
            return f"broken: {error}"
        return text.split("\n")[0]


def _remembered(read: Callable[[Path], T]) -> Callable[[Path], T]:
    """What was read from a file is kept until the file changes: hundreds of specs ask for the same."""
    known: dict[Path, tuple[tuple[int, int], T]] = {}

    @wraps(read)
    def call(path: Path) -> T:
        now = path.stat()
        stamp = (now.st_mtime_ns, now.st_size)
        if path not in known or known[path][0] != stamp:
            known[path] = stamp, read(path)
        return known[path][1]

    return call


def name_of(kind: str, path: Path) -> str:
    """The name that a file registers."""
    return path.stem.replace("_", "-") if kind == "datasets" else path.stem


def _origin(module: str) -> Path:
    """The file of an installed module; its name where it cannot be found (loading it will say why)."""
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        spec = None
    return Path(spec.origin if spec is not None and spec.origin else module)


def _scan(kind: str) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for package in FOLDERS[kind]:
        for path in sorted((ROOT / package.replace(".", "/")).glob("[!_]*.py")):
            name, module = name_of(kind, path), f"{package}.{path.stem}"
            for variant in _variants(path) if kind == "datasets" else ():
                found[f"{name}-{variant}"] = Entry(f"{name}-{variant}", kind, path, module, variant)
            if not any(entry.path == path for entry in found.values()):
                found[name] = Entry(name, kind, path, module)
    return found


@_remembered
def _variants(path: Path) -> tuple[str, ...]:
    """The literal ``variants`` of the class in a data set file, read without importing it."""
    try:
        tree = ast.parse(path.read_bytes(), path.name)
    except (SyntaxError, ValueError):
        return ()
    for node in [n for c in tree.body if isinstance(c, ast.ClassDef) for n in c.body]:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "variants" and node.value is not None:
            return tuple(ast.literal_eval(node.value))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "variants":
            return tuple(ast.literal_eval(node.value))
    return ()


def add_plugin(path: Path) -> None:
    """Registers a method file outside the checkout under its file name. Raises BenchError if it is missing or taken."""
    if path.suffix != ".py" or not path.is_file():
        raise BenchError(f"plugin {path}: no such Python file")
    known = _plugins.setdefault(path.stem, path.resolve())
    if known != path.resolve():
        raise BenchError(f"plugin {path}: {known} has the same name; rename one of them")


def plugins() -> tuple[Path, ...]:
    """The registered plugin files."""
    return tuple(_plugins.values())


def entries(kind: str) -> dict[str, Entry]:
    """Every registered file of a kind by name, in name order. Raises BenchError if two files claim one name."""
    found = _scan(kind)
    if kind == "methods":
        extra = [Entry(name, kind, path, None) for name, path in _plugins.items()]
        for point in _points():
            extra.append(Entry(point.name, kind, _origin(point.module), point.module))
        for entry in extra:
            if entry.name in found or entry.name in _scan("baselines"):
                raise BenchError(f"method '{entry.name}' of {entry.path} is already taken; rename the file")
            found[entry.name] = entry
    return dict(sorted(found.items()))


@cache
def _points() -> EntryPoints:
    return entry_points(group="bench.methods")


def methods() -> dict[str, Entry]:
    """Baselines and methods together: everything ``-m`` accepts."""
    return {**entries("baselines"), **entries("methods")}


def find(kind: str, name: str) -> Entry:
    """The entry of a name (kind ``method``: of either family). Raises BenchError with the nearest if there is none."""
    known = methods() if kind == "method" else entries(kind + "s")
    if name not in known:
        raise unknown(kind, name, known)
    return known[name]


def _module(entry: Entry) -> ModuleType:
    return importlib.import_module(entry.module) if entry.module is not None else _plugin_module(entry.path)


@cache
def _plugin_module(path: Path) -> ModuleType:
    """Imports a file once, as an import statement does."""
    name = f"bench_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before executing: dataclasses and pickling look it up
    spec.loader.exec_module(module)
    return module


def _load(entry: Entry, base: type[Any]) -> type[Any]:
    try:
        module = _module(entry)
    except BenchError:
        raise
    except Exception as error:
        raise BenchError(f"{entry.path}: cannot be imported ({type(error).__name__}: {error})") from error
    own = [
        c
        for _, c in inspect.getmembers(module, inspect.isclass)
        if issubclass(c, base) and c is not base and c.__module__ == module.__name__
    ]
    if len(own) != 1:
        names = ", ".join(c.__name__ for c in own) or "none"
        raise BenchError(f"{entry.path}: must define exactly one subclass of {base.__name__}, found {names}")
    return own[0]


def source_files(name: str, kind: str = "method") -> list[Path]:
    """The file of a method or balancer and those of the blocks and text code that it imports, directly or not."""
    todo, found = [find(kind, name).path], []
    while todo:
        path = todo.pop()
        if path in found or not path.is_file():
            continue
        found.append(path)
        todo += _imported(path)
    return sorted(found)


@_remembered
def _imported(path: Path) -> list[Path]:
    """The files of the blocks and text code that a file imports itself."""
    modules = [n.module or "" for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.ImportFrom)]
    return [ROOT / f"{module.replace('.', '/')}.py" for module in modules if module.startswith(AUDITED)]


def load_method(name: str) -> type[Method]:
    """The class of a method or baseline. Raises BenchError naming the file if it is broken."""
    from bench.api import Method

    return _load(find("method", name), Method)


def load_balancer(name: str) -> type[Balancer]:
    """The class of a balancer."""
    from bench.api import Balancer

    return _load(find("balancer", name), Balancer)


def load_dataset(name: str) -> type[Dataset]:
    """The class of a data set; of a family, the one that the name means."""
    from bench.api import Dataset

    entry = find("dataset", name)
    cls = _load(entry, Dataset)
    if not entry.variant:
        return cls
    return type(cls.__name__, (cls,), {"variant": entry.variant, "__module__": cls.__module__, "__doc__": cls.__doc__})
