"""Named lists of runs: one TOML file a suite in this folder; the file name is the name."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import BenchError, unknown

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Setup:
    """How the methods run on one data set: epochs and patience, and settings that differ from the defaults."""

    budget: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """Every method on every data set with seeds 0 .. seeds-1."""

    about: str
    methods: list[str]
    seeds: int
    datasets: dict[str, Setup]


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
        setups = {dataset: Setup(**setup) for dataset, setup in content.pop("datasets").items()}
        return Suite(**content, datasets=setups)
    except (tomllib.TOMLDecodeError, TypeError, KeyError) as error:
        raise BenchError(f"{known[name]}: {error}") from error
