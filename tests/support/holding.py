"""A process that holds a lock. What it imports, each such process imports: it is little."""

from __future__ import annotations

import time
from pathlib import Path

from bench.storage import cache


def hold(folder: Path, seconds: float) -> None:
    """Holds a lock of the cache for some seconds, and says when by files in a folder."""
    with cache.only_one("x"):
        (folder / "held").touch()
        time.sleep(seconds)
        (folder / "released").touch()
