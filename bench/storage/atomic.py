"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from bench.errors import BenchError

ABANDONED_S = 600  # a temporary file older than this belongs to no living process


os.umask(UMASK := os.umask(0o077))  # it can only be read by setting it; here, before there are threads


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Writes a file so that readers see the old content, the new content or nothing, never a part.

    Raises BenchError if the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                os.fchmod(handle, 0o666 & ~UMASK)  # a temporary file is its owner's alone
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror}; choose another folder with --results") from error


def clear_abandoned(folder: Path) -> None:
    """Removes what killed processes left half-written below a folder."""
    for stale in folder.rglob(".tmp-*"):
        with suppress(FileNotFoundError):  # just finished, or cleared by another process
            if time.time() - stale.stat().st_mtime > ABANDONED_S:
                stale.unlink()
