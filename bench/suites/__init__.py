"""Named lists of runs: one TOML file a suite in this folder; the file name is the name."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import BenchError, unknown

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Entry:
    """A method, and settings of its own beside those of the data set. In the file: a name, or a table of this form."""

    method: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Setup:
    """What runs on one data set, and how: entries, epochs and patience, and settings that differ from the defaults."""

    entries: list[Entry]
    budget: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """The entries of each data set with seeds 0 .. seeds-1. In the file ``methods`` on top are for all data sets, those
    of a data set come to them."""

    about: str
    seeds: int
    datasets: dict[str, Setup]

    @property
    def methods(self) -> list[str]:
        """The names of the methods, each once."""
        return list(dict.fromkeys(entry.method for setup in self.datasets.values() for entry in setup.entries))


def paths() -> dict[str, Path]:
    """The suite files by name."""
    return {p.stem: p for p in sorted(FOLDER.glob("*.toml"))}


def load(name: str) -> Suite:
    """A suite by name. Raises BenchError if it is unknown or its file is wrong."""
    known = paths()
    if name not in known:
        raise unknown("suite", name, known)
    try:
        content: dict[str, Any] = tomllib.loads(known[name].read_text("utf-8"))
        common = content.pop("methods")
        setups = {
            dataset: Setup([_entry(known[name], entry) for entry in [*common, *setup.pop("methods", [])]], **setup)
            for dataset, setup in content.pop("datasets").items()
        }
        return Suite(**content, datasets=setups)
    except (tomllib.TOMLDecodeError, TypeError, KeyError) as error:
        raise BenchError(f"{known[name]}: {error}") from error


def _entry(path: Path, written: Any) -> Entry:
    if isinstance(written, str):
        return Entry(written)
    if isinstance(written, dict) and written.keys() <= {"method", "settings"}:
        method, settings = written.get("method"), written.get("settings", {})
        if isinstance(method, str) and isinstance(settings, dict):
            return Entry(method, settings)
    raise BenchError(
        f"{path}: methods has {written}; give a name, or {{ method = NAME, settings = {{ KEY = VALUE }} }}"
    )
