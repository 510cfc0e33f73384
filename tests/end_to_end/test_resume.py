"""Interrupted runs, in real processes: what is stored is whole, and the same command continues to the same numbers."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench import registry
from bench.storage import cache
from tests.support import command
from tests.support.command import SMALL, Bench, Fork
from tests.support.forked import Forked

LIMIT = 300  # seconds: a machine may be busy with other things
RUNS = 6
STOPPED = "bench: stopped; stored records are whole, and the same command continues"

Records = Callable[[Path], dict[str, Any]]


until = partial(command.until, limit=LIMIT)


def stored(results: Path) -> int:
    return len(list(results.glob("runs/*/*/*.json")))


def family(process: Forked) -> list[psutil.Process]:
    """The process and all that it has started."""
    top = psutil.Process(process.pid)
    return [top, *top.children(recursive=True)]


def workers(process: Forked) -> list[psutil.Process]:
    """Those of the process that forks them."""
    return [worker for child in psutil.Process(process.pid).children() for worker in child.children()]


def gone(processes: Iterable[psutil.Process]) -> bool:
    def ended(process: psutil.Process) -> bool:
        try:
            return process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return all(ended(p) for p in processes)


def predictions(results: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (results / "predictions").glob("*.npz")}


SLOW = """
import os
import time

from baselines.shared_bottom import SharedBottom


class Slow(SharedBottom):
    def step(self, batch, optimizer):
        if "STEPS" in os.environ:
            with open(os.environ["STEPS"], "a") as file:
                file.write("x")
        time.sleep(0.01)
        return super().step(batch, optimizer)
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """The command that is interrupted: three methods, two seeds; one method takes its time, most of a run asleep."""
    path = tmp_path_factory.mktemp("plugins") / "slow.py"
    path.write_text(SLOW)
    methods = ("-m", "slow", "-m", "single_task", "-m", "popularity", "--plugin", path, "-s", "batch_size=256")
    return ("run", "-d", "sim-news", *SMALL, "--epochs", 3, *methods, "--seeds", RUNS // 3)


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many steps the slow runs of this test have made so far."""
    path = tmp_path / "steps"
    path.touch()
    monkeypatch.setenv("STEPS", str(path))
    return lambda: path.stat().st_size


@pytest.fixture
def kept() -> Callable[[], set[Path]]:
    """Checkpoints that there are now and were not before this test: others share the cache."""

    def found() -> set[Path]:
        return set((cache.root() / "checkpoints").glob("*.safetensors"))

    before = found()
    return lambda: found() - before


@pytest.fixture(scope="module")
def whole(bench: Bench, words: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the same command without an interruption."""
    results = tmp_path_factory.mktemp("whole") / "results"
    bench(*words, "--workers", 1, "--results", results)
    assert stored(results) == RUNS
    return results


@pytest.fixture
def finish(bench: Bench, words: tuple[object, ...], whole: Path, records: Records) -> Callable[[Path], None]:
    """Runs the command to its end: the same records as without an interruption. Then again: nothing is computed."""

    def call(results: Path) -> None:
        had = {p: p.read_bytes() for p in results.glob("runs/*/*/*.json")}
        last = (*words, "--workers", 1, "--results", results)
        summary = bench(*last).stderr.splitlines()[-1]
        assert summary == (f"{RUNS - len(had)} ok, {len(had)} stored" if had else f"{RUNS} ok")
        assert {p: p.read_bytes() for p in had} == had  # what was stored has not been made again
        assert records(results) == records(whole)
        assert predictions(results) == predictions(whole)

        now = {p: p.stat().st_mtime_ns for p in results.rglob("*.json")}
        again = bench(*last).stderr.splitlines()
        assert again[-1] == f"{RUNS} stored"
        assert again[:-1] == [line for line in again if "already stored (ok)" in line] and len(again) == RUNS + 1
        assert {p: p.stat().st_mtime_ns for p in results.rglob("*.json")} == now
        bench("board", "--results", results)

    return call


def only_whole(results: Path, records: Records, whole: Path) -> None:
    """Each stored record is one of the uninterrupted run; all else is temporary, by its name."""
    found, wanted = records(results), records(whole)
    assert found == {k: wanted[k] for k in found}
    rest = [p for p in results.rglob("*") if p.is_file() and p.suffix not in (".json", ".npz")]
    assert all(p.name.startswith((".tmp-", ".probe")) for p in rest)


STEPS = 3 * 7  # of a slow run


def test_killed_with_one_worker(
    fork: Fork,
    words: tuple[object, ...],
    whole: Path,
    finish: Callable[[Path], None],
    records: Records,
    steps: Callable[[], int],
    kept: Callable[[], set[Path]],
    tmp_path: Path,
) -> None:
    """kill -9 amid the second run, which is kept at every batch: the same command goes on from there."""
    results = tmp_path / "results"
    process = fork(*words, "--workers", 1, "--checkpoint", 1e-6, "--results", results)
    until(lambda: steps() > 1.5 * STEPS or process.poll() is not None)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    only_whole(results, records, whole)
    assert 0 < stored(results) < RUNS and len(kept()) == 1
    finish(results)
    total = STEPS * RUNS // 3
    assert total <= steps() <= total + 1  # of the batch that was killed, or had not been kept yet
    assert not kept()


@pytest.mark.slow
def test_killed_with_two_workers(
    fork: Fork, words: tuple[object, ...], whole: Path, finish: Callable[[Path], None], records: Records,
    tmp_path: Path,
) -> None:  # fmt: skip
    """The parent alone: no worker survives it."""
    results = tmp_path / "results"
    process = fork(*words, "--workers", 2, "--results", results)
    until(lambda: stored(results) >= 1 or process.poll() is not None)
    processes = family(process)
    assert len(workers(process)) == 2
    process.kill()
    assert process.wait() == -signal.SIGKILL
    until(lambda: gone(processes))
    now = stored(results)
    only_whole(results, records, whole)
    assert 0 < now == stored(results) < RUNS
    finish(results)


def test_sigterm(
    fork: Fork, words: tuple[object, ...], whole: Path, finish: Callable[[Path], None], records: Records,
    steps: Callable[[], int], kept: Callable[[], set[Path]], tmp_path: Path,
) -> None:  # fmt: skip
    """The parent alone is asked to end: all runs at hand are kept, exit code 143; then nothing is trained twice."""
    results = tmp_path / "results"
    process = fork(*words, "--workers", 2, "--results", results)
    until(lambda: steps() > 1.5 * STEPS or process.poll() is not None)
    processes = family(process)
    process.terminate()
    out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, out) == (143, "")
    assert err.splitlines()[-1] == "bench: terminated; what was kept is whole, and the same command continues"
    assert "Traceback" not in err
    until(lambda: gone(processes))
    only_whole(results, records, whole)
    assert kept()
    finish(results)
    assert steps() == STEPS * RUNS // 3 and not kept()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_that_are_still_starting_end_with_their_parent(
    fork: Fork, words: tuple[object, ...], tmp_path: Path, number: signal.Signals
) -> None:
    """The parent alone is killed; Ctrl-C reaches them too, and they say nothing."""
    process = fork(*words, "--workers", 2, "--results", tmp_path / "results")
    until(lambda: len(workers(process)) == 2)
    time.sleep(0.2)  # amid their imports
    processes = family(process)
    process.kill() if number == signal.SIGKILL else os.killpg(process.pid, number)
    _, err = process.communicate(timeout=LIMIT)
    until(lambda: gone(processes))
    if number == signal.SIGINT:
        assert (process.returncode, err.splitlines()[-1]) == (130, STOPPED)
        assert all(line.startswith(("preparing ", "[")) for line in err.splitlines()[:-1]), err


@pytest.mark.slow
def test_ctrl_c(
    fork: Fork, words: tuple[object, ...], whole: Path, finish: Callable[[Path], None], records: Records,
    tmp_path: Path,
) -> None:  # fmt: skip
    """As a terminal sends it, to the whole group: one line, exit code 130, whole records, no worker left."""
    results = tmp_path / "results"
    process = fork(*words, "--workers", 2, "--results", results)
    until(lambda: stored(results) >= 2 or process.poll() is not None)
    processes = family(process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, out) == (130, ""), err
    assert_stopped(err, results, records, whole)
    until(lambda: gone(processes))
    assert 2 <= stored(results) < RUNS
    finish(results)


def test_ctrl_c_with_one_worker(
    bench: Bench, words: tuple[object, ...], whole: Path, records: Records, tmp_path: Path, monkeypatch: Any
) -> None:
    """The signal comes amid the training of single_task, after two slow runs."""
    monkeypatch.setattr(registry.load_method("single_task"), "on_epoch", lambda *_: signal.raise_signal(signal.SIGINT))
    done = bench(*words, "--workers", 1, "--results", tmp_path / "results", code=130)
    assert done.stdout == ""
    assert_stopped(done.stderr, tmp_path / "results", records, whole)
    assert stored(tmp_path / "results") == RUNS // 3


def assert_stopped(err: str, results: Path, records: Records, whole: Path) -> None:
    *lines, last = err.splitlines()
    assert last == STOPPED
    assert all(line.startswith(("preparing ", "[")) for line in lines), err
    only_whole(results, records, whole)
    assert not list(results.rglob(".tmp-*"))


@pytest.mark.slow
def test_killed_while_data_are_prepared(
    fork: Fork,
    words: tuple[object, ...],
    finish: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cache then has no data set rather than a part of one."""
    folder = tmp_path / "cache" / "data" / "sim-news"
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    process = fork(*words, "--workers", 1, "--results", tmp_path / "results")
    until(lambda: list(folder.glob(".*/arrays/train")) or list(folder.glob("[!.]*")))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert all((p / "meta.json").is_file() for p in folder.glob("[!.]*"))
    finish(tmp_path / "results")


@pytest.mark.slow
def test_two_at_once(fork: Fork, words: tuple[object, ...], whole: Path, records: Records, tmp_path: Path) -> None:
    """Two processes on one results folder do each other no harm."""
    processes = [fork(*words, "--workers", 1, "--results", tmp_path / "results", "--json") for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, err
        assert len(json.loads(out)) == RUNS
    assert records(tmp_path / "results") == records(whole)
    assert predictions(tmp_path / "results") == predictions(whole)
    assert not list((tmp_path / "results").rglob(".tmp-*"))
