"""Files of every data set in its official format, written by ``tests.support.formats``."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from bench import registry

NAMES = sorted(registry.entries("datasets"))
# Those with a writer. Where it says so, KEYS are the files with one line for each value of a column, FIRST_COUNTS those
# of them where of several lines the first counts, and NEEDED a key without which a JSON line means nothing.
WRITTEN = [
    n for n in NAMES if (Path(__file__).parent / "formats" / f"{registry.find('dataset', n).path.stem}.py").exists()
]


def writer(name: str) -> ModuleType:
    return importlib.import_module(f"tests.support.formats.{registry.find('dataset', name).path.stem}")


def write(name: str, folder: Path) -> Path:
    """The files of a data set in its official format."""
    folder.mkdir(parents=True, exist_ok=True)
    writer(name).write(folder, registry.find("dataset", name).variant)
    return folder
