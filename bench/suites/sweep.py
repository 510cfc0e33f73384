"""Sweeps: named lists of runs in YAML. Those in this folder, the suites, go by their file's name (docs/sweeps.md)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bench import registry
from bench.errors import BenchError, unknown
from bench.storage.yaml_reader import Reader, at

FOLDER = Path(__file__).parent
PROTOCOLS = ("clean",)
FAMILIES = ("baselines", "methods", "balancers")  # each stands for all that it has


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


def load(name: str) -> Suite:
    """A suite by name, or the sweep in a file whose name ends in .yaml or .yml. Names of data sets and methods, and
    their settings, are not looked up yet. Raises BenchError with the file and line of what is wrong."""
    known = paths()
    if name not in known and Path(name).suffix not in (".yaml", ".yml"):
        raise unknown("suite", name, known)
    file = _File(known.get(name, Path(name)), "datasets and methods, see docs/sweeps.md")
    with file.whole_file():
        return file.suite(file.root)


class _File(Reader):
    """Reads a sweep."""

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

    def entries(self, node: yaml.Node) -> list[Entry]:
        return [entry for item in self.items(node, "methods") for entry in self.entry(item)]

    def entry(self, node: yaml.Node) -> Iterator[Entry]:
        """A name, or a method with settings; one entry for each method of a family and each combination of a grid."""
        place = self.place(node)
        if not isinstance(node, yaml.MappingNode):
            for name in _each(self.text(node, "methods", "a name, or a method with settings")):
                yield Entry(name, place=place)
            return
        parts = self.parts(node, "methods", ("method", "settings", "grid"))
        if "method" not in parts:
            raise BenchError(f"{place}: methods: an entry has no method; give a name as `method: NAME`")
        methods = _each(self.text(parts["method"], "method"))
        settings = self.settings(parts["settings"], "settings") if "settings" in parts else {}
        grid = {
            key: [value for item in self.items(values, f"grid of {key}") for value in _each(self.value(item))]
            for key, values in (self.parts(parts["grid"], "grid") if "grid" in parts else {}).items()
        }
        if both := sorted(settings.keys() & grid.keys()):
            raise BenchError(f"{place}: '{both[0]}' stands in both settings and grid; leave one out")
        for method, *values in itertools.product(methods, *grid.values()):
            yield Entry(method, {**settings, **dict(zip(grid, values, strict=True))}, place)


def _each(name: Any) -> list[Any]:
    """The names of all that are registered, for the name of a family; any other value for itself."""
    return list(registry.entries(name)) if name in FAMILIES else [name]
