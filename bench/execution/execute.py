"""Where runs happen: here, in local workers or on a cluster. What the store already has is not run again."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.api import several
from bench.errors import BenchError
from bench.execution.audit import has_changed
from bench.execution.here import Here
from bench.execution.job import NONE, Executor, Job, Limits
from bench.execution.progress import Progress
from bench.execution.ready import prepare_all
from bench.execution.record import check_code
from bench.execution.trackers import NO_TRACKERS, Tracking
from bench.execution.workers import Pool
from bench.machine.processes import agreed, rank, size
from bench.spec import Spec
from bench.spec.names import run_names
from bench.storage.atomic import write_atomically
from bench.storage.records import Store
from bench.training.checkpoint import discard


@dataclass(frozen=True)
class Place:
    """Where runs are made: the device, how many at a time on a CPU, what one may take, and a cluster to use instead."""

    device: torch.device
    workers: int = 1
    limits: Limits = NONE
    cluster: Executor | None = None

    def check(self) -> None:
        """Raises BenchError for what processes that share a run cannot have."""
        if several() and (self.limits != NONE or self.cluster is not None):
            raise BenchError("processes that share a run (torchrun) take no --time-limit, --memory-limit or --executor")

    def executor(self, runs: int, progress: Progress, retry: bool) -> Executor:
        """What makes so many runs. One that failed is not made again in this process, as it might end it."""
        if self.cluster is not None:
            return self.cluster
        on_cpu = self.device.type == "cpu"
        if not several() and (self.limits != NONE or (on_cpu and self.workers > 1 and (runs > 1 or retry))):
            return Pool(min(self.workers, runs) if on_cpu else 1, self.device, self.limits)
        return Here(self.device, progress.note)


def execute(
    specs: Sequence[Spec],
    store: Store,
    progress: Progress,
    place: Place,
    *,
    raw: Path | None = None,
    retry: bool = False,
    costs: Mapping[str, Mapping[str, Any]] | None = None,
    checkpoint: float = 0.0,
    tracking: Tracking = NO_TRACKERS,
) -> Counter[str]:
    """Runs every spec that has no record yet and stores its record at once; returns how many ended in which status.

    Each run computes with one thread, so that its numbers do not depend on how many run beside it. raw: a folder with
    the raw files. retry: run again what has a record of a status other than ok. costs: what it cost to find a spec's
    configuration, by key. checkpoint: minutes between two of a run's, 0 for none; where several processes share a run
    there are none. tracking: what hears of the runs beside. An interruption loses of the runs at hand what came after
    their last checkpoint, or all: the same call continues.
    """
    place.check()
    store.check_writable()
    ended: Counter[str] = Counter()
    names = dict(zip([s.key for s in specs], run_names([s.to_dict() for s in specs]), strict=True))
    todo = []
    for spec in specs:
        if (known := _known(spec, store, retry)) is None:
            todo.append(spec)
        else:
            ended["stored"] += 1
            progress.end(names[spec.key], known)
    todo = agreed(todo)
    if not todo:
        return ended
    check_code(store)
    tracking.check()
    minutes = 0.0 if several() else checkpoint
    # Whatever stops us here must stop the workers too, or they would finish what is queued. They start meanwhile.
    with place.executor(len(todo), progress, retry) as executor:
        folders = [None] * len(todo) if executor.prepares else prepare_all(todo, raw, progress)
        jobs = [Job(spec, folder, minutes, tracking) for spec, folder in zip(todo, folders, strict=True)]
        with closing(executor.outcomes(jobs, lambda spec: progress.begin(names[spec.key]))) as finished:
            for spec, (record, predictions) in finished:
                alone = several() and record["status"] in ("failed", "oom")  # perhaps on this process alone
                if rank() > 0 and not alone:
                    continue
                record["cost"] |= (costs or {}).get(spec.key, {})
                _keep(store, record, predictions)
                ended[record["status"]] += 1
                ok = record["status"] == "ok"
                ending = f"ok, {record['cost']['fit_s']:.1f} s" if ok else f"{record['status']}: {record['error']}"
                progress.end(name := names[spec.key], ending)
                if alone:
                    who = f"process {rank() + 1} of {size()}"
                    raise BenchError(f"{name}: {who} {ending}; all end, and the same command continues after it")
    return ended


def _known(spec: Spec, store: Store, retry: bool) -> str | None:
    """What is said of a run that has a record already; None if it has to be made."""
    known = store.get(spec.to_dict(), spec.key)
    if known is None or (known["status"] != "ok" and retry):
        return None
    hint = f"; the code of {spec.method} has changed since: bump its version to run it again"
    return f"already stored ({known['status']}){hint if has_changed(known) else ''}"


def _keep(store: Store, record: dict[str, Any], predictions: Mapping[str, np.ndarray]) -> None:
    """Stores a record and removes the run's checkpoints; before it, test predictions in half precision (clipped to its
    range), so that a new metric needs no new run; not in git."""
    most = np.finfo(np.float16).max
    halves = {name: values.clip(-most, most).astype(np.float16) for name, values in predictions.items()}
    if halves:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **halves)
        write_atomically(store.root / "predictions" / f"{record['key']}.npz", buffer.getvalue())
    store.put(record)
    discard(record["key"])
