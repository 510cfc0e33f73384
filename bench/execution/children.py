"""Child processes that end with their parent."""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import torch

from bench import registry
from bench.training.checkpoint import catch_sigterm


def start_child(process: multiprocessing.process.BaseProcess) -> None:
    """Starts it with Ctrl-C ignored, which it inherits: that is for its parent."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, handler)


def set_up_child(plugins: Sequence[Path]) -> None:
    """At the start of a process that works for another: it leaves Ctrl-C to its parent, dies with it, keeps what it
    trains when it is terminated, and computes with one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # again, for systems where it is not inherited
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    catch_sigterm()
    torch.set_num_threads(1)
    registry.add_plugin(*plugins)


def _die_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
