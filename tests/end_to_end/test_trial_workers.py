"""Several processes on one study: trials that are shared, taken over from the dead, and never lost or made twice."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState

from bench.data.prepare import prepare
from bench.storage import cache
from bench.suites.specify import specify
from bench.tuning.study import Budget, Search, Study, known_to, training_seed
from bench.tuning.trial import make_trial
from bench.tuning.trial_workers import LIVES, Worker
from tests.support.command import SMALL, Bench, Fork, Plugin, Start, until

KNOBS = {"users": 60, "items": 100, "groups": 200}
WORDS = ("-d", "sim-news", *SMALL, "--epochs", 2)
BUDGET = Budget(trials=3)


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Study]:
    """A study of popularity in a results folder of this test."""

    def make(storage: str | None = None) -> Study:
        seed = training_seed(0)
        spec = specify("sim-news", "popularity", knobs=KNOBS, seed=seed, budget={"epochs": 2})
        return Study(spec, [], Search(), prepare("sim-news", KNOBS), tmp_path / "results", storage)

    return make


def dies(worker: Worker) -> None:
    """The worker's process is gone: the system has let go of its lock, and the file is still there."""
    worker.lock.release(force=True)


def finished(opened: optuna.Study) -> list[int]:
    return [t.number for t in opened.get_trials(deepcopy=False) if t.state.is_finished()]


# In one process


def test_a_dead_worker_s_trial_goes_on_with_the_same_parameters(study: Callable[..., Study]) -> None:
    made = study()
    opened = made.opened()
    alive, first, second = (Worker(made, opened, name) for name in ("a", "b", "c"))
    for worker in (alive, first, second):
        worker.__enter__()
    kept, lost = alive.next(BUDGET), first.next(BUDGET)
    assert kept is not None and lost is not None and (kept.number, lost.number) == (0, 1)
    dies(first)
    found = second.next(BUDGET)
    assert found is not None and found.number == 1 and found.params == lost.params
    assert opened.trials[1].user_attrs == {"worker": "c", "deaths": 1}
    other = first.__class__(made, opened, "d")
    with other:
        new = other.next(BUDGET)
    assert new is not None and new.number == 2  # what living workers have is left to them


def test_a_trial_that_kills_its_process_is_a_failure(study: Callable[..., Study]) -> None:
    made = study()
    opened = made.opened()
    for life in range(LIVES):
        worker = Worker(made, opened, f"worker {life}")
        worker.__enter__()
        trial = worker.next(BUDGET)
        assert trial is not None and trial.number == 0
        dies(worker)
    with Worker(made, opened, "last") as worker:
        trial = worker.next(BUDGET)
        assert trial is not None and trial.number == 1
    first = opened.trials[0]
    assert first.state == TrialState.FAIL and "died 5 times" in first.user_attrs["reason"]


def test_ctrl_c_does_not_count_as_a_death(study: Callable[..., Study]) -> None:
    made = study()
    opened = made.opened()
    for name in "abc":
        with pytest.raises(KeyboardInterrupt), Worker(made, opened, name) as worker:
            trial = worker.next(BUDGET)
            assert trial is not None and trial.number == 0
            raise KeyboardInterrupt
    assert opened.trials[0].user_attrs == {"worker": "", "deaths": 0}


def test_workers_elsewhere_are_heard_through_the_database(
    study: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine has other locks: there a worker is alive as long as it gives signs of life."""
    monkeypatch.setattr("bench.tuning.trial_workers.BEAT_S", 0.1)
    monkeypatch.setattr("bench.tuning.trial_workers.SILENCE_S", 2.0)
    monkeypatch.setattr("bench.tuning.trial_workers.POLL_S", 0.05)
    made = study(f"sqlite:///{tmp_path / 'study.db'}")
    here, there = made.opened(), made.opened()
    budget = Budget(trials=1)
    with Worker(made, here, "here") as worker:
        trial = worker.next(budget)
        assert trial is not None
        monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "other"))
        other = Worker(made, there, "there")
        with worker.alive(trial):
            end = time.monotonic() + 3
            while time.monotonic() < end:
                assert not other._dead(there.trials[0])
                time.sleep(0.2)
        begin = time.monotonic()
        with other:
            taken = other.next(budget)
        assert taken is not None and taken.number == 0 and taken.params == trial.params
        assert 0.5 < time.monotonic() - begin < 60


def test_a_trial_that_two_have_finished_counts_once(study: Callable[..., Study]) -> None:
    made = study()
    opened = made.opened()
    with Worker(made, opened, "a") as worker:
        trial = worker.next(BUDGET)
        assert trial is not None
        device = torch.device("cpu")
        assert make_trial(made, opened, trial, device, print).startswith("skill ")
        told = opened.trials[0]
        assert make_trial(made, opened, trial, device, print) == "was finished by another worker"
        assert opened.trials[0] == told


def test_what_was_begun_too_much_waits_until_it_is_wanted(study: Callable[..., Study]) -> None:
    made = study()
    opened = made.opened()
    for _ in range(3):
        opened.ask()  # as if workers on several machines had begun at once
    one = Budget(trials=1)
    with Worker(made, opened, "a") as worker:
        trial = worker.next(one)
        assert trial is not None and trial.number == 0
        trial.set_user_attr("seconds", 0.1)
        opened.tell(trial, 0.5)
        assert [t.number for t in one.counted(known_to(opened))] == [0] and one.met(known_to(opened))
        assert worker.next(one) is None
        later = worker.next(replace(one, trials=3))
        assert later is not None and later.number == 1 and set(later.params) == set(made.space.ranges)


# In several


def test_two_workers_share_a_study(bench: Bench, plugin: Plugin, tmp_path: Path) -> None:
    """One of them dies amid a trial: another takes its place, and the trial goes on."""
    died = tmp_path / "died"
    body = f"""
        def on_start(self, train):
            import os, signal
            if not os.path.exists({str(died)!r}):
                open({str(died)!r}, "x").close()
                os.kill(os.getpid(), signal.SIGKILL)
            super().on_start(train)
    """
    words = ("-m", "mortal", "--plugin", plugin("mortal", body), "--trials", 6, "--workers", 2)
    shown = bench("tune", *WORDS, *words, "--results", tmp_path / "results", "--json")
    found = json.loads(shown.stdout)
    assert died.exists()
    assert [t["number"] for t in found["trials"]] == [*range(6)]
    assert {t["state"] for t in found["trials"]} == {"complete"} and found["trials"][0]["settings"] == {}
    assert len({json.dumps(t["settings"]) for t in found["trials"]}) == 6
    assert shown.stderr.count("trial ") == 6 and "[6/6]" in shown.stderr
    left = [*(cache.root() / "locks").glob("tuning-*")]
    assert not left


# Killed


def without_seconds(outcome: dict[str, Any]) -> list[dict[str, Any]]:
    return [{k: v for k, v in t.items() if k != "seconds"} for t in outcome["trials"]]


def test_a_killed_study_continues_to_the_same_trials(fork: Fork, bench: Bench, tmp_path: Path) -> None:
    """Killed within a trial, after some of its epochs, with a line half-written."""
    plugin = tmp_path / "slow.py"
    plugin.write_text(
        "import time\nfrom baselines.shared_bottom import SharedBottom\n\nclass Slow(SharedBottom):\n"
        "    def on_epoch(self, epoch, valid):\n        time.sleep(0.05)\n"
    )
    words = ("tune", "-d", "sim-news", *SMALL, "-m", "slow", "--plugin", plugin, "--trials", 8, "--epochs", 4)
    words = (*words, "--pruner", "median", "--results")

    def log() -> bytes:
        found = list((tmp_path / "killed").rglob("*.log"))
        return found[0].read_bytes() if found else b""

    def reports() -> int:
        return log().count(b'"op_code":7')

    process = fork(*words, tmp_path / "killed")
    until(lambda: reports() >= 9 or process.poll() is not None, limit=300)
    process.kill()
    process.wait()
    assert not list((tmp_path / "killed").rglob("*.json"))
    (path,) = (tmp_path / "killed").rglob("*.log")
    with path.open("ab") as file:
        file.write(b'{"op_code":7,"wor')
    resumed = json.loads(bench(*words, tmp_path / "killed", "--json").stdout)
    whole = json.loads(bench(*words, tmp_path / "whole", "--json").stdout)
    assert without_seconds(resumed) == without_seconds(whole) and len(whole["trials"]) == 8
    assert {t["state"] for t in whole["trials"]} == {"complete", "pruned"}


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server that lives as long as this module: Debian's package, in a folder of its own."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    if not programs:
        pytest.fail("this test starts a PostgreSQL server: install Debian's package postgresql")
    folder = Path(tempfile.mkdtemp(prefix="bench-postgres-"))
    own: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, "cwd": "/tmp"}
    if os.geteuid() == 0:  # the server refuses to be run by root
        shutil.chown(folder, "postgres")
        own |= {"user": "postgres", "group": "postgres"}
    data = folder / "data"
    subprocess.run([programs[-1] / "initdb", "-D", data, "-A", "trust", "-U", "bench", "--no-sync"], **own)
    options = f"-c listen_addresses='' -k {folder}"
    server = [programs[-1] / "pg_ctl", "-D", data, "-w", "-l", folder / "log"]
    subprocess.run([*server, "-o", options, "start"], **own)
    try:
        yield f"postgresql+psycopg://bench@/postgres?host={folder}"
    finally:
        subprocess.run([*server, "-m", "immediate", "stop"], **own)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_six_workers_killed_and_restarted_at_random(
    database: str, request: pytest.FixtureRequest, start: Start, plugin: Plugin, tmp_path: Path
) -> None:
    """60 trials in the end, each finished once; the dead ones' trials go on with the parameters that they had."""
    sqlite = f"sqlite:///{tmp_path / 'study.db'}"
    url = request.getfixturevalue("postgres") if database == "postgres" else sqlite
    slow = plugin("slow", "def on_epoch(self, epoch, valid):\n    time.sleep(0.5)\n")
    words = ("tune", *WORDS, "-m", "slow", "--plugin", slow, "--trials", 60, "--storage", url, "--results", tmp_path)

    def worker() -> subprocess.Popen[str]:
        with (tmp_path / "errors").open("a") as errors:
            return start(*words, stdout=subprocess.DEVNULL, stderr=errors)

    generator, processes, kills = random.Random(0), [worker() for _ in range(6)], 0
    end = time.monotonic() + 900
    while any(process.poll() is None for process in processes):
        assert time.monotonic() < end, (tmp_path / "errors").read_text()
        time.sleep(generator.uniform(0.5, 4))
        chosen = generator.randrange(6)
        if kills < 24 and processes[chosen].poll() is None:
            processes[chosen].send_signal(signal.SIGKILL)
            processes[chosen].wait()
            kills += 1
            processes[chosen] = worker()
    assert kills >= 12 and all(process.returncode == 0 for process in processes), (tmp_path / "errors").read_text()

    (path,) = (tmp_path / "studies").rglob("*.json")
    found = json.loads(path.read_text())
    assert [t["number"] for t in found["trials"]] == [*range(60)]
    assert {t["state"] for t in found["trials"]} == {"complete"}
    storage = optuna.storages.RDBStorage(url)
    stored = optuna.load_study(study_name=found["key"], storage=storage).trials
    storage.engine.dispose()
    assert [t.number for t in stored if t.state == TrialState.COMPLETE] == [*range(60)]
    assert len(stored) == 60 and all(len(t.intermediate_values) == 2 for t in stored)
    assert len({json.dumps(t["params"]) for t in found["trials"]}) == 60
    deaths = sum(t.user_attrs.get("deaths", 0) for t in stored)
    assert deaths >= 5, deaths  # kills that met a trial under way, not a process that was still starting
