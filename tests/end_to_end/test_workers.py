"""Local workers: one that dies, hangs or takes all memory stops no other run; status shows what is running."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.execution.in_progress import is_running, mark
from tests.support import command
from tests.support.command import SMALL, Bench, Plugin, Start

LIMIT = 300  # seconds: a machine may be busy with other things
PLAN = ("run", "-d", "sim-news", *SMALL, "--epochs", 1)
NOTE = "def on_start(self, train):\n    with open({path!r}, 'a') as file:\n        print(os.getpid(), file=file)\n"
Records = Callable[[Path], dict[str, Any]]


until = partial(command.until, limit=LIMIT)


@pytest.fixture
def noting(plugin: Plugin, tmp_path: Path) -> Callable[[str, str], tuple[Path, Callable[[], list[int]]]]:
    """A method that does something as it starts, and the processes in which its runs have begun."""

    def make(name: str, then: str) -> tuple[Path, Callable[[], list[int]]]:
        path = tmp_path / f"{name}-begun"
        path.touch()
        body = NOTE.format(path=str(path)) + f"    {then}\n    super().on_start(train)\n"
        return plugin(name, body, "import os"), lambda: [int(line) for line in path.read_text().split()]

    return make


def of_method(done: Any) -> dict[str, dict[str, Any]]:
    return {record["spec"]["method"]: record for record in json.loads(done.stdout)}


DEEDS = {
    "killed": ("os.kill(os.getpid(), 9)", "oom", "was killed by SIGKILL twice, as happens where memory runs out"),
    "crashing": ("os.kill(os.getpid(), 11)", "failed", "was killed by SIGSEGV twice"),
    "leaving": ("os._exit(3)", "failed", "ended with exit code 3 twice"),
}


def test_runs_that_kill_their_workers(bench: Bench, noting: Any, tmp_path: Path) -> None:
    """Each is tried twice, then recorded; the others have their results; only --retry tries it again."""
    made = {name: noting(name, deed) for name, (deed, _, _) in DEEDS.items()}
    deadly = [word for name, (path, _) in made.items() for word in ("-m", name, "--plugin", path)]
    options = ("--workers", 2, "--results", tmp_path / "results")
    words = (*PLAN, "-m", "popularity", *deadly, "-m", "shared_bottom", *options)
    found = of_method(bench(*words, "--json", code=1))
    good = found["shared_bottom"]
    assert good["status"] == found["popularity"]["status"] == "ok" and multiprocessing.active_children() == []
    same = ("schema", "role", "tasks", "references", "data", "env")
    for name, (_, status, reason) in DEEDS.items():
        record = found[name]
        assert (record["status"], record["error"]) == (status, f"its process {reason}")
        assert list(record) == list(good) and record["time"]["start"] <= record["time"]["stop"]
        assert (record["metrics"], record["curve"], record["cost"]) == (None, [], {})
        assert {k: record[k] for k in same} == {k: good[k] for k in same}
    bench("board", "--results", tmp_path / "results")

    begun = {name: read for name, (_, read) in made.items()}
    assert "5 stored" in bench(*words, code=1).stderr
    assert all(len(set(read())) == 2 for read in begun.values())
    only = (*PLAN, *deadly[:4], *options, "--retry")
    assert "1 oom" in bench(*only, code=1).stderr  # one run, and yet not in this process
    assert len(begun["killed"]()) == 4


def test_a_worker_that_a_user_kills(start: Start, bench: Bench, noting: Any, records: Records, tmp_path: Path) -> None:
    """The run begins again in another, and all is as if nothing had happened."""
    slow, begun = noting("slow", "time.sleep(0.2)")
    words = (*PLAN, "-m", "slow", "--seeds", 4, "--plugin", slow)
    process = start(*words, "--workers", 2, "--results", tmp_path / "results")
    until(lambda: begun() or process.poll() is not None)
    os.kill(begun()[0], signal.SIGKILL)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0 and "4 ok" in err.splitlines(), err
    assert len(begun()) == 5 and len(set(begun())) == 3
    bench(*words, "--workers", 1, "--results", tmp_path / "here")
    assert records(tmp_path / "results") == records(tmp_path / "here")


def test_limits(bench: Bench, noting: Any, tmp_path: Path) -> None:
    """One run sleeps for ever, one allocates without end, the others are as they would be without limits."""
    sleepy, slept = noting("sleepy", "time.sleep(1000)")
    hungry, ate = noting("hungry", "held = [torch.ones(2**24) for _ in iter(lambda: time.sleep(0.002), 0)]")
    words = ("--workers", 1, "--results", tmp_path / "results", "--json")
    timed = (*PLAN, "-m", "popularity", "-m", "sleepy", "--plugin", sleepy, "-m", "shared_bottom", "--time-limit", 20)
    found = of_method(bench(*timed, *words, code=1))
    weighed = (*PLAN, "-m", "hungry", "--plugin", hungry, "-m", "popularity", "--memory-limit", 1.5)
    found |= of_method(bench(*weighed, *words, code=1))
    assert {name: (r["status"], r["error"]) for name, r in found.items()} == {
        "popularity": ("ok", None),
        "sleepy": ("timeout", "it took longer than the time limit of 20 s"),
        "hungry": ("oom", "its process took more resident memory than the limit of 1.5 GB"),
        "shared_bottom": ("ok", None),
    }
    assert len(slept()) == 1 and len(ate()) == 2  # memory may be short because of earlier runs: once more, alone
    assert not any(psutil.pid_exists(process) for process in (*slept(), *ate()))
    assert len(set(slept() + ate()) | {os.getpid()}) == 4  # never in this process


def test_a_worker_lives_on(bench: Bench, noting: Any, tmp_path: Path) -> None:
    """One start for many runs."""
    plain, begun = noting("plain", "pass")
    words = (*PLAN, "-m", "plain", "--plugin", plain, "--seeds", 5, "--results", tmp_path)
    bench(*words, "--workers", 1, "--time-limit", 60)
    assert len(begun()) == 5 and len(set(begun())) == 1


def test_an_idle_worker_may_die(start: Start, noting: Any, tmp_path: Path) -> None:
    slow, begun = noting("slow", "time.sleep(2)")
    words = (*PLAN, "-m", "popularity", "-m", "slow", "--plugin", slow, "--workers", 2, "--results", tmp_path)
    process = start(*words)
    until(lambda: (begun() and list(tmp_path.glob("runs/*/*/*.json"))) or process.poll() is not None)
    idle = [
        child
        for child in psutil.Process(process.pid).children()
        if child.pid not in begun() and "resource_tracker" not in " ".join(child.cmdline())
    ]
    assert len(idle) == 1
    idle[0].kill()
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0 and "2 ok" in err.splitlines(), err


def state(bench: Bench, *words: object) -> list[str]:
    return [run["state"] for run in json.loads(bench("status", *words, "--json", code=1).stdout)]


@pytest.mark.parametrize("workers", [1, 2])
def test_status_shows_what_is_running(start: Start, bench: Bench, noting: Any, tmp_path: Path, workers: int) -> None:
    slow, begun = noting("slow", "time.sleep(1000)")
    words = (*PLAN[1:], "-m", "slow", "-m", "popularity", "--plugin", slow, "--results", tmp_path / "results")
    assert state(bench, *words) == ["missing", "missing"]
    process = start("run", *words, "--workers", workers)
    until(lambda: begun() or process.poll() is not None)
    if workers == 2:
        until(lambda: list(tmp_path.glob("results/runs/*/*/*.json")))
    assert state(bench, *words) == ["running", "missing" if workers == 1 else "done"]
    assert table(bench("status", *words, code=1).stdout)[-1][-2:] == ["1", str(2 - workers)]
    process.kill()
    until(lambda: state(bench, *words)[0] == "missing")  # its lock's file is left, and means nothing


def table(shown: str) -> list[list[str]]:
    return [line.split() for line in shown.splitlines()[2:]]


def test_a_mark_never_waits_or_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    assert not is_running("a") and not (tmp_path / "cache").exists()
    with mark("a"):
        assert is_running("a") and not is_running("b")
        with mark("a"):  # as another process may
            assert is_running("a")
        assert is_running("a")
    assert not is_running("a") and list((tmp_path / "cache" / "locks").iterdir()) == []
    (tmp_path / "file").touch()
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "file" / "cache"))
    with mark("a"):
        assert not is_running("a")


def test_marks_are_seen_by_other_processes_and_end_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    block = "    print('marked', flush=True)\n    time.sleep(60)"
    code = f"import time\nfrom bench.execution.in_progress import mark\nwith mark('a'):\n{block}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "marked\n"
        assert is_running("a")
        process.kill()
    assert not is_running("a") and (tmp_path / "locks" / "run-a.lock").exists()
