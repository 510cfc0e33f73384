"""Who makes the trials of a study: workers, here and elsewhere, that share them and take over those of the dead."""

from __future__ import annotations

import multiprocessing
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from filelock import FileLock, Timeout
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from bench import registry
from bench.data import cache
from bench.errors import BenchError
from bench.progress import Progress, Silent
from bench.run import Report, fault, trained
from bench.score import score
from bench.study import FINISHED, Budget, Study, known_to, propose, with_settings
from bench.train import Diverged, predict, skills
from bench.workers import begin, start

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
                ending = tried(study, opened, trial, device, progress.note)
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
    context = multiprocessing.get_context("spawn")
    shown = {t.number for t in known_to(opened) if t.state in FINISHED}
    begun: set[int] = set()

    def show() -> None:
        for trial in budget.counted(known_to(opened)):
            if trial.number not in begun | shown and "worker" in trial.user_attrs:
                begun.add(trial.number)
                progress.begin(job_name(study, trial.number))
            if trial.number not in shown and trial.state in FINISHED:
                shown.add(trial.number)
                progress.end(job_name(study, trial.number), _ending(trial))

    def started(name: str) -> Any:
        process = context.Process(target=_worker_process, args=(make, registry.plugins(), budget, device, name))
        start(process)
        return process

    names = [uuid.uuid4().hex for _ in range(workers)]
    processes = [started(name) for name in names]
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
                    processes[i] = started(names[i])
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


def _worker_process(
    make: Callable[[], Study], plugins: Sequence[Path], budget: Budget, device: torch.device, name: str
) -> None:
    begin(plugins)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = make()
    work(study, study.opened(), budget, device, Silent(None), name)


def tried(study: Study, opened: optuna.Study, trial: optuna.Trial, device: torch.device, report: Report) -> str:
    """Trains and judges a trial and ends it in the study; returns how it ended, in words."""
    try:
        _try(study, opened, trial, device, report)
    except UpdateFinishedTrialError:
        return "was finished by another worker"
    return _ending(known_to(opened)[trial.number])


def _try(study: Study, opened: optuna.Study, trial: optuna.Trial, device: torch.device, report: Report) -> None:
    seen, tasks = study.seen, study.seen.schema.tasks
    spec = with_settings(study.spec, study.settings(trial.number, trial.params))
    before = max(known_to(opened)[trial.number].intermediate_values, default=0)

    def each_epoch(entry: dict[str, Any], skill: float) -> None:
        epoch = entry["epoch"]
        if epoch < before or study.search.pareto:  # known from before an interruption, and it went on from there
            return
        if epoch > before:
            trial.report(skill, epoch)
        if epoch < spec.budget["epochs"] and trial.should_prune():
            trial.set_user_attr("valid", entry["valid"])
            raise optuna.TrialPruned(f"after epoch {epoch}")

    values, reason, begin = None, None, time.perf_counter()
    try:
        method, fitted = trained(spec, seen, device, report, each_epoch=each_epoch)
        try:
            scores = score(seen.valid, predict(method, seen.valid), primary_only=True)
        except ValueError as error:
            raise Diverged(str(error)) from error
        found = skills(tasks, scores, study.constant)
        values = [found[task] for task in study.judged]
        trial.set_user_attr("valid", {t.name: scores[t.name][t.metrics[0]] for t in tasks})
        trial.set_user_attr("best_epoch", fitted.best_epoch)
        state = TrialState.COMPLETE
    except UpdateFinishedTrialError:
        raise
    except optuna.TrialPruned as pruned:
        state, reason = TrialState.PRUNED, str(pruned)
    except BenchError as error:  # a combination that the method does not accept
        state, reason = TrialState.FAIL, f"failed: {error}"
    except Exception as error:  # as in a run: whatever goes wrong is the trial's result
        state, reason = TrialState.FAIL, "{}: {}".format(*fault(error))
    trial.set_user_attr("reason", reason)
    trial.set_user_attr("seconds", round(time.perf_counter() - begin, 3))
    if values is not None and not study.search.pareto:
        values = [float(np.mean(values)) if values else 0.0]
    opened.tell(trial, values, state=state, skip_if_finished=True)


def job_name(study: Study, number: int) -> str:
    """A trial, as progress calls it."""
    return f"{study.spec.dataset} {study.spec.method} trial {number}"


def _ending(trial: FrozenTrial) -> str:
    seconds = f"{trial.user_attrs['seconds']:.1f} s"
    if trial.state == TrialState.COMPLETE:
        return f"skill {np.mean(trial.values):.4f}, {seconds}"
    reason = trial.user_attrs["reason"]
    return f"pruned {reason}, {seconds}" if trial.state == TrialState.PRUNED else str(reason)
