"""File name -> class, by scanning folders. There is no table and no decorator: the file is the registration.

Listing a folder imports nothing, so a broken file fails alone, by name, when it is asked for. What lies elsewhere is
found too: files given as plugins, which are imported to see what they define, and entry points of installed packages.
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
    "datasets": "bench.datasets",
    "baselines": "baselines",
    "methods": "methods",
    "balancers": "baselines.balancers",
}
# What a plugin may define, by the kind that it then is; each has an entry-point group, such as bench.methods.
PLUGGED = {"methods": "Method", "balancers": "Balancer", "datasets": "Dataset"}
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


def remembered(read: Callable[[Path], T]) -> Callable[[Path], T]:
    """What was read from a file or folder is kept until that changes: hundreds of specs ask for the same."""
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
    package = FOLDERS[kind]
    paths = _files(ROOT / package.replace(".", "/"))
    return {e.name: e for path in paths for e in _of_file(kind, name_of(kind, path), path, f"{package}.{path.stem}")}


@remembered
def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!_]*.py"))


def _of_file(kind: str, name: str, path: Path, module: str | None) -> list[Entry]:
    """What a file registers: itself, or each variant of a data set family."""
    variants = _variants(path) if kind == "datasets" and path.is_file() else ()
    return [Entry(f"{name}-{v}", kind, path, module, v) for v in variants] or [Entry(name, kind, path, module)]


@remembered
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


def add_plugin(*paths: Path) -> None:
    """Registers files outside the checkout under their names, as what their class is: method, balancer or data set.

    Raises BenchError if one is missing, has the name of another, or defines none of the three. A file that cannot be
    imported stops nothing until it is asked for.
    """
    for path in paths:
        if path.suffix != ".py" or not path.is_file():
            raise BenchError(f"plugin {path}: no such Python file")
        if not _kinds(path.resolve()):
            raise BenchError(f"plugin {path}: must define one subclass of {', '.join(PLUGGED.values())} of bench.api")
        known = _plugins.setdefault(path.stem, path.resolve())
        if known != path.resolve():
            raise BenchError(f"plugin {path}: {known} has the same name; rename one of them")


def plugins() -> tuple[Path, ...]:
    """The registered plugin files."""
    return tuple(_plugins.values())


@remembered
def _kinds(path: Path) -> tuple[str, ...]:
    """The kinds of what a plugin defines; all, if it cannot be imported: loading it will say why."""
    from bench import api

    try:
        module = _plugin_module(path)
    except Exception:
        return tuple(PLUGGED)
    return tuple(kind for kind, base in PLUGGED.items() if _defined(module, getattr(api, base)))


def entries(kind: str) -> dict[str, Entry]:
    """Every registered file of a kind by name, in name order. Raises BenchError if two files claim one name."""
    found = _scan(kind)
    if kind in PLUGGED:
        paths = [path for path in _plugins.values() if kind in _kinds(path)]
        extra = [entry for path in paths for entry in _of_file(kind, name_of(kind, path), path, None)]
        for point in _points(kind):
            extra += _of_file(kind, point.name, _origin(point.module), point.module)
        for entry in extra:
            if entry.name in found or (kind == "methods" and entry.name in _scan("baselines")):
                raise BenchError(f"{kind[:-1]} '{entry.name}' of {entry.path} is already taken; rename the file")
            found[entry.name] = entry
    return dict(sorted(found.items()))


@cache
def _points(kind: str) -> EntryPoints:
    return entry_points(group=f"bench.{kind}")


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
def _refuse_namesakes() -> None:
    """Raises BenchError if somebody else's package or module of the name of one of ours is imported in its place."""
    for name in ("baselines", "methods"):
        spec = importlib.util.find_spec(name)
        places = (spec.submodule_search_locations or [str(spec.origin)]) if spec is not None else []
        if places and ROOT / name not in [Path(place).resolve() for place in places]:
            raise BenchError(f"{places[0]} is imported in place of {ROOT / name}: rename it, or take it off the path")


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


@cache
def _defined(module: ModuleType, base: type[Any]) -> list[type[Any]]:
    """The subclasses of a class that a module defines itself."""
    classes = [c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__]
    return [c for c in classes if issubclass(c, base)]


def _load(kind: str, name: str) -> type[Any]:
    _refuse_namesakes()
    from bench import api

    entry, base = find(kind, name), getattr(api, kind.capitalize())
    try:
        module = _module(entry)
    except BenchError:
        raise
    except Exception as error:
        raise BenchError(f"{entry.path}: cannot be imported ({type(error).__name__}: {error})") from error
    own = _defined(module, base)
    if len(own) != 1:
        names = ", ".join(c.__name__ for c in own) or "none"
        raise BenchError(f"{entry.path}: must define exactly one subclass of {base.__name__}, found {names}")
    cls = own[0]
    if not entry.variant:
        return cls
    return type(cls.__name__, (cls,), {"variant": entry.variant, "__module__": cls.__module__, "__doc__": cls.__doc__})


def load_method(name: str) -> type[Method]:
    """The class of a method or baseline. Raises BenchError naming the file if it is broken."""
    return _load("method", name)


def load_balancer(name: str) -> type[Balancer]:
    """The class of a balancer. Raises BenchError naming the file if it is broken."""
    return _load("balancer", name)


def load_dataset(name: str) -> type[Dataset]:
    """The class of a data set; of a family, the one that the name means. Raises BenchError as for a method."""
    return _load("dataset", name)
