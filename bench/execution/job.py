"""A run to be made, its limits, what comes of it, and what makes it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from bench.data.load import load
from bench.errors import BenchError
from bench.execution.in_progress import mark
from bench.execution.run import stopped
from bench.execution.trackers import NO_TRACKERS, Tracking
from bench.spec import Spec
from bench.training.loop import Report

Outcome = tuple[dict[str, Any], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Limits:
    """What one run may take: ``seconds`` from its start to its record, and resident memory of its process in GB (1e9
    bytes), libraries and mapped data included. None: any."""

    seconds: float | None = None
    memory: float | None = None


NONE = Limits()


@dataclass(frozen=True)
class Job:
    """A run to be made. ``folder``: its prepared data; None where the executor prepares them. ``checkpoint``,
    ``tracking``: see ``execute``. ``stop``: status, reason and start of what was stopped; only its record is then made.
    ``again``: a worker has died at it."""

    spec: Spec
    folder: Path | None = None
    checkpoint: float = 0.0
    tracking: Tracking = NO_TRACKERS
    stop: tuple[str, str, datetime] | None = None
    again: bool = False

    def make(self, device: torch.device, report: Report = lambda line: None) -> Outcome:
        """Makes the run, or the record of what was stopped. Raises BenchError for what the user must mend."""
        assert self.folder is not None
        data = load(self.folder)
        if self.stop is not None:
            return stopped(self.spec, data, *self.stop, device=device), {}
        with mark(self.spec.key):
            return self.tracking.run(self.spec, data, device=device, report=report, checkpoint=self.checkpoint)

    def answer(self, device: torch.device) -> Outcome | BenchError:
        """What ``make`` returns, or the error that it raises for the user: both can be sent to another process."""
        try:
            return self.make(device)
        except BenchError as error:
            return error


class Executor:
    """Where runs are made, within its context. ``prepares``: it prepares the data itself, on the machines it uses."""

    prepares: ClassVar[bool] = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends what is still under way."""

    def outcomes(self, jobs: Sequence[Job], begin: Callable[[Spec], None]) -> Generator[tuple[Spec, Outcome]]:
        """Each run's outcome as it ends; ``begin`` hears which run begins. Raises BenchError for what the user must
        mend."""
        raise NotImplementedError
