"""The ``bench`` command, a module for each of its commands. Nothing outside imports them."""

import os
from importlib import import_module
from pkgutil import iter_modules

# Before anything imports torch: waiting threads that spin slow a shared machine down several times, and CUDA is
# deterministic only with a fixed workspace.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

from bench.cli._main import main

__all__ = ["main"]

for module in iter_modules(__path__):  # importing a command's file adds it
    if not module.name.startswith("_"):
        import_module(f"{__name__}.{module.name}")
