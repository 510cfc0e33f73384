"""Columns in files: mapped, so that what is small enough is simply there, and read by parts where it is not.

A page of a mapped file that has been looked at stays in the process's resident memory, so that one pass over a large
file makes all of it resident. What is read into a buffer does not; the system's page cache keeps it as well.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from weakref import WeakValueDictionary, finalize

import numpy as np
import torch
from torch import Tensor

from bench.data import cache

LARGE = 1 << 22  # rows; up to here a column is used as a whole

_mapped: WeakValueDictionary[int, np.memmap] = WeakValueDictionary()  # where a mapping begins in memory -> the mapping


def mapped(path: Path) -> Tensor:
    """The array of a ``.npy`` file, memory-mapped. Raises OSError or ValueError if the file holds none."""
    # Copy-on-write: the pages stay shared and on disk, and torch accepts the array without a warning.
    array = np.load(path, mmap_mode="c")
    tensor = torch.from_numpy(array)
    if array.size:
        _mapped[tensor.untyped_storage().data_ptr()] = array
    return tensor


def held(column: Tensor) -> Tensor:
    """A contiguous tensor's values: of one that lies in a mapped file a copy, made without touching the mapping."""
    array = _mapped.get(column.untyped_storage().data_ptr()) if column.numel() else None
    if array is None or array.filename is None:
        return column
    offset = array.offset + column.storage_offset() * column.element_size()
    values = np.fromfile(array.filename, array.dtype, column.numel(), offset=offset)
    return torch.from_numpy(values).view(column.shape)


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
