"""The record of a run: what was to be run, where, by what code, and how it ended."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from bench import registry
from bench.data.load import Data
from bench.errors import BenchError, Diverged, in_one_line
from bench.execution.audit import SCHEME, method_digest
from bench.machine.provenance import code_version, environment
from bench.spec import PAPER, Spec
from bench.storage.reading import SCHEMA
from bench.storage.records import Store
from bench.training.score import references


def times(start: datetime) -> dict[str, Any]:
    """The part of a record that says when a run started and, now, stopped."""
    stop = datetime.now(UTC)
    return {"time": {"start": start.isoformat(timespec="seconds"), "stop": stop.isoformat(timespec="seconds")}}


def without_result(spec: Spec, data: Data, device: torch.device) -> dict[str, Any]:
    """A record of what was to be run, where and by what code."""
    return {
        "schema": SCHEMA,
        "key": spec.key,
        "spec": spec.to_dict(),
        "role": "paper" if spec.protocol == PAPER else "final",
        "status": "failed",
        "error": None,
        "reference": registry.load_method(spec.method).reference,
        "tasks": [
            {"name": t.name, "kind": t.kind, "role": t.role, "scope": t.scope, "space": t.space, "metric": t.metrics[0]}
            for t in data.schema.tasks
        ],
        "metrics": None,
        "references": _references(data),
        "curve": [],
        "best_epoch": {},
        "gates": {},
        "decisions": [],
        "cost": {},
        "data": {"sha256": data.meta["sha256"], "rows": {k: v["rows"] for k, v in data.meta["parts"].items()}},
        "code": code_version(registry.ROOT)
        | {"method_digest": method_digest(spec.method, spec.config), "digest_scheme": SCHEME},
        "env": environment(device),
    }


def check_code(store: Store) -> None:
    """Raises BenchError, before hours of work, if a published folder would take no record of the code as it is."""
    if store.published and code_version(registry.ROOT)["dirty"] is not False:
        raise BenchError(
            f"{store.root} is published and takes records of committed code alone: commit the changes in "
            f"{registry.ROOT}, or give another folder with --results"
        )


def fault(error: Exception) -> tuple[str, str]:
    """The status of a run that ended with this error, and the reason."""
    if isinstance(error, Diverged):
        return "diverged", str(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return "oom", str(error) or "out of memory"
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}:{place.lineno}"
    return "failed", f"{in_one_line(error)} ({where})"


@lru_cache(maxsize=8)
def _references(data: Data) -> dict[str, Any]:
    return references(data.train, data.test, data.extra)
