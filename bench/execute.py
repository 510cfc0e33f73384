"""Where runs happen: in this process, or in several local ones. What the store already has is not run again."""

from __future__ import annotations

import io
import multiprocessing
import multiprocessing.process
import os
import signal
import threading
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import registry
from bench.data.prepare import load, prepare
from bench.errors import BenchError
from bench.leaderboard import run_names
from bench.progress import Progress
from bench.run import method_digest
from bench.spec import Spec
from bench.store import Store, write_atomically
from bench.trackers import NONE, Tracking

Outcome = tuple[dict[str, Any], dict[str, np.ndarray]]


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
    tracking: Tracking = NONE,
) -> Counter[str]:
    """Runs every spec that has no record yet and stores its record at once; returns how many ended in which status.

    Each run computes with one thread, so that its numbers do not depend on how many run beside it; ``workers`` run at
    a time. raw: a folder with the raw files. retry: run again what has a record of a status other than ok.
    tuning: what it cost to find a spec's configuration, by key. tracking: what hears of the runs beside. An
    interruption loses only the runs at hand: the same call continues.
    """
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
    if not todo:
        return outcome
    tracking.check()
    folders = prepare_all(todo, raw, progress)
    workers = min(workers, len(todo)) if device.type == "cpu" else 1
    if workers > 1:
        finished = _in_workers(todo, folders, workers, progress, names, tracking)
    else:
        finished = _here(todo, folders, device, progress, names, tracking)
    with closing(finished):  # whatever stops us here must stop the workers too, or they would finish what is queued
        for spec, (record, predictions) in finished:
            if predictions:
                _keep_predictions(store.root / "predictions" / f"{spec.key}.npz", predictions)
            record["cost"] |= (tuning or {}).get(spec.key, {})
            store.put(record)
            outcome[record["status"]] += 1
            ok = record["status"] == "ok"
            ending = f"ok, {record['cost']['fit_s']:.1f} s" if ok else f"{record['status']}: {record['error']}"
            progress.end(names[spec.key], ending)
    return outcome


def prepare_all(specs: Sequence[Spec], raw: Path | None, progress: Progress) -> list[Path]:
    """Prepares each spec's data set and text vectors once, with all cores, before any run needs them."""
    folders = []
    torch.set_num_threads(os.cpu_count() or 1)
    shown: set[tuple[str, str | None]] = set()
    for spec in specs:
        if (spec.dataset, None) not in shown:
            progress.step(f"preparing {spec.dataset}")
        folders.append(prepare(spec.dataset, spec.dataset_config, raw, progress.note))
        if spec.lm is not None and (spec.dataset, spec.lm) not in shown:
            from bench.text.encode import vectors

            title = f"encoding the texts of {spec.dataset} with {spec.lm}"
            vectors(load(folders[-1]).schema.texts, spec.lm, partial(_encoding, progress, title))
        shown |= {(spec.dataset, None), (spec.dataset, spec.lm)}
    return folders


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
    tracking: Tracking,
) -> Generator[tuple[Spec, Outcome]]:
    torch.set_num_threads(1)
    for spec, folder in zip(specs, folders, strict=True):
        progress.begin(names[spec.key])
        yield spec, tracking.run(spec, device=device, folder=folder, report=progress.note)


def _in_workers(
    specs: Sequence[Spec],
    folders: Sequence[Path],
    workers: int,
    progress: Progress,
    names: Mapping[str, str],
    tracking: Tracking,
) -> Generator[tuple[Spec, Outcome]]:
    """A free worker takes the next spec. Raises BenchError if a worker dies."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=(registry.plugins(),))
    try:
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited by the workers, which start here
        try:
            futures: dict[Future[Outcome], Spec] = {
                pool.submit(_work, spec, folder, tracking): spec for spec, folder in zip(specs, folders, strict=True)
            }
        finally:
            signal.signal(signal.SIGINT, handler)
        for spec in specs[:workers]:
            progress.begin(names[spec.key])
        waiting = iter(specs[workers:])
        for future in as_completed(futures):
            result = future.result()
            yield futures.pop(future), result
            if (following := next(waiting, None)) is not None:
                progress.begin(names[following.key])
    except BrokenProcessPool as error:
        raise BenchError(
            "a worker process died, perhaps for want of memory; stored records are whole: run the same command again, "
            "with fewer --workers if it happens twice"
        ) from error
    finally:
        for child in multiprocessing.active_children():
            child.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker(plugins: Sequence[Path]) -> None:
    """A worker leaves Ctrl-C to its parent, and dies with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # again, for systems where it is not inherited
    torch.set_num_threads(1)
    for plugin in plugins:
        registry.add_plugin(plugin)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _die_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _work(spec: Spec, folder: Path, tracking: Tracking) -> Outcome:
    return tracking.run(spec, device=torch.device("cpu"), folder=folder)


def _keep_predictions(path: Path, predictions: dict[str, np.ndarray]) -> None:
    """Test predictions in half precision (clipped to its range), so that a new metric needs no new run; not in git."""
    most = np.finfo(np.float16).max
    halves = {name: values.clip(-most, most).astype(np.float16) for name, values in predictions.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **halves)
    write_atomically(path, buffer.getvalue())
