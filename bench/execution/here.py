"""Runs in this process, one after another."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import torch

from bench.execution.job import Executor, Job, Outcome
from bench.spec import Spec
from bench.training.loop import Report


class Here(Executor):
    """This process."""

    def __init__(self, device: torch.device, report: Report) -> None:
        self.device, self.report = device, report

    def outcomes(self, jobs: Sequence[Job], begin: Callable[[Spec], None]) -> Generator[tuple[Spec, Outcome]]:
        """Each run's outcome as it ends, in the order of the jobs."""
        torch.set_num_threads(1)
        for job in jobs:
            begin(job.spec)
            yield job.spec, job.make(self.device, self.report)
