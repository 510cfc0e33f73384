"""Where runs happen: here, in local workers or on a cluster. What the store already has is not run again."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bench.api import several
from bench.errors import BenchError
from bench.execution.audit import has_changed
from bench.execution.job import NONE, Job, Limits
from bench.execution.progress import Progress
from bench.execution.record import check_code
from bench.execution.trackers import UNTOLD, Tracking
from bench.execution.workers import Pool
from bench.machine import processes
from bench.machine.processes import agreed, rank
from bench.spec import Spec
from bench.spec.names import run_names
from bench.storage.atomic import write_atomically
from bench.storage.records import Store
from bench.training.checkpoint import discard

if TYPE_CHECKING:
    from bench.execution.cluster import Cluster
from bench.execution.here import here
from bench.execution.ready import prepare_all


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
            hint = f"; the code of {spec.method} has changed since: bump its version to run it again"
            hint = hint if has_changed(known) else ""
            progress.end(names[spec.key], f"already stored ({known['status']}){hint}")
        else:
            todo.append(spec)
    todo = agreed(todo)
    if not todo:
        return outcome
    check_code(store)
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
            finished = here(
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
            if rank() > 0 and not ended:
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
                who = f"process {rank() + 1} of {processes.size()}"
                raise BenchError(f"{names[spec.key]}: {who} {ending}; all end, and the same command continues after it")
    return outcome


def _keep_predictions(path: Path, predictions: dict[str, np.ndarray]) -> None:
    """Test predictions in half precision (clipped to its range), so that a new metric needs no new run; not in git."""
    most = np.finfo(np.float16).max
    halves = {name: values.clip(-most, most).astype(np.float16) for name, values in predictions.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **halves)
    write_atomically(path, buffer.getvalue())
