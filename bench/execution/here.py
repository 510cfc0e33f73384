"""Runs in this process, one after another."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import torch

from bench.execution.in_progress import mark
from bench.execution.job import Outcome
from bench.execution.progress import Progress
from bench.execution.trackers import Tracking
from bench.spec import Spec


def here(
    specs: Sequence[Spec],
    folders: Sequence[Path],
    device: torch.device,
    progress: Progress,
    names: Mapping[str, str],
    checkpoint: float,
    tracking: Tracking,
) -> Generator[tuple[Spec, Outcome]]:
    torch.set_num_threads(1)
    for spec, folder in zip(specs, folders, strict=True):
        progress.begin(names[spec.key])
        with mark(spec.key):
            outcome = tracking.run(spec, device=device, folder=folder, report=progress.note, checkpoint=checkpoint)
        yield spec, outcome
