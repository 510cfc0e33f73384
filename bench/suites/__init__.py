"""Sweeps: named lists of runs in YAML. Those in this folder, the suites, go by their file's name (docs/sweeps.md)."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bench.errors import BenchError, unknown

FOLDER = Path(__file__).parent
PROTOCOLS = ("clean",)
TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null")}


@dataclass(frozen=True)
class Entry:
    """A method, and settings of its own beside those of the data set. ``place``: file and line."""

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    place: str = field(default="", compare=False)


@dataclass(frozen=True)
class Setup:
    """What runs on one data set, and how: entries, epochs and patience, settings and knobs that differ from the
    defaults. ``place``: file and line."""

    entries: list[Entry]
    budget: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    knobs: dict[str, Any] = field(default_factory=dict)
    place: str = field(default="", compare=False)


@dataclass(frozen=True)
class Suite:
    """The entries of each data set with seeds 0 .. seeds-1. In the file ``methods`` and ``budget`` on top are for all
    data sets; the methods of a data set come to them, its budget goes before."""

    about: str
    seeds: int
    datasets: dict[str, Setup]

    @property
    def methods(self) -> list[str]:
        """The names of the methods, each once."""
        return list(dict.fromkeys(entry.method for setup in self.datasets.values() for entry in setup.entries))


def paths() -> dict[str, Path]:
    """The files of the suites by name."""
    return {p.stem: p for p in sorted(FOLDER.glob("*.yaml"))}


@contextmanager
def at(place: str) -> Iterator[None]:
    """What is wrong inside is wrong at this place of a file; at no place if it is empty."""
    try:
        yield
    except BenchError as error:
        if place:
            raise BenchError(f"{place}: {error}") from error
        raise


def load(name: str) -> Suite:
    """A suite by name, or the sweep in a file whose name ends in .yaml or .yml. Names of data sets and methods, and
    their settings, are not looked up yet. Raises BenchError with the file and line of what is wrong."""
    known = paths()
    if name not in known and Path(name).suffix not in (".yaml", ".yml"):
        raise unknown("suite", name, known)
    path = known.get(name, Path(name))
    try:
        loader = _Loader(path.read_text("utf-8"))
        node = loader.get_single_node()
        if node is None:
            raise BenchError(f"{path}: is empty; it needs datasets and methods, see docs/sweeps.md")
        return _File(path, loader).suite(node)
    except OSError as error:
        raise BenchError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BenchError(f"{path}: is no text in UTF-8") from error
    except yaml.reader.ReaderError as error:
        raise BenchError(f"{path}: {error.reason} (character {error.position})") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" line {mark.line + 1}" if mark is not None else ""
        raise BenchError(f"{path}{where}: {error.problem or error.context}") from error
    except RecursionError as error:
        raise BenchError(f"{path}: something in it contains itself, or is nested too deep") from error


class _Loader(yaml.SafeLoader):
    """Unmarked words mean what they do in YAML 1.2 and JSON: 1e-3 is a number, ``no`` and 2024-01-01 are words."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """See PyYAML; tags that mean more than plain data are refused."""
        node: yaml.Node | None = super().compose_node(parent, index)
        if node is not None and node.tag not in TAGS:
            problem = f"the tag {node.tag} is not allowed; write plain values"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return node


for _kind, _pattern, _first in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false", ["t", "f"]),
    ("int", r"[-+]?(0|[1-9]\d*)", list("-+0123456789")),
    ("float", r"[-+]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$", re.ASCII), _first)


class _File:
    """Reads the parts of one file, each from its node. Everything raises BenchError with the node's line."""

    def __init__(self, path: Path, loader: _Loader) -> None:
        self.path, self.loader = path, loader

    def place(self, node: yaml.Node) -> str:
        return f"{self.path} line {node.start_mark.line + 1}"

    def wrong(self, node: yaml.Node, what: str, wanted: str) -> BenchError:
        return BenchError(f"{self.place(node)}: {what}: expected {wanted}, got {json.dumps(self.value(node))}")

    def suite(self, node: yaml.Node) -> Suite:
        parts = self.parts(node, "a sweep", ("about", "protocol", "seeds", "budget", "methods", "datasets"))
        if "protocol" in parts:
            with at(self.place(parts["protocol"])):
                if (protocol := self.text(parts["protocol"], "protocol")) not in PROTOCOLS:
                    raise unknown("protocol", protocol, PROTOCOLS)
        if "datasets" not in parts:
            raise BenchError(f"{self.place(node)}: datasets are missing")
        budget = self.budget(parts["budget"]) if "budget" in parts else {}
        entries = self.entries(parts["methods"]) if "methods" in parts else []
        setups = self.parts(parts["datasets"], "datasets")
        places = [self.place(key) for key, _ in parts["datasets"].value]
        datasets = {
            name: self.setup(setup, name, place, entries, budget)
            for (name, setup), place in zip(setups.items(), places, strict=True)
        }
        if not datasets:
            raise self.wrong(parts["datasets"], "datasets", "at least one")
        return Suite(
            about=self.text(parts["about"], "about") if "about" in parts else "",
            seeds=self.whole(parts["seeds"], "seeds") if "seeds" in parts else 1,
            datasets=datasets,
        )

    def setup(self, node: yaml.Node, name: str, place: str, entries: list[Entry], budget: Mapping[str, int]) -> Setup:
        bare = node.tag == "tag:yaml.org,2002:null"
        parts = {} if bare else self.parts(node, name, ("knobs", "settings", "budget", "methods"))
        entries = [*entries, *(self.entries(parts["methods"]) if "methods" in parts else [])]
        if not entries:
            raise BenchError(f"{place}: {name} has no methods; give some there or on top")
        own = self.budget(parts["budget"]) if "budget" in parts else {}
        settings, knobs = (self.settings(parts[key], key) if key in parts else {} for key in ("settings", "knobs"))
        return Setup(entries, {**budget, **own}, settings, knobs, place)

    def budget(self, node: yaml.Node) -> dict[str, int]:
        parts = self.parts(node, "budget", ("epochs", "patience"))
        return {key: self.whole(part, key) for key, part in parts.items()}

    def entries(self, node: yaml.Node) -> list[Entry]:
        return [entry for item in self.items(node, "methods") for entry in self.entry(item)]

    def entry(self, node: yaml.Node) -> Iterator[Entry]:
        """A name, or a method with settings; one entry for each combination of the values of its grid."""
        place = self.place(node)
        if not isinstance(node, yaml.MappingNode):
            yield Entry(self.text(node, "methods", "a name, or a method with settings"), place=place)
            return
        parts = self.parts(node, "methods", ("method", "settings", "grid"))
        if "method" not in parts:
            raise BenchError(f"{place}: methods: an entry has no method; give a name as `method: NAME`")
        method = self.text(parts["method"], "method")
        settings = self.settings(parts["settings"], "settings") if "settings" in parts else {}
        grid = {
            key: [self.value(item) for item in self.items(values, f"grid of {key}")]
            for key, values in (self.parts(parts["grid"], "grid") if "grid" in parts else {}).items()
        }
        if both := sorted(settings.keys() & grid.keys()):
            raise BenchError(f"{place}: '{both[0]}' stands in both settings and grid; leave one out")
        for values in itertools.product(*grid.values()):
            yield Entry(method, {**settings, **dict(zip(grid, values, strict=True))}, place)

    def settings(self, node: yaml.Node, what: str) -> dict[str, Any]:
        return {key: self.value(part) for key, part in self.parts(node, what).items()}

    def parts(self, node: yaml.Node, what: str, known: Iterable[str] | None = None) -> dict[str, yaml.Node]:
        """The nodes of a mapping by key; of the known keys alone, if they are given."""
        if not isinstance(node, yaml.MappingNode):
            raise self.wrong(node, what, "a mapping such as KEY: VALUE")
        found: dict[str, yaml.Node] = {}
        for key_node, part in node.value:
            key = self.text(key_node, f"a key of {what}")
            if known is not None and key not in known:
                raise BenchError(f"{self.place(key_node)}: {unknown('key', key, known)}")
            if key in found:
                raise BenchError(f"{self.place(key_node)}: '{key}' is there twice; leave one out")
            found[key] = part
        return found

    def items(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            raise self.wrong(node, what, "a list with at least one item")
        return list(node.value)

    def whole(self, node: yaml.Node, what: str) -> int:
        value = self.value(node)
        if type(value) is not int or value < 1:
            raise self.wrong(node, what, "a whole number, at least 1")
        return value

    def text(self, node: yaml.Node, what: str, wanted: str = "a text") -> str:
        value = self.value(node)
        if not isinstance(value, str):
            raise self.wrong(node, what, wanted)
        return value

    def value(self, node: yaml.Node) -> Any:
        """Plain data: what JSON has, no key twice."""
        if isinstance(node, yaml.MappingNode):
            return {key: self.value(part) for key, part in self.parts(node, "a mapping").items()}
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item) for item in node.value]
        with suppress(ValueError, KeyError):
            made = self.loader.construct_object(node)
            if not isinstance(made, float) or math.isfinite(made):
                return made
        raise BenchError(f"{self.place(node)}: '{node.value}' is no {node.tag.rpartition(':')[2]}")
