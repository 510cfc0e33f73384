"""Raw files in archives, one process at a time, families of data sets, further test parts."""

from __future__ import annotations

import gzip
import io
import multiprocessing
import tarfile
import time
from pathlib import Path
from zipfile import ZipFile

import polars as pl
import pytest

from bench import registry
from bench.api import Temporal
from bench.data import catalogue
from bench.data.raw.archive import gunzip, is_archive, unpack
from bench.data.raw.source import Download, Local, fetch
from bench.data.split import assign
from bench.errors import BenchError
from bench.storage import cache
from tests.support.holding import hold


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


FILES = {"top/a.csv": b"1,2\n", "top/deep/b.csv": b"3\n"}
SOURCE = Local({"a.csv": "top/a.csv", "b.csv": "top/deep/b.csv"}, how="ask the publisher for a and b")


@pytest.mark.parametrize("make", [lambda p: zipped(p / "x.zip", FILES), lambda p: tarred(p / "x.tar.gz", FILES)])
def test_a_folder_may_be_an_archive(make: object, tmp_path: Path) -> None:
    archive = make(tmp_path)
    assert is_archive(archive)
    found = fetch((SOURCE,), tmp_path / "into", archive)
    assert {name: path.read_bytes() for name, path in found.items()} == {"a.csv": b"1,2\n", "b.csv": b"3\n"}
    assert fetch((SOURCE,), tmp_path / "into", archive) == found  # unpacked once


def test_files_in_a_folder_may_be_compressed(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"1,2\n"))
    (tmp_path / "deep" / "b.csv").write_bytes(b"3\n")
    found = fetch((SOURCE,), tmp_path / "into", tmp_path)
    assert found["a.csv"].name == "a.csv" and found["a.csv"].read_bytes() == b"1,2\n"
    assert found["b.csv"] == tmp_path / "deep" / "b.csv"


@pytest.mark.parametrize("name", ["../evil.csv", "/evil.csv", "a/../../evil.csv", "..\\evil.csv"])
@pytest.mark.parametrize("make", [zipped, tarred])
def test_an_archive_cannot_leave_its_folder(make: object, name: str, tmp_path: Path) -> None:
    archive = make(tmp_path / ("x.zip" if make is zipped else "x.tar.gz"), {name: b"x"})
    target = tmp_path / "deep" / "target"
    target.mkdir(parents=True)
    with pytest.raises(BenchError, match="would land outside its folder"):
        unpack(archive, target)
    assert not list(tmp_path.rglob("evil.csv"))


@pytest.mark.parametrize("make", [zipped, tarred])
def test_damaged_archives_are_named(make: object, tmp_path: Path) -> None:
    archive = make(tmp_path / ("x.zip" if make is zipped else "x.tar.gz"), {"a": b"0123456789" * 5000})
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(BenchError, match=r"x\.(zip|tar\.gz) is damaged or truncated .*; fetch it again"):
        unpack(archive, tmp_path / "target")


def test_a_truncated_gz_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"0123456789" * 5000)[:-20])
    with pytest.raises(BenchError, match=r"a\.csv\.gz is damaged or truncated"):
        gunzip(path, tmp_path / "half.csv")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.csv").write_bytes(b"3\n")
    with pytest.raises(BenchError, match="damaged or truncated"):
        fetch((SOURCE,), tmp_path / "into", tmp_path)
    assert not list((cache.root() / "unpacked").glob(".*"))


def test_what_only_the_user_can_get_says_how(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"ask the publisher for a and b; --from"):
        fetch((SOURCE,), tmp_path / "into")
    with pytest.raises(BenchError, match=r"lacks a\.csv, deep/b\.csv"):
        fetch((SOURCE,), tmp_path / "into", tmp_path)


def test_a_download_may_be_a_tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tarred(tmp_path / "x.tar.gz", FILES)
    source = Download("https://example.org/x.tar.gz", "sha256:0", {"b": "top/deep/b.csv"})
    monkeypatch.setattr(Download, "_get", lambda self, scratch: archive)
    assert fetch((source,), tmp_path / "into")["b"].read_bytes() == b"3\n"


def test_one_process_works_and_the_others_wait(tmp_path: Path) -> None:
    other = multiprocessing.get_context("spawn").Process(target=hold, args=(tmp_path, 1.0))
    other.start()
    while not (tmp_path / "held").exists():
        assert other.is_alive()
        time.sleep(0.02)
    with cache.only_one("x"):
        assert (tmp_path / "released").exists()
    other.join()


def test_a_killed_process_lets_go(tmp_path: Path) -> None:
    other = multiprocessing.get_context("spawn").Process(target=hold, args=(tmp_path, 60.0))
    other.start()
    while not (tmp_path / "held").exists():
        assert other.is_alive()
        time.sleep(0.02)
    other.kill()
    with cache.only_one("x"):
        assert not (tmp_path / "released").exists()
    other.join()


FAMILY = '''"""A family."""

from typing import ClassVar

from bench.api import Dataset


class Family(Dataset):
    variants: ClassVar[tuple[str, ...]] = ("nl", "es")
    domain = "e-commerce"
    licence = "none"

    @property
    def about(self) -> str:
        return f"country {self.variant}"
'''


def test_a_family_registers_each_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my_family.py"
    path.write_text(FAMILY)
    assert registry._variants(path) == ("nl", "es")
    entry = registry.Entry("my-family-es", "datasets", path, None, "es")
    monkeypatch.setattr(registry, "find", lambda kind, name: entry)
    made = registry.load_dataset("my-family-es")()
    assert made.variant == "es" and made.about == "country es"


def test_the_catalogue_tells_what_the_files_say() -> None:
    rows = {row["name"]: row for row in catalogue.datasets()}
    assert rows["movielens-100k"]["state"] in ("fetched on first use", "prepared")
    assert rows["movielens-100k"]["tasks"] == ["watch", "rec", "like", "rank", "interest"]
    for name, row in rows.items():
        cls = registry.load_dataset(name)
        assert row["domain"] == cls.domain, name
        assert row["about"], name


def test_extra_parts_never_train_or_select() -> None:
    groups = pl.DataFrame(
        {"time": [float(t) for t in range(10)], "extra": [None, "random", None, *[None] * 5, "random", None]}
    )
    part = assign(groups, groups["time"].to_numpy() * 0 + 1, Temporal(6.0, 8.0, absolute=True))
    assert part.to_list() == ["train", "purged", *["train"] * 4, "valid", "valid", "random", "test"]
