"""Columns that are written as they come and read as mapped files."""

from __future__ import annotations

import tempfile
from weakref import finalize

import numpy as np

from bench.storage import cache


class Spilled:
    """Numbers of many rows in a file without a name, which goes with this object: appended to, and read by slices."""

    def __init__(self) -> None:
        folder = cache.root()
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (kept open)
        finalize(self, self._file.close)
        self._rows = 0
        self._shape: tuple[int, ...] = ()  # of a row

    def append(self, values: np.ndarray) -> None:
        """values: float32 [n, ...]."""
        self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(values, np.float32).data)
        self._rows, self._shape = self._rows + len(values), values.shape[1:]

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, part: slice) -> np.ndarray:
        self._file.flush()
        first, last, _ = part.indices(self._rows)
        width = int(np.prod(self._shape))
        self._file.seek(4 * first * width)
        return np.fromfile(self._file, np.float32, max(last - first, 0) * width).reshape(-1, *self._shape)
