"""Extracts files from zip, tar and gzip archives, never outside the folder given, and names what is damaged."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast
from zipfile import BadZipFile, ZipFile

from bench.errors import BenchError

ARCHIVES = (".zip", ".whl", ".tar", ".tar.gz", ".tgz")


def is_archive(path: Path) -> bool:
    """Says whether a file's name is that of a zip or tar archive."""
    return path.name.endswith(ARCHIVES)


def unpack(archive: Path, folder: Path, members: Mapping[str, str] | None = None) -> None:
    """Extracts members (name to write -> path inside; default: every file under its own path) below a folder.

    Raises BenchError if the archive is damaged, lacks a member, or names a path that leaves the folder.
    """
    with _readable(archive), _opened(archive) as opened:
        for name, member in (members or {n: n for n in opened}).items():
            parts = PurePosixPath(name.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts:
                raise BenchError(f"{archive}: member '{name}' would land outside its folder; do not trust this archive")
            if member not in opened:
                raise BenchError(f"{archive.name} does not hold {member}")
            target = folder / parts
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened[member]() as content, target.open("wb") as file:
                shutil.copyfileobj(content, file)


def gunzip(compressed: Path, target: Path) -> None:
    """Writes the content of a .gz file to ``target``. Raises BenchError if it is damaged or truncated."""
    with _readable(compressed), gzip.open(compressed) as content, target.open("wb") as file:
        shutil.copyfileobj(content, file)


@contextmanager
def _opened(archive: Path) -> Iterator[dict[str, Callable[[], IO[bytes]]]]:
    """What opens each file in an archive, by its path there."""
    if archive.name.endswith((".zip", ".whl")):
        with ZipFile(archive) as zipped:
            yield {info.filename: partial(zipped.open, info) for info in zipped.infolist() if not info.is_dir()}
    else:
        with tarfile.open(archive) as tarred:
            members = (member for member in tarred.getmembers() if member.isfile())
            yield {member.name: partial(cast(Any, tarred).extractfile, member) for member in members}


@contextmanager
def _readable(archive: Path) -> Iterator[None]:
    try:
        yield
    except (BadZipFile, tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())[:300]
        raise BenchError(f"{archive.name} is damaged or truncated ({reason}); fetch it again") from error
