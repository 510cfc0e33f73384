"""Where fetched files, prepared data, models and text vectors are kept; a folder appears there whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from bench.errors import BenchError


def root() -> Path:
    """The cache folder: ``$BENCH_CACHE``, or the user's cache folder of this system."""
    return Path(os.environ.get("BENCH_CACHE") or platformdirs.user_cache_dir("mlm-mtl-bench"))


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``target`` when the block ends well, and vanishes when it does not.

    Where another process has made the target meanwhile, that one stays. Raises BenchError if it cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
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
    finally:
        shutil.rmtree(made, ignore_errors=True)
