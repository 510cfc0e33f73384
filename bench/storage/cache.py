"""Where fetched files, prepared data, models and text vectors are kept; a folder appears there whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock

from bench.errors import BenchError
from bench.storage.atomic import clear_abandoned

FOLDER_ABANDONED_S = 6 * 3600  # a temporary folder older than this belongs to no living process


def root() -> Path:
    """Returns the cache folder: ``$BENCH_CACHE``, or the user's cache folder of this system."""
    return Path(os.environ.get("BENCH_CACHE") or platformdirs.user_cache_dir("mlm-mtl-bench"))


@contextmanager
def only_one(name: str) -> Iterator[None]:
    """Lets one process at a time into this block; the others wait. A killed process lets go."""
    folder = root() / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{name}.lock")
        lock.acquire()
    except OSError as error:
        raise BenchError(f"cannot write to {folder}: {error.strerror}; set BENCH_CACHE to another folder") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Makes a temporary folder that becomes ``target`` when the block ends well, and vanishes when it does not.

    Where another process has made the target meanwhile, that one stays. Raises BenchError if it cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        clear_abandoned(target.parent, f".{target.name}-*", FOLDER_ABANDONED_S)
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise BenchError(
            f"cannot write to {target.parent}: {error.strerror}; set BENCH_CACHE to another folder"
        ) from error
    try:
        yield made
        if not target.exists():
            try:
                os.replace(made, target)
            except OSError:
                if not target.exists():
                    raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BenchError(f"no space left for {target}; free some, or set BENCH_CACHE to another disk") from error
        raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
