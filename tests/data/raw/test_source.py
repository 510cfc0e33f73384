"""Raw files: order of sources, checksums, cache, faults. No network: wheels and downloads are made on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import zipfile
from pathlib import Path

import pytest

from bench.data.raw import source
from bench.data.raw.source import MANIFEST, Download, Package, fetch
from bench.errors import BenchError

CONTENT = {"tiny/data/a.txt": b"alpha", "tiny/data/sub/b.txt": b"beta", "tiny/other.txt": b"not asked for"}
FILES = {"a.txt": "tiny/data/a.txt", "1_sub/b.txt": "tiny/data/sub/b.txt"}
URL = "https://example.invalid/files/tiny.zip"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def archive(path: Path, content: dict[str, bytes] = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as opened:
        for name, data in content.items():
            opened.writestr(name, data)
    return path


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel on disk that pip finds without any index."""
    info = {
        "tiny-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\nRequires-Python: >=99\n",
        "tiny-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny-1.0.dist-info/RECORD": b"",
        "tiny/__init__.py": b"raise RuntimeError('must not be imported')",
    }
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return archive(tmp_path / "index" / "tiny-1.0-py3-none-any.whl", CONTENT | info)


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """URL -> local file that a download gives; other URLs cannot be reached."""
    served: dict[str, Path] = {}

    class Local:
        def __init__(self, timeout: float) -> None:
            assert 0 < timeout <= 30

        def __call__(self, url: str, output_file: str, pooch: object) -> None:
            if url not in served:
                raise OSError(f"no route\nto {url}")
            shutil.copy(served[url], output_file)

    monkeypatch.setattr(source.pooch, "HTTPDownloader", Local)
    return served


def served_zip(web: dict[str, Path], tmp_path: Path, content: dict[str, bytes] = CONTENT) -> Download:
    web[URL] = archive(tmp_path / "web" / "tiny.zip", content)
    return Download(URL, f"sha256:{sha256(web[URL])}", FILES)


def fails(*parts: str, **call: object) -> str:
    """Runs fetch, which must raise one line that holds all parts."""
    with pytest.raises(BenchError) as caught:
        fetch(**call)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


def test_a_package_is_verified_unpacked_and_reused(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    package = Package("tiny", "1.0", sha256(wheel), FILES)
    into = tmp_path / "cache" / "tiny"
    got = fetch([package], into)
    assert got == {"a.txt": into / "a.txt", "1_sub/b.txt": into / "1_sub" / "b.txt"}
    assert [path.read_bytes() for path in got.values()] == [b"alpha", b"beta"]
    assert {p.relative_to(into).as_posix() for p in into.rglob("*") if p.is_file()} == {*FILES, MANIFEST}
    assert list(into.parent.iterdir()) == [into]  # no temporary folder stays
    record = json.loads((into / MANIFEST).read_text())
    assert record["files"]["a.txt"] == hashlib.sha256(b"alpha").hexdigest()
    monkeypatch.setattr(source.subprocess, "run", None)  # a second fetch needs no pip
    assert fetch([package], into) == got
    assert capfd.readouterr() == ("", "")


def test_another_wheel_than_expected_keeps_nothing(wheel: Path, tmp_path: Path) -> None:
    wanted = "0" * 64
    fails(wanted, sha256(wheel), sources=[Package("tiny", "1.0", wanted, FILES)], into=tmp_path / "cache" / "tiny")
    assert list((tmp_path / "cache").iterdir()) == []


def test_faults_of_a_package(wheel: Path, tmp_path: Path) -> None:
    lost = Package("tiny", "1.0", sha256(wheel), {"c": "tiny/data/c.txt"})
    fails("tiny==1.0", "does not hold tiny/data/c.txt", sources=[lost], into=tmp_path / "into")
    absent = Package("tiny", "2.0", "0" * 64, FILES)
    fails("tiny==2.0: pip download failed", "--from DIR", sources=[absent], into=tmp_path / "into")
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize("damage", ["changed", "removed", "manifest"])
def test_a_damaged_cache_is_named_and_fetched_again(
    web: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    download = served_zip(web, tmp_path)
    into = tmp_path / "cache"
    fetch([download], into)
    damaged = into / (MANIFEST if damage == "manifest" else "1_sub/b.txt")
    damaged.unlink() if damage == "removed" else damaged.write_text("beta!")
    with caplog.at_level(logging.WARNING):
        assert fetch([download], into)["1_sub/b.txt"].read_bytes() == b"beta"
    assert [record for record in caplog.messages if str(damaged) in record]
    caplog.clear()
    fetch([download], into)
    assert caplog.messages == []


def test_files_of_another_version_are_not_reused(web: dict[str, Path], tmp_path: Path) -> None:
    into = tmp_path / "cache"
    fetch([served_zip(web, tmp_path)], into)
    newer = served_zip(web, tmp_path, CONTENT | {"tiny/data/a.txt": b"alpha 2"})
    assert fetch([newer], into)["a.txt"].read_bytes() == b"alpha 2"


def test_a_plain_file_and_md5(web: dict[str, Path], tmp_path: Path) -> None:
    content = b"1\t2\n"
    web["https://example.invalid/log.tsv"] = tmp_path / "served"
    (tmp_path / "served").write_bytes(content)
    download = Download("https://example.invalid/log.tsv", f"md5:{hashlib.md5(content).hexdigest()}", "ratings")
    assert fetch([download], tmp_path / "cache")["ratings"].read_bytes() == content
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "log.tsv").touch()  # in a local folder it has its published name
    assert fetch([download], tmp_path / "cache", tmp_path / "own") == {"ratings": tmp_path / "own" / "log.tsv"}


def test_sources_are_tried_in_order(web: dict[str, Path], wheel: Path, tmp_path: Path) -> None:
    unreachable = Download("https://example.invalid/gone.zip", "md5:" + "0" * 32, FILES)
    tampered = Download(URL, "sha256:" + "0" * 64, FILES)
    served_zip(web, tmp_path)
    package = Package("tiny", "1.0", sha256(wheel), FILES)
    into = tmp_path / "cache"
    assert fetch([unreachable, tampered, package], into)["a.txt"].read_bytes() == b"alpha"
    assert json.loads((into / MANIFEST).read_text())["source"] == "tiny==1.0"
    message = fails(
        "gone.zip: download failed: no route to https://example.invalid/gone.zip", "--from DIR",
        sources=[unreachable, tampered], into=tmp_path / "none",
    )  # fmt: skip
    assert f"{URL}: download failed" in message and sha256(web[URL]) in message and "0" * 64 in message
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("fault", ["truncated", "flipped bit"])
def test_a_broken_archive_is_an_error(web: dict[str, Path], tmp_path: Path, fault: str) -> None:
    served_zip(web, tmp_path)
    data = bytearray(web[URL].read_bytes())
    data[data.index(b"alpha")] ^= 1
    web[URL].write_bytes(data[:-40] if fault == "truncated" else data)
    download = Download(URL, f"sha256:{sha256(web[URL])}", FILES)
    fails("tiny.zip is damaged or truncated", sources=[download], into=tmp_path / "cache" / "tiny")
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_interrupted_fetch_leaves_nothing(
    web: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = served_zip(web, tmp_path)
    into = tmp_path / "cache" / "tiny"

    def stop(content: object, file: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(source.shutil, "copyfileobj", stop)
        with pytest.raises(KeyboardInterrupt):
            fetch([download], into)
    assert list((tmp_path / "cache").iterdir()) == []
    assert fetch([download], into)["a.txt"].read_bytes() == b"alpha"


def test_a_folder_fetched_meanwhile_stays(web: dict[str, Path], tmp_path: Path) -> None:
    into = tmp_path / "cache"
    other = served_zip(web, tmp_path)

    class Slow(Download):
        def deliver(self, folder: Path) -> None:
            super().deliver(folder)
            fetch([other], into)  # another process is faster

    slow = Slow("https://example.invalid/slow.zip", other.hash, {"a.txt": "tiny/data/a.txt"})
    web[slow.url] = web[URL]
    assert set(fetch([slow, other], into)) == set(FILES)
    assert list(tmp_path.glob(".cache-*")) == []


def test_a_folder_with_other_files_is_left_alone(web: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").touch()
    fails("own", "were not fetched", sources=[served_zip(web, tmp_path)], into=tmp_path / "own")
    assert (tmp_path / "own" / "thesis.txt").exists()


def test_a_local_folder_comes_first_and_is_read_in_place(tmp_path: Path) -> None:
    first = Download(URL, "md5:" + "0" * 32, {"u.data": "ml/u.data", "u.item": "ml/u.item"})
    second = Package("other", "1", "0" * 64, {"x.inter": "other/x/x.inter"})
    own, into = tmp_path / "own", tmp_path / "cache"
    (own / "ml").mkdir(parents=True)
    (own / "u.data").touch()
    (own / "ml" / "u.item").touch()
    got = fetch([first, second], into, own)
    assert got == {"u.data": own / "u.data", "u.item": own / "ml" / "u.item"}
    (own / "u.data").unlink()
    fails(f"{own} lacks u.data (or else x.inter)", sources=[first, second], into=into, folder=own)
    (own / "x.inter").touch()
    assert fetch([first, second], into, own) == {"x.inter": own / "x.inter"}
    fails("no such folder", sources=[first], into=into, folder=tmp_path / "nowhere")
    assert not into.exists()


def test_files_of_one_name_in_two_folders_are_not_confused(tmp_path: Path) -> None:
    model = Package("lm", "1", "0" * 64, {"config.json": "lm/m/config.json", "1_P/config.json": "lm/m/1_P/config.json"})
    (tmp_path / "config.json").touch()
    fails("lacks 1_P/config.json", sources=[model], into=tmp_path / "into", folder=tmp_path)
    (tmp_path / "1_P").mkdir()
    (tmp_path / "1_P" / "config.json").touch()
    assert fetch([model], tmp_path / "into", tmp_path)["1_P/config.json"] == tmp_path / "1_P" / "config.json"


def test_nothing_to_fetch(tmp_path: Path) -> None:
    assert fetch([], tmp_path / "into") == {}
