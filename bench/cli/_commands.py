"""All commands, and what must be set before anything imports torch."""

import os
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

# Waiting threads that spin slow a shared machine down several times, and CUDA is deterministic only with a fixed
# workspace.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

from bench.cli._main import main as main

for module in iter_modules([str(Path(__file__).parent)]):  # importing a command's file adds it
    if not module.name.startswith("_"):
        import_module(f"{__package__}.{module.name}")
