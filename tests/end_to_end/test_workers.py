"""Local workers: one that dies, hangs or takes all memory stops no other run; status shows what is running."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.execution.in_progress import is_running, mark
from bench.execution.job import Limits
from bench.execution.workers import Worker
from tests.support import command
from tests.support.command import SMALL, Bench, Fork, Plugin, Start

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
    "sleepy": "time.sleep(1000)",
    "killed": "os.kill(os.getpid(), 9)",
    "leaving": "len(open(file.name).readlines()) > 2 or os._exit(3)",  # twice
    "hungry": "held = [torch.ones(2**24) for _ in iter(lambda: time.sleep(0.002), 0)]",
}
ENDS = {
    "popularity": ("ok", None),
    "killed": ("oom", "its process was killed by SIGKILL twice, as happens where memory runs out"),
    "leaving": ("failed", "its process ended with exit code 3 twice"),
    "sleepy": ("timeout", "it took longer than the time limit of 2 s"),
    "hungry": ("oom", "its process took more resident memory than the limit of 1.5 GB"),
    "shared_bottom": ("ok", None),
}


def test_runs_that_end_their_workers(
    bench: Bench, noting: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those that die, sleep for ever or allocate without end: what may be bad luck is tried twice, then recorded;
    the others have their results; only --retry tries one again, and never in this process."""
    excess = Worker.excess

    def of_the_sleepy(worker: Worker, limits: Limits) -> Any:  # on a busy machine the others may take as long
        sleeps = worker.job is not None and worker.job.spec.method == "sleepy" and made["sleepy"][1]()
        return excess(worker, limits if sleeps else replace(limits, seconds=None))

    monkeypatch.setattr(Worker, "excess", of_the_sleepy)
    made = {name: noting(name, deed) for name, deed in DEEDS.items()}
    unruly = [word for name, (path, _) in made.items() for word in ("-m", name, "--plugin", path)]
    options = ("--workers", 2, "--time-limit", 2, "--memory-limit", 1.5, "--results", tmp_path / "results")
    words = (*PLAN, "-m", "popularity", *unruly, "-m", "shared_bottom", *options)
    found = of_method(bench(*words, "--json", code=1))
    assert {name: (r["status"], r["error"]) for name, r in found.items()} == ENDS
    good = found["shared_bottom"]
    same = ("schema", "role", "tasks", "references", "data", "env")
    for record in (found[name] for name in DEEDS):
        assert list(record) == list(good) and record["time"]["start"] <= record["time"]["stop"]
        assert (record["metrics"], record["curve"], record["cost"]) == (None, [], {})
        assert {k: record[k] for k in same} == {k: good[k] for k in same}
    bench("board", "--results", tmp_path / "results")

    begun = {name: read for name, (_, read) in made.items()}
    assert "6 stored" in bench(*words, code=1).stderr
    processes = {name: read() for name, read in begun.items()}
    assert {name: len(of) for name, of in processes.items()} == {"killed": 2, "leaving": 2, "sleepy": 1, "hungry": 2}
    every = [process for of in processes.values() for process in of]
    assert len({*every, os.getpid()}) == 8 and not any(psutil.pid_exists(process) for process in every)
    assert multiprocessing.active_children() == []
    only = (*PLAN, *unruly[8:12], *options[:2], *options[-2:], "--retry")
    assert "1 ok" in bench(*only).stderr
    assert begun["leaving"]()[2] != os.getpid()  # one run, and yet not in this process


@pytest.mark.slow
def test_workers_that_a_user_kills(start: Start, bench: Bench, noting: Any, records: Records, tmp_path: Path) -> None:
    """One at a run: it begins again in another. An idle one: nothing. All is as if nothing had happened; a worker makes
    one run after another, and status shows what is running."""
    gates = {name: tmp_path / name for name in ("all", "last")}
    last = f"os.path.exists({str(gates['last'])!r}) or open(file.name).read().split()[4:] != [str(os.getpid())]"
    wait = f"while not (os.path.exists({str(gates['all'])!r}) and ({last})):\n        time.sleep(0.01)"
    slow, begun = noting("slow", wait)
    words = (*PLAN[1:], "-m", "slow", "--seeds", 4, "--plugin", slow, "--results", tmp_path / "results")
    assert state(bench, *words) == ["missing"] * 4
    process = start("run", *words, "--workers", 2)

    def waiting(reached: Callable[[], object]) -> None:
        until(lambda: reached() or process.poll() is not None)

    waiting(lambda: len(begun()) == 2)
    assert state(bench, *words) == ["running", "running", "missing", "missing"]
    assert table(bench("status", *words, code=1).stdout)[-1][-2:] == ["2", "2"]
    os.kill(begun()[0], signal.SIGKILL)
    waiting(lambda: len(begun()) == 3)
    gates["all"].touch()
    waiting(lambda: len(list(tmp_path.glob("results/runs/*/*/*.json"))) == 3)
    assert sorted(state(bench, *words)) == ["done", "done", "done", "running"]
    (idle,) = [
        child
        for starter in psutil.Process(process.pid).children()
        for child in starter.children()
        if child.pid != begun()[-1]
    ]
    idle.kill()
    gates["last"].touch()
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0 and "4 ok" in err.splitlines(), err
    assert len(begun()) == 5 and len(set(begun())) == 3
    bench("run", *words[:-1], tmp_path / "here", "--workers", 1)
    assert records(tmp_path / "results") == records(tmp_path / "here")


def state(bench: Bench, *words: object) -> list[str]:
    return [run["state"] for run in json.loads(bench("status", *words, "--json", code=1).stdout)]


def test_status_shows_a_run_in_the_parent_too(fork: Fork, bench: Bench, noting: Any, tmp_path: Path) -> None:
    slow, begun = noting("slow", "time.sleep(1000)")
    words = (*PLAN[1:], "-m", "slow", "-m", "popularity", "--plugin", slow, "--results", tmp_path / "results")
    process = fork("run", *words, "--workers", 1)
    until(lambda: begun() or process.poll() is not None)
    assert state(bench, *words) == ["running", "missing"]
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
