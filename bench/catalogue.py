"""What the data sets are and whether they can be had here."""

from __future__ import annotations

import json
from typing import Any

from bench import registry
from bench.api import Dataset
from bench.data import cache
from bench.data.source import Local
from bench.errors import BenchError


def datasets() -> list[dict[str, Any]]:
    """Name, domain, tasks, size, licence and state of every data set, and the files that it needs by hand.

    state: prepared (in this machine's cache), simulated, fetched on first use, or needs files. A broken file is a row
    that says so.
    """
    return [dataset_row(name) for name in registry.entries("datasets")]


def dataset_row(name: str) -> dict[str, Any]:
    """The same of one data set. how: where its files are from, if it needs them."""
    entry = registry.find("dataset", name)
    row: dict[str, Any] = {"name": name, "about": entry.summary}
    try:
        dataset = registry.load_dataset(name)()
    except BenchError as error:
        empty: dict[str, Any] = {"domain": "", "tasks": [], "size": "", "licence": "", "files": [], "how": ""}
        return {**row, "state": f"broken: {error}", **empty}
    state, size = _state(name, dataset)
    by_hand = state == "needs files"
    return {
        **row,
        "domain": dataset.domain,
        "tasks": [t.name for t in dataset.tasks],
        "size": size,
        "licence": dataset.licence,
        "state": state,
        "files": sorted(dataset.sources[0].published.values()) if by_hand else [],
        "how": dataset.sources[0].how if by_hand else "",
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
