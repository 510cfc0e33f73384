"""A prepared data set in the cache as plain arrays, for reports, which need no tensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bench.storage.cache import root


@dataclass(frozen=True)
class Prepared:
    """The folder of a prepared data set and what its ``meta.json`` says."""

    folder: Path
    meta: dict[str, Any]

    @classmethod
    @cache
    def find(cls, dataset: str, sha256: str) -> Prepared | None:
        """The prepared data of that content; None if the cache has none."""
        for path in sorted((root() / "data" / dataset).glob("*/meta.json")):
            meta = json.loads(path.read_text("utf-8"))
            if meta.get("sha256") == sha256:
                return cls(path.parent, meta)
        return None

    def array(self, part: str, name: str) -> np.ndarray:
        """A column of a part of the rows, memory-mapped."""
        found: np.ndarray = np.load(self.folder / "arrays" / part / f"{name}.npy", mmap_mode="r")
        return found

    def scope(self, task: str) -> str:
        """Whether a task has a label for each row (``pair``) or for each group (``user``)."""
        return next(str(known["scope"]) for known in self.meta["schema"]["tasks"] if known["name"] == task)
