"""Files out of zip, tar and gzip archives: nothing lands outside the folder, and what is damaged is named."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Protocol
from zipfile import BadZipFile, ZipFile

from bench.errors import BenchError

ARCHIVES = (".zip", ".whl", ".tar", ".tar.gz", ".tgz")


class _Archive(Protocol):
    def names(self) -> list[str]: ...
    def open(self, name: str) -> IO[bytes]: ...


class _Zip:
    def __init__(self, opened: ZipFile) -> None:
        self.opened = opened

    def names(self) -> list[str]:
        return [i.filename for i in self.opened.infolist() if not i.is_dir()]

    def open(self, name: str) -> IO[bytes]:
        return self.opened.open(name)


class _Tar:
    def __init__(self, opened: tarfile.TarFile) -> None:
        self.opened = opened

    def names(self) -> list[str]:
        return [m.name for m in self.opened.getmembers() if m.isfile()]

    def open(self, name: str) -> IO[bytes]:
        member = self.opened.extractfile(name)
        if member is None:
            raise KeyError(name)
        return member


def is_archive(path: Path) -> bool:
    """Whether the name of a file is that of a zip or tar archive."""
    return path.name.endswith(ARCHIVES)


def unpack(archive: Path, folder: Path, members: Mapping[str, str] | None = None) -> None:
    """Extracts members (name to write -> path inside; default: every file under its own path) below a folder.

    Raises BenchError if the archive is damaged, lacks a member, or names a path that leaves the folder.
    """
    with _readable(archive), _opened(archive) as opened:
        for name, member in (members or {n: n for n in opened.names()}).items():
            parts = PurePosixPath(name.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts:
                raise BenchError(f"{archive}: member '{name}' would land outside its folder; do not trust this archive")
            try:
                content = opened.open(member)
            except KeyError as error:
                raise BenchError(f"{archive.name} does not hold {member}") from error
            target = folder / parts
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file)


def gunzip(compressed: Path, target: Path) -> None:
    """Writes the content of a .gz file. Raises BenchError if it is damaged or truncated."""
    with _readable(compressed), gzip.open(compressed) as content, target.open("wb") as file:
        shutil.copyfileobj(content, file)


@contextmanager
def _opened(archive: Path) -> Iterator[_Archive]:
    if archive.name.endswith((".zip", ".whl")):
        with ZipFile(archive) as zipped:
            yield _Zip(zipped)
    else:
        with tarfile.open(archive) as tarred:
            yield _Tar(tarred)


@contextmanager
def _readable(archive: Path) -> Iterator[None]:
    try:
        yield
    except (BadZipFile, tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())[:300]
        raise BenchError(f"{archive.name} is damaged or truncated ({reason}); fetch it again") from error
