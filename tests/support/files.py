"""Files of every data set in its official format, written by ``tests.support.formats`` or its own ``sample``."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

from bench import registry

NAMES = sorted(registry.entries("datasets"))


def writer(name: str) -> ModuleType:
    """The module that writes a data set's files: that of its format, or its own, which then has a ``sample``.

    Where it says so, KEYS are the files with one line for each value of a column, FIRST_COUNTS those of them where of
    several lines the first counts, and NEEDED a key without which a JSON line means nothing.
    """
    stem = registry.find("dataset", name).path.stem
    if (Path(__file__).parent / "formats" / f"{stem}.py").exists():
        return importlib.import_module(f"tests.support.formats.{stem}")
    return sys.modules[registry.load_dataset(name).__module__]


WRITTEN = [n for n in NAMES if hasattr(writer(n), "write") or hasattr(writer(n), "sample")]


@cache
def contents(name: str) -> dict[Path, bytes]:
    """What a data set's files hold, by their place in its folder; written once, for all tests of a process."""
    module = writer(name)
    with TemporaryDirectory() as folder:
        do = module.write if hasattr(module, "write") else module.sample
        do(Path(folder), registry.find("dataset", name).variant)
        return {p.relative_to(folder): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def write(name: str, folder: Path) -> Path:
    """The files of a data set in its official format."""
    for place, content in contents(name).items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(content)
    return folder
