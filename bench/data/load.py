"""Opens a prepared data set: memory-mapped splits and what describes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from bench.api import Field, Items, Schema, Task
from bench.data import split
from bench.data.mapped import mapped
from bench.data.tensors import OF_GROUPS, OF_ROWS, Split
from bench.errors import BenchError


@dataclass(frozen=True, eq=False)
class Data:
    """Holds a prepared data set. ``meta``: counts, hashes and descriptions as written beside the arrays."""

    schema: Schema
    train: Split
    valid: Split
    test: Split
    extra: tuple[Split, ...]  # further test parts
    meta: dict[str, Any]
    folder: Path


@lru_cache(maxsize=8)
def load(folder: Path) -> Data:
    """Opens the prepared data set of a folder, memory-mapped. Raises BenchError if an array of it is damaged."""
    meta = json.loads((folder / "meta.json").read_text("utf-8"))
    described = meta["schema"]
    schema = Schema(
        tasks=tuple(Task(**{**t, "classes": tuple(t["classes"])}) for t in described["tasks"]),
        fields=tuple(Field(**f) for f in described["fields"]),
        cardinality=described["cardinality"],
        history=described["history"],
        texts=tuple(json.loads((folder / "texts.json").read_text("utf-8"))),
    )
    items = Items(_tensor(folder, "items/cat"), _tensor(folder, "items/num"))
    train, valid, test = (_split(folder, name, schema, items) for name in split.PARTS)
    extra = tuple(_split(folder, name, schema, items) for name in sorted(set(meta["parts"]) - set(split.PARTS)))
    return Data(schema, train, valid, test, extra, meta, folder)


def _tensor(folder: Path, key: str) -> torch.Tensor:
    path = folder / "arrays" / f"{key}.npy"
    try:
        return mapped(path)
    except (OSError, ValueError) as error:
        raise BenchError(f"{path} is damaged ({error}); delete {folder} and prepare the data set again") from error


def _split(folder: Path, name: str, schema: Schema, items: Items) -> Split:
    def named(kind: str) -> dict[str, torch.Tensor]:
        tasks = [t.name for t in schema.tasks if (folder / "arrays" / name / kind / f"{t.name}.npy").exists()]
        return {t: _tensor(folder, f"{name}/{kind}/{t}") for t in tasks}

    tensors = {key: _tensor(folder, f"{name}/{key}") for key in (*OF_GROUPS, "start", *OF_ROWS)}
    return Split(name=name, schema=schema, items=items, labels=named("label"), truth=named("truth"), **tensors)
