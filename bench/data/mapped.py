"""Maps columns that lie in files, and reads parts of those that are too large to be resident.

A page of a mapped file that has been looked at stays in the process's resident memory, so that one pass over a large
file makes all of it resident. What is read into a buffer does not; the system's page cache keeps it as well.
"""

from __future__ import annotations

from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

LARGE = 1 << 22  # rows; up to here a column is used as a whole

_mapped: WeakValueDictionary[int, np.memmap] = WeakValueDictionary()  # where a mapping begins in memory -> the mapping


def mapped(path: Path) -> Tensor:
    """Maps the array of a ``.npy`` file into memory. Raises OSError or ValueError if the file holds none."""
    # Copy-on-write: the pages stay shared and on disk, and torch accepts the array without a warning.
    array = np.load(path, mmap_mode="c")
    tensor = torch.from_numpy(array)
    if array.size:
        _mapped[tensor.untyped_storage().data_ptr()] = array
    return tensor


def in_memory(column: Tensor) -> Tensor:
    """Returns a contiguous tensor in memory: a copy, made without touching the mapping, if it lies in a mapped file."""
    array = _mapped.get(column.untyped_storage().data_ptr()) if column.numel() else None
    if array is None or array.filename is None:
        return column
    offset = array.offset + column.storage_offset() * column.element_size()
    values = np.fromfile(array.filename, array.dtype, column.numel(), offset=offset)
    return torch.from_numpy(values).view(column.shape)
