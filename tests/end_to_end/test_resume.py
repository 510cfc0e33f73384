"""Interrupted runs, in real processes: what is stored is whole, and the same command continues to the same numbers."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import command
from tests.support.command import SMALL, Bench, Start

LIMIT = 60  # seconds; no test gets near
RUNS = 12
STOPPED = "bench: stopped; stored records are whole, and the same command continues"

Records = Callable[[Path], dict[str, Any]]


until = partial(command.until, limit=LIMIT)


def stored(results: Path) -> int:
    return len(list(results.glob("runs/*/*/*.json")))


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The process and all that it has started."""
    top = psutil.Process(process.pid)
    return [top, *top.children(recursive=True)]


def gone(processes: Iterable[psutil.Process]) -> bool:
    def ended(process: psutil.Process) -> bool:
        try:
            return process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return all(ended(p) for p in processes)


def predictions(results: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (results / "predictions").glob("*.npz")}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """The command that is interrupted: three methods, four seeds; one method takes its time, most of a run asleep."""
    path = tmp_path_factory.mktemp("plugins") / "slow.py"
    path.write_text(
        "import time\nfrom baselines.shared_bottom import SharedBottom\n\nclass Slow(SharedBottom):\n"
        "    def on_epoch(self, epoch, valid):\n        time.sleep(0.05)\n"
    )
    methods = ("-m", "slow", "-m", "single_task", "-m", "popularity", "--plugin", path)
    return ("run", "-d", "sim-news", *SMALL, "--epochs", 3, *methods, "--seeds", RUNS // 3)


@pytest.fixture(scope="module")
def whole(bench: Bench, words: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the same command without an interruption."""
    results = tmp_path_factory.mktemp("whole") / "results"
    bench(*words, "--workers", 1, "--results", results)
    assert stored(results) == RUNS
    return results


@pytest.fixture
def finish(bench: Bench, words: tuple[object, ...], whole: Path, records: Records) -> Callable[[Path, int], None]:
    """Runs the command to its end: the same records as without an interruption. Then again: nothing is computed."""

    def call(results: Path, workers: int) -> None:
        had = {p: p.read_bytes() for p in results.glob("runs/*/*/*.json")}
        last = (*words, "--workers", workers, "--results", results)
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


def test_killed_with_one_worker(
    start: Start,
    words: tuple[object, ...],
    whole: Path,
    finish: Callable[[Path, int], None],
    records: Records,
    tmp_path: Path,
) -> None:
    """kill -9 at three random moments: somewhere in the start, and after some records each."""
    rng, results = random.Random(1), tmp_path / "results"
    for records_more in (0, rng.randint(1, 3), rng.randint(1, 3)):
        target = stored(results) + records_more
        process = start(*words, "--workers", 1, "--results", results)
        if records_more:
            until(lambda: stored(results) >= target or process.poll() is not None)  # noqa: B023
        time.sleep(rng.uniform(0, 0.2 if records_more else 1.5))
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        only_whole(results, records, whole)
    assert 0 < stored(results) < RUNS
    finish(results, 1)


def test_killed_with_two_workers(
    start: Start,
    words: tuple[object, ...],
    whole: Path,
    finish: Callable[[Path, int], None],
    records: Records,
    tmp_path: Path,
) -> None:
    """The whole process group, then the parent alone, killed or asked to end: no worker survives it."""
    rng, results = random.Random(2), tmp_path / "results"
    for number, group in ((signal.SIGKILL, True), (signal.SIGKILL, False), (signal.SIGTERM, False)):
        target = stored(results) + 1
        process = start(*words, "--workers", 2, "--results", results)
        until(lambda: stored(results) >= target or process.poll() is not None)  # noqa: B023
        time.sleep(rng.uniform(0, 0.1))
        processes = family(process)
        assert len(processes) >= 3  # two workers at least
        os.killpg(process.pid, number) if group else os.kill(process.pid, number)
        assert process.wait() == (143 if number == signal.SIGTERM else -number)
        until(lambda: gone(processes))  # noqa: B023
        now = stored(results)
        only_whole(results, records, whole)
        assert now == stored(results)
    assert 0 < stored(results) < RUNS
    finish(results, 2)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_that_are_still_starting_end_with_their_parent(
    start: Start, words: tuple[object, ...], tmp_path: Path, number: signal.Signals
) -> None:
    """The parent alone is killed; Ctrl-C reaches them too, and they say nothing."""
    process = start(*words, "--workers", 2, "--results", tmp_path / "results")
    until(lambda: len(family(process)) >= 4)  # two workers, and the one that keeps account of shared things
    time.sleep(0.8)  # amid their imports
    processes = family(process)
    process.kill() if number == signal.SIGKILL else os.killpg(process.pid, number)
    _, err = process.communicate(timeout=LIMIT)
    until(lambda: gone(processes))
    if number == signal.SIGINT:
        assert (process.returncode, err.splitlines()[-1]) == (130, STOPPED)
        assert all(line.startswith(("preparing ", "[")) for line in err.splitlines()[:-1]), err


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c(
    start: Start, words: tuple[object, ...], whole: Path, finish: Callable[[Path, int], None], records: Records,
    tmp_path: Path, workers: int,
) -> None:  # fmt: skip
    """As a terminal sends it, to the whole group: one line, exit code 130, whole records, no worker left."""
    results = tmp_path / "results"
    process = start(*words, "--workers", workers, "--results", results)
    until(lambda: stored(results) >= 2 or process.poll() is not None)
    processes = family(process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, err
    *lines, last = err.splitlines()
    assert last == STOPPED and out == ""
    assert all(line.startswith(("preparing ", "[")) for line in lines), err
    until(lambda: gone(processes))
    only_whole(results, records, whole)
    assert not list(results.rglob(".tmp-*"))
    assert 2 <= stored(results) < RUNS
    finish(results, 1)


def test_killed_while_data_are_prepared(
    start: Start,
    words: tuple[object, ...],
    finish: Callable[[Path, int], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cache then has no data set rather than a part of one."""
    folder = tmp_path / "cache" / "data" / "sim-news"
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    process = start(*words, "--workers", 1, "--results", tmp_path / "results")
    until(lambda: list(folder.glob(".*/arrays/train")) or list(folder.glob("[!.]*")))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert all((p / "meta.json").is_file() for p in folder.glob("[!.]*"))
    finish(tmp_path / "results", 1)


def test_two_at_once(start: Start, words: tuple[object, ...], whole: Path, records: Records, tmp_path: Path) -> None:
    """Two processes on one results folder do each other no harm."""
    processes = [start(*words, "--workers", 1, "--results", tmp_path / "results", "--json") for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, err
        assert len(json.loads(out)) == RUNS
    assert records(tmp_path / "results") == records(whole)
    assert predictions(tmp_path / "results") == predictions(whole)
    assert not list((tmp_path / "results").rglob(".tmp-*"))
