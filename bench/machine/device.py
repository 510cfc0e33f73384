"""The device that a run computes on, its set-up, and the peak memory of one run."""

from __future__ import annotations

import ctypes
import os
import platform
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch

from bench.errors import BenchError

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of mallopt

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def device_of(name: str) -> torch.device:
    """``auto`` is CUDA where there is one. Raises BenchError for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise BenchError("no CUDA device here; use --device cpu")
    return torch.device(name)


def multiplies_bfloat16() -> bool:
    """Whether torch has fast products of bfloat16 on this CPU."""
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # torch without oneDNN
        return False


def set_up() -> None:
    """What every training wants of its process: deterministic operations, and memory that stays at hand."""
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms imports the compiler: seconds
    cast(Any, torch.utils.deterministic).fill_uninitialized_memory = False  # else every new tensor is written once more
    if _glibc() is not None:
        # Else large tensors go back to the system as they are freed, and come again page by page at every step.
        for parameter, value in ((_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 1 << 29), (_TOP_PAD, 64 << 20)):
            cast(Any, _glibc()).mallopt(parameter, value)


@lru_cache(maxsize=1)
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def reset_peak(device: torch.device) -> None:
    """Starts a new measurement of peak memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif os.access(_CLEAR, os.W_OK):
        if (libc := _glibc()) is not None:
            libc.malloc_trim(0)  # what earlier runs have left behind is not this one's
        _CLEAR.write_text("5")


def peak_mb(device: torch.device) -> float | None:
    """Peak memory since ``reset_peak`` in MB: allocated on the GPU, or resident in this process. None if unknown."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    if not os.access(_CLEAR, os.W_OK):
        return None
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024, 1)
