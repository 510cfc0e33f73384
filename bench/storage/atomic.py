"""Files that appear whole or not at all, and the hash that says they are."""

from __future__ import annotations

import hashlib
import os
import shutil
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


def clear_abandoned(folder: Path, pattern: str = "**/.tmp-*", age_s: float = ABANDONED_S) -> None:
    """Removes what killed processes left half-written in a folder: files, or folders, older than ``age_s`` seconds."""
    for left in folder.glob(pattern):
        with suppress(FileNotFoundError):  # just finished, or cleared by another process
            if time.time() - left.stat().st_mtime > age_s:
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()


def sha256_of(path: Path) -> str:
    """Returns the sha256 of a file's content, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
