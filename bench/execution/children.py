"""Child processes: each starts with torch imported, and ends with its parent."""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bench import registry
from bench.training.checkpoint import catch_sigterm


def start_child(work: Callable[..., None], *args: Any) -> multiprocessing.process.BaseProcess:
    """Starts a process that does ``work`` for this one, with its environment and plugins: it leaves Ctrl-C to its
    parent, dies with it, keeps what it trains when it is terminated, and computes with one thread.

    All are forked from one process that has imported torch, which takes longer than all else.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo"])  # which every optimiser of torch asks for
    process = context.Process(target=_begin, args=(dict(os.environ), registry.plugins(), work, args))
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, handler)
    return process


def _begin(environ: Mapping[str, str], plugins: Sequence[Path], work: Callable[..., None], args: Sequence[Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # again, for systems where it is not inherited
    os.environ.clear()  # the process that forks was started with that of an earlier time
    os.environ.update(environ)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    catch_sigterm()
    torch.set_num_threads(1)
    registry.add_plugin(*plugins)
    work(*args)


def _die_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
