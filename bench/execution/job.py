"""A run to be made, its limits, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.errors import BenchError
from bench.execution.in_progress import mark
from bench.execution.run import stopped
from bench.execution.trackers import UNTOLD, Tracking
from bench.spec import Spec

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
    """A run to be made. ``checkpoint``, ``tracking``: see ``execute``. ``stop``: status, reason and start of what was
    stopped; only its record is then made. ``again``: a worker has died at it."""

    spec: Spec
    folder: Path | None = None
    checkpoint: float = 0.0
    tracking: Tracking = UNTOLD
    stop: tuple[str, str, datetime] | None = None
    again: bool = False

    def answer(self, device: torch.device) -> Outcome | BenchError:
        """What ``run`` returns, or the error that it raises for the user: both can be sent to another process."""
        try:
            if self.stop is not None:
                return stopped(self.spec, *self.stop, device=device, folder=self.folder), {}
            with mark(self.spec.key):
                return self.tracking.run(self.spec, device=device, folder=self.folder, checkpoint=self.checkpoint)
        except BenchError as error:
            return error
