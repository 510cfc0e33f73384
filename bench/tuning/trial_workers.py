"""Who makes the trials of a study: workers, here and elsewhere, that share them and take over those of the dead."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import torch
from filelock import FileLock, Timeout
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from bench.errors import BenchError
from bench.execution.children import start_child
from bench.execution.progress import Progress, Silent
from bench.storage import cache
from bench.tuning.propose import propose
from bench.tuning.study import FINISHED, Budget, Study, known_to
from bench.tuning.trial import ending_of, job_name, make_trial

POLL_S = 0.5

BEAT_S, SILENCE_S = 10.0, 60.0  # a worker's sign of life; after how long without one its trial goes to another

LIVES = 5  # a trial whose process dies that often is a failure


def work(
    study: Study, opened: optuna.Study, budget: Budget, device: torch.device, progress: Progress, name: str = ""
) -> None:
    """One worker: takes trials until the budget is met. ``progress`` hears of what it does itself."""
    with Worker(study, opened, name or uuid.uuid4().hex) as worker:
        while (trial := worker.next(budget)) is not None:
            progress.begin(job := job_name(study, trial.number))
            with worker.alive(trial):
                ending = make_trial(study, opened, trial, device, progress.note)
            progress.end(job, ending)


class Worker:
    """Who works on a trial. It is alive while it holds its lock, if that is on this machine, or while it gives signs of
    life in the database; else its trial goes to another worker, with the same number and parameters."""

    def __init__(self, study: Study, opened: optuna.Study, name: str) -> None:
        self.study, self.opened, self.name = study, opened, name
        self.lock = self._lock(self.name)
        self.heard: dict[int, tuple[Any, float]] = {}  # trial -> its last sign of life, and when it was new to us

    def __enter__(self) -> Worker:
        self.lock.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # Ctrl-C
            _let_go(self.opened, [self.name])
        Path(self.lock.lock_file).unlink(missing_ok=True)
        self.lock.release()

    def next(self, budget: Budget) -> optuna.Trial | None:
        """A trial whose worker is dead, else a new one; None if the budget is met. Waits for those of others."""
        while True:
            with cache.only_one(f"study-{self.study.key}"):
                known = known_to(self.opened)
                running = [t for t in budget.counted(known) if t.state == TrialState.RUNNING]
                for left in running:
                    if self._dead(left) and self._claimed(left):
                        return propose(self.opened, self.study.space, self.study.search, left)
                if not budget.spent(known):
                    trial = self.opened.ask()
                    if budget.trials is None or trial.number < budget.trials:
                        trial.set_user_attr("worker", self.name)
                        return propose(self.opened, self.study.space, self.study.search, trial)
                elif not running:
                    return None
            time.sleep(POLL_S)

    @contextmanager
    def alive(self, trial: optuna.Trial) -> Iterator[None]:
        """Gives signs of life to workers on other machines."""
        ended = threading.Event()

        def beat() -> None:
            count = 0
            while not ended.wait(BEAT_S):
                count += 1
                with suppress(UpdateFinishedTrialError):
                    trial.set_user_attr("beat", [self.name, count])

        if self.study.storage is None:
            yield
            return
        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _dead(self, trial: FrozenTrial) -> bool:
        noted = trial.user_attrs
        if self.study.storage is None and not noted.get("worker"):  # all that work on a journal are here
            return True
        path = Path((lock := self._lock(str(noted.get("worker")))).lock_file)
        if path.exists() or self.study.storage is None:
            try:
                lock.acquire(blocking=False)
            except Timeout:
                return False
            lock.release()
            path.unlink(missing_ok=True)
            return True
        sign, now = (noted.get("worker"), noted.get("beat"), len(trial.intermediate_values)), time.monotonic()
        if self.heard.get(trial.number, (None, 0.0))[0] != sign:
            self.heard[trial.number] = sign, now
        return now - self.heard[trial.number][1] > SILENCE_S

    def _claimed(self, trial: FrozenTrial) -> bool:
        """Takes the trial over, unless it has cost too many processes their lives: then it fails."""
        noted = trial.user_attrs
        deaths = noted.get("deaths", 0) + bool(noted.get("worker"))
        note = partial(self.opened._storage.set_trial_user_attr, trial._trial_id)
        with suppress(UpdateFinishedTrialError):
            note("worker", self.name)
            note("deaths", deaths)
            if deaths < LIVES:
                return True
            note("reason", f"failed: the process that ran it died {LIVES} times, perhaps for want of memory")
            note("seconds", 0.0)
            self.opened._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        return False

    def _lock(self, name: str) -> FileLock:
        return FileLock(cache.root() / "locks" / f"tuning-{name}.lock")


def work_in_processes(
    make: Callable[[], Study],
    study: Study,
    opened: optuna.Study,
    budget: Budget,
    workers: int,
    device: torch.device,
    progress: Progress,
) -> None:
    """Keeps ``workers`` processes at it until the budget is met, and tells what they have done. A process that dies is
    replaced; trials know how often that happened to them. Raises BenchError if processes die without trying one."""
    shown = {t.number for t in known_to(opened) if t.state in FINISHED}
    begun: set[int] = set()

    def show() -> None:
        for trial in budget.counted(known_to(opened)):
            if trial.number not in begun | shown and "worker" in trial.user_attrs:
                begun.add(trial.number)
                progress.begin(job_name(study, trial.number))
            if trial.number not in shown and trial.state in FINISHED:
                shown.add(trial.number)
                progress.end(job_name(study, trial.number), ending_of(trial))

    names = [uuid.uuid4().hex for _ in range(workers)]
    processes = [start_child(_worker_process, make, budget, device, name) for name in names]
    try:
        deaths = 0
        while any(process.is_alive() for process in processes) or not budget.met(known_to(opened)):
            time.sleep(POLL_S)
            before = len(shown)
            show()
            deaths = 0 if len(shown) > before else deaths
            for i, process in enumerate(processes):
                if process.exitcode:
                    deaths += 1
                    if deaths > workers * LIVES:
                        raise BenchError(
                            f"processes of this study die one after the other (exit code {process.exitcode}); finished "
                            "trials are stored: run the same command again with fewer --workers"
                        )
                    names[i] = uuid.uuid4().hex
                    processes[i] = start_child(_worker_process, make, budget, device, names[i])
        show()
    finally:
        for process in processes:
            process.terminate()
            process.join()
        _let_go(opened, names)


def _let_go(opened: optuna.Study, names: Sequence[str]) -> None:
    """The trials of workers that were stopped are free, and that does not count against them."""
    for trial in known_to(opened):
        if trial.state == TrialState.RUNNING and trial.user_attrs.get("worker") in names:
            opened._storage.set_trial_user_attr(trial._trial_id, "worker", "")


def _worker_process(make: Callable[[], Study], budget: Budget, device: torch.device, name: str) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = make()
    work(study, study.opened(), budget, device, Silent(None), name)
