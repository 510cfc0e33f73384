"""What runs need before they start: prepared data sets and text vectors, made once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from bench.data.load import load
from bench.data.prepare import prepare
from bench.execution.progress import Progress
from bench.spec import Spec, canonical


def prepare_all(specs: Sequence[Spec], raw: Path | None, progress: Progress) -> list[Path]:
    """Prepares each spec's data set and text vectors once, with all cores, before any run needs them."""
    torch.set_num_threads(os.cpu_count() or 1)
    folders: dict[tuple[str, str], Path] = {}
    encoded: set[tuple[Path, str]] = set()
    for spec in specs:
        data = (spec.dataset, canonical(spec.dataset_config))
        if data not in folders:
            progress.step(f"preparing {spec.dataset}")
            folders[data] = prepare(spec.dataset, spec.dataset_config, raw, progress.note)
        if spec.lm is not None and (folders[data], spec.lm) not in encoded:
            from bench.text.encode import vectors

            title = f"encoding the texts of {spec.dataset} with {spec.lm}"
            vectors(load(folders[data]).schema.texts, spec.lm, partial(_encoding, progress, title))
            encoded.add((folders[data], spec.lm))
    return [folders[spec.dataset, canonical(spec.dataset_config)] for spec in specs]


def _encoding(progress: Progress, title: str, done: int, total: int) -> None:
    if done == 0:
        progress.step(title)
    progress.note(f"{done}/{total}")
