"""Which runs are under way on this machine: each holds a lock named by its key, which a killed process lets go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from bench.storage import cache


@contextmanager
def mark(key: str) -> Iterator[None]:
    """The run of this key is under way in this block. Never waits or fails: another process may make the same run."""
    path = _path(key)
    lock = FileLock(path)
    with suppress(OSError):  # Timeout, which is one, says that another process has marked it
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    try:
        yield
    finally:
        if lock.is_locked:
            path.unlink(missing_ok=True)
            lock.release()


def is_running(key: str) -> bool:
    """Whether a process of this machine makes the run now."""
    path = _path(key)
    if path.exists():  # else asking would make the file
        try:
            FileLock(path).acquire(blocking=False).lock.release()
        except Timeout:
            return True
        except OSError:  # a cache of somebody else
            return False
    return False


def _path(key: str) -> Path:
    return cache.root() / "locks" / f"run-{key}.lock"
