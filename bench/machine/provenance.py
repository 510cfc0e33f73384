"""What a record says of the machine and the code that it comes from."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bench.api import several
from bench.machine.processes import size


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, device and threads; nothing that names the machine or its owner."""
    processes = {"processes": size()} if several() else {}
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "python": platform.python_version(),
        **_packages(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device.type,
        "hardware": hardware,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        **processes,
    }


@lru_cache(maxsize=1)
def _packages() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "numpy", "polars", "transformers")}


@lru_cache(maxsize=1)
def code_version(folder: Path) -> dict[str, Any]:
    """Returns the commit of the checkout, and whether tracked files differ from it, results apart; nulls outside a
    checkout."""

    def git(*words: str) -> str | None:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        commit = git("rev-parse", "HEAD")
        changes = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)results")
    except FileNotFoundError:  # no git on this machine
        commit, changes = None, None
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


@lru_cache(maxsize=1)
def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
