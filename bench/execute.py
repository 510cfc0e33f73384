"""Where runs happen: here, in local workers or on a cluster. What the store already has is not run again."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bench import parallel
from bench.api import several
from bench.checkpoint import discard
from bench.data.prepare import load, prepare
from bench.errors import BenchError
from bench.labels import run_names
from bench.progress import Progress
from bench.run import method_digest
from bench.running import mark
from bench.spec import Spec, canonical
from bench.store import Store, write_atomically
from bench.trackers import UNTOLD, Tracking
from bench.workers import NONE, Job, Limits, Outcome, Pool

if TYPE_CHECKING:
    from bench.cluster import Cluster


def execute(
    specs: Sequence[Spec],
    store: Store,
    progress: Progress,
    *,
    device: torch.device,
    workers: int = 1,
    raw: Path | None = None,
    retry: bool = False,
    tuning: Mapping[str, Mapping[str, Any]] | None = None,
    limits: Limits = NONE,
    cluster: Cluster | None = None,
    checkpoint: float = 0.0,
    tracking: Tracking = UNTOLD,
) -> Counter[str]:
    """Runs every spec that has no record yet and stores its record at once; returns how many ended in which status.

    Each run computes with one thread, so that its numbers do not depend on how many run beside it; ``workers`` run at
    a time. raw: a folder with the raw files. retry: run again what has a record of a status other than ok.
    tuning: what it cost to find a spec's configuration, by key. limits: what one run may take. cluster: where to run
    instead of here; ``workers`` then does not count. checkpoint: minutes between two of a run's, 0 for none; where
    several processes share a run there are none. tracking: what hears of the runs beside. An interruption loses of the
    runs at hand what came after their last checkpoint, or all: the same call continues.
    """
    if several() and (limits != NONE or cluster is not None):
        raise BenchError("processes that share a run (torchrun) take no --time-limit, --memory-limit or --executor")
    store.check_writable()
    outcome: Counter[str] = Counter()
    names = dict(zip([s.key for s in specs], run_names([s.to_dict() for s in specs]), strict=True))
    todo = []
    for spec in specs:
        known = store.get(spec.to_dict(), spec.key)
        if known is not None and (known["status"] == "ok" or not retry):
            outcome["stored"] += 1
            same = known["code"]["method_digest"] == method_digest(spec.method, spec.config)
            hint = "" if same else f"; the code of {spec.method} has changed since: bump its version to run it again"
            progress.end(names[spec.key], f"already stored ({known['status']}){hint}")
        else:
            todo.append(spec)
    todo = parallel.agreed(todo)
    if not todo:
        return outcome
    tracking.check()

    def begin(spec: Spec) -> None:
        progress.begin(names[spec.key])

    with ExitStack() as stack:  # whatever stops us here must stop the workers too, or they would finish what is queued
        if cluster is not None:
            finished = cluster.outcomes(
                [Job(spec, None, checkpoint, tracking) for spec in todo], begin, device, raw, limits
            )
        elif not several() and (limits != NONE or (device.type == "cpu" and workers > 1 and (len(todo) > 1 or retry))):
            size = min(workers, len(todo)) if device.type == "cpu" else 1
            pool = stack.enter_context(Pool(size, device, limits))  # they start while the data are prepared
            folders = prepare_all(todo, raw, progress)
            jobs = [Job(spec, at, checkpoint, tracking) for spec, at in zip(todo, folders, strict=True)]
            finished = pool.outcomes(jobs, begin)
        else:
            finished = _here(
                todo,
                prepare_all(todo, raw, progress),
                device,
                progress,
                names,
                0 if several() else checkpoint,
                tracking,
            )
        stack.enter_context(closing(finished))
        for spec, (record, predictions) in finished:
            ended = several() and record["status"] in ("failed", "oom")  # perhaps on this process alone
            if parallel.rank() > 0 and not ended:
                continue
            if predictions:
                _keep_predictions(store.root / "predictions" / f"{spec.key}.npz", predictions)
            record["cost"] |= (tuning or {}).get(spec.key, {})
            store.put(record)
            discard(spec.key)
            outcome[record["status"]] += 1
            ok = record["status"] == "ok"
            ending = f"ok, {record['cost']['fit_s']:.1f} s" if ok else f"{record['status']}: {record['error']}"
            progress.end(names[spec.key], ending)
            if ended:
                who = f"process {parallel.rank() + 1} of {parallel.size()}"
                raise BenchError(f"{names[spec.key]}: {who} {ending}; all end, and the same command continues after it")
    return outcome


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


def _here(
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


def _keep_predictions(path: Path, predictions: dict[str, np.ndarray]) -> None:
    """Test predictions in half precision (clipped to its range), so that a new metric needs no new run; not in git."""
    most = np.finfo(np.float16).max
    halves = {name: values.clip(-most, most).astype(np.float16) for name, values in predictions.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **halves)
    write_atomically(path, buffer.getvalue())
