"""Lists the data sets and says whether they can be had here."""

from __future__ import annotations

import json
from typing import Any

from bench import registry
from bench.api import Dataset
from bench.data.raw.source import Local
from bench.errors import BenchError
from bench.storage import cache


def datasets() -> list[dict[str, Any]]:
    """Returns name, domain, tasks, size, licence and state of every data set, and the files that it needs by hand.

    state: prepared (in this machine's cache), simulated, fetched on first use, or needs files. A broken file is a row
    that says so.
    """
    return [_row(name) for name in registry.entries("datasets")]


def needs(name: str) -> str:
    """Says which raw files a data set needs and where they are from; empty if it is simulated."""
    sources = registry.load_dataset(name)().sources
    if not sources:
        return ""
    how = sources[0].how if isinstance(sources[0], Local) else sources[0].label
    return f"{', '.join(sorted(sources[0].published.values()))}: {how}"


def _row(name: str) -> dict[str, Any]:
    entry = registry.find("dataset", name)
    row: dict[str, Any] = {"name": name, "about": entry.summary}
    try:
        dataset = registry.load_dataset(name)()
    except BenchError as error:
        return {**row, "state": f"broken: {error}", "domain": "", "tasks": [], "size": "", "licence": "", "files": []}
    state, size = _state(name, dataset)
    return {
        **row,
        "domain": dataset.domain,
        "tasks": [t.name for t in dataset.tasks],
        "size": size,
        "licence": dataset.licence,
        "state": state,
        "files": sorted(dataset.sources[0].published.values()) if state == "needs files" else [],
    }


def _state(name: str, dataset: Dataset) -> tuple[str, str]:
    size = dataset.sizes.get(dataset.variant, "")
    done = sorted((cache.root() / "data" / name).glob("*/meta.json"), key=lambda path: path.stat().st_mtime)
    if done:
        parts = json.loads(done[-1].read_text("utf-8"))["parts"]
        return "prepared", f"{sum(part['rows'] for part in parts.values()):,} rows"
    if not dataset.sources:
        return "simulated", size
    return ("needs files" if all(isinstance(s, Local) for s in dataset.sources) else "fetched on first use"), size
