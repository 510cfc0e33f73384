"""Processes that make one run after another. One that dies, or is stopped at a limit, takes no other run with it."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait

import psutil
import torch

from bench.errors import BenchError
from bench.execution.children import start_child
from bench.execution.job import Executor, Job, Limits, Outcome
from bench.spec import Spec

ENDING_S, KEEPING_S = 10, 60

WATCH_S = 0.05  # how often resident memory is looked at, where it is limited


class Worker:
    """A process, the job that it is at, and the one that it is to do ``first``. It is ``ready`` once it has started."""

    def __init__(self, device: torch.device, first: Job | None = None) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        self.process = start_child(_serve, theirs, device)
        theirs.close()  # so that the end of the process is the end of the connection
        self.ready = False
        self.job: Job | None = None
        self.first = first

    def give(self, job: Job) -> None:
        """Hands over a job."""
        self.job, self.start, self.clock = job, datetime.now(UTC), time.monotonic()
        with suppress(OSError):  # it has died meanwhile, and the connection's end will say so
            self.connection.send(job)

    def excess(self, limits: Limits) -> tuple[str, str] | None:
        """Status and reason if the job takes more than it may."""
        if self.job is None or self.job.stop is not None:
            return None
        if limits.seconds is not None and time.monotonic() - self.clock > limits.seconds:
            return "timeout", f"it took longer than the time limit of {limits.seconds:g} s"
        if limits.memory is not None and _resident(self.process.pid) > limits.memory * 1e9:
            return "oom", f"its process took more resident memory than the limit of {limits.memory:g} GB"
        return None

    def stopped(self, status: str, reason: str) -> Job:
        """What makes the record of its job, which was stopped."""
        assert self.job is not None
        return replace(self.job, stop=(status, reason, self.start))

    def end(self) -> int:
        """Kills the process, if it lives; returns its exit code, negative for a signal."""
        self.process.kill()
        self.process.join()
        self.connection.close()
        return self.process.exitcode or 0


class Pool(Executor):
    """``size`` workers, which start at once. Leaving the context ends them."""

    def __init__(self, size: int, device: torch.device, limits: Limits) -> None:
        self.device, self.limits = device, limits
        self.workers: list[Worker] = []
        try:
            for _ in range(size):
                self.workers.append(Worker(device))
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        """Ends all workers; those that train keep a checkpoint first, for which they have a minute."""
        for worker in self.workers:
            worker.process.terminate()
        deadline = time.monotonic() + KEEPING_S
        for worker in self.workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            worker.end()
        self.workers = []

    def outcomes(self, jobs: Sequence[Job], begin: Callable[[Spec], None]) -> Generator[tuple[Spec, Outcome]]:
        """Each run's outcome as it ends; a free worker takes the next job. ``begin`` hears which is taken.

        A worker that dies or takes too much memory is replaced, and the new one makes its run again; the second time,
        as at the first passing of the time limit, the run gets a record that says so. Raises BenchError for what the
        user must mend.
        """
        self.waiting, self.begin = deque(jobs), begin
        for worker in self.workers:
            if worker.ready:
                self._next(worker)
        while self.waiting or any(worker.job or worker.first for worker in self.workers):
            talking = wait([worker.connection for worker in self.workers], self._patience())
            for worker in [w for w in self.workers if w.connection in talking]:
                job = worker.job
                try:
                    answer: Outcome | BenchError | None = worker.connection.recv()
                except (EOFError, OSError):
                    self._replace_dead(worker)
                    continue
                worker.ready = True
                self._next(worker)
                if isinstance(answer, BenchError):
                    raise answer
                if job is not None and answer is not None:
                    yield job.spec, answer
            for worker in self.workers[:]:
                if worker.job is not None and (excess := worker.excess(self.limits)):
                    worker.end()
                    again = worker.job.again or excess[0] == "timeout"
                    self._replace(worker, worker.stopped(*excess) if again else replace(worker.job, again=True))

    def _patience(self) -> float | None:
        """Seconds until a limit has to be looked at again."""
        if self.limits.memory is not None:
            return WATCH_S
        if self.limits.seconds is None:
            return None
        ends = [w.clock + self.limits.seconds for w in self.workers if w.job and not w.job.stop]
        return max(0.0, min(ends) - time.monotonic()) + 1e-3 if ends else None

    def _next(self, worker: Worker) -> None:
        job = worker.first or (self.waiting.popleft() if self.waiting else None)
        worker.job = worker.first = None
        if job is not None:
            worker.give(job)
            if not (job.again or job.stop):
                self.begin(job.spec)

    def _replace_dead(self, worker: Worker) -> None:
        """Puts another worker in the place of one that has died; it takes over the job."""
        worker.process.join(ENDING_S)  # its connection ends a little before it does
        code = worker.end()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        job = worker.job
        if not worker.ready or (job is not None and job.stop):
            raise BenchError(
                f"a worker process {how} before its run began; stored records are whole: run the same command "
                "again, with fewer --workers if memory is short"
            )
        if job is not None and job.again:
            if code == -signal.SIGKILL:
                job = worker.stopped("oom", f"its process {how} twice, as happens where memory runs out")
            else:
                job = worker.stopped("failed", f"its process {how} twice")
        elif job is not None:
            job = replace(job, again=True)
        self._replace(worker, job)

    def _replace(self, worker: Worker, first: Job | None) -> None:
        self.workers[self.workers.index(worker)] = Worker(self.device, first)


def _resident(process: int | None) -> int:
    """Bytes in memory of a process; 0 if it has ended."""
    try:
        return int(psutil.Process(process).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _serve(connection: Connection, device: torch.device) -> None:
    connection.send(None)
    while True:
        job: Job = connection.recv()
        connection.send(job.answer(device))
