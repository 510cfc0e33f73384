"""Runs on a Ray cluster: one task a run. A node that is lost takes its runs with it, and they begin again elsewhere."""

from __future__ import annotations

import os
import re
import socket
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import torch

from bench import registry
from bench.errors import BenchError, extra, in_one_line
from bench.execution.job import NONE, Executor, Job, Limits, Outcome
from bench.execution.progress import Silent
from bench.execution.ready import prepare_all
from bench.execution.workers import Pool
from bench.machine.device import device_of
from bench.spec import Spec, digest
from bench.storage import cache
from bench.storage.atomic import write_atomically

_folders: dict[str, Path] = {}
ANSWER_S = 10
RETRIES = 3  # a run goes down with at most so many nodes or processes before its record says so

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports to its makers otherwise
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what will be its default; else it warns
with extra("ray"):
    ray: Any = import_module("ray")


class Cluster(Executor):
    """A Ray cluster that this process is connected to within the context.

    address: HOST:PORT of its head node; None: that of ``$RAY_ADDRESS``, or of a cluster on this machine, which is
    started, for the time of the context, if there is none. device: each run takes one CPU, and one GPU if that is one.
    raw: a folder with the raw files, as in ``execute``, a path that every node must have.
    """

    prepares = True

    def __init__(self, address: str | None, device: torch.device, raw: Path | None, limits: Limits) -> None:
        self.address, self.device, self.raw, self.limits = address, device, raw, limits

    def __enter__(self) -> Self:
        try:
            if found := re.fullmatch(r"([^/]+):(\d+)", self.address or os.environ.get("RAY_ADDRESS", "")):
                socket.create_connection((found[1], int(found[2])), timeout=ANSWER_S).close()  # Ray tries for minutes
            ray.init(self.address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        except (OSError, OverflowError, ValueError, RuntimeError) as error:
            where = self.address or os.environ.get("RAY_ADDRESS", "this machine")
            raise BenchError(f"no Ray cluster answers at {where}; start one with `ray start --head`") from error
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()

    def outcomes(self, jobs: Sequence[Job], begin: Callable[[Spec], None]) -> Generator[tuple[Spec, Outcome]]:
        """Each run's outcome as it ends. ``begin`` hears which runs are under way, by the order in which Ray takes them
        and the number of CPUs. A run whose process dies ``RETRIES`` + 1 times gets a record that says so. Raises
        BenchError for what the user must mend.
        """
        gpus = int(self.device.type == "cuda")
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_answer)
        plugins = {path.name: path.read_bytes() for path in registry.plugins()}
        more = ray.put((self.device.type, self.raw, self.limits, plugins))
        pending = {task.remote(job, more): job for job in jobs}
        waiting = deque(job.spec for job in jobs)

        def fill(started: int) -> None:
            for _ in range(min(started, len(waiting))):
                begin(waiting.popleft())

        fill(int(ray.cluster_resources().get("GPU" if gpus else "CPU", 1)))
        try:
            while pending:
                (reference,), _ = ray.wait(list(pending))
                job = pending.pop(reference)
                try:
                    answer = ray.get(reference)
                except ray.exceptions.RayError as error:
                    if job.stop is not None:
                        raise BenchError(f"the Ray cluster cannot run anything: {in_one_line(error)}") from error
                    status = "oom" if isinstance(error, ray.exceptions.OutOfMemoryError) else "failed"
                    stop = (status, in_one_line(error), datetime.now(UTC))
                    again = replace(job, stop=stop)
                    pending[task.remote(again, more)] = again
                    continue
                if isinstance(answer, BenchError):
                    raise answer
                fill(1)
                yield job.spec, answer
        finally:
            for reference in pending:
                ray.cancel(reference, force=True)


def _answer(job: Job, more: tuple[str, Path | None, Limits, Mapping[str, bytes]]) -> Outcome | BenchError:
    """What a task does: as a local worker, after having prepared what its node does not have yet."""
    name, raw, limits, plugins = more
    try:
        registry.add_plugin(*(_plugin(file, content) for file, content in plugins.items()))
        device = device_of(name)
        job = replace(job, folder=_prepared(job.spec, raw))
        if limits == NONE or job.stop is not None:
            return job.answer(device)
        with Pool(1, device, limits) as pool, closing(pool.outcomes([job], lambda spec: None)) as finished:
            ((_, outcome),) = finished
            return outcome
    except BenchError as error:
        return error


def _prepared(spec: Spec, raw: Path | None) -> Path:
    """The folder of a run's data, looked up once in the life of a process: that takes a hash of the raw files."""
    what = digest([spec.dataset, spec.dataset_config, spec.lm])
    if what not in _folders:
        (_folders[what],) = prepare_all([spec], raw, Silent(None))
        torch.set_num_threads(1)
    return _folders[what]


def _plugin(name: str, content: bytes) -> Path:
    """A copy of a plugin file, in the same place for all processes of a node."""
    path = cache.root() / "plugins" / digest([name, content.decode()]) / name
    if not path.exists():
        write_atomically(path, content)
    return path
