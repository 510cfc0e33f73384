"""run(spec) -> record. An exception becomes a record with its status; it is never a number and never missing."""

from __future__ import annotations

import copy
import hashlib
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import config, machine, registry, train
from bench.api import Method
from bench.data.prepare import Data, load, make, prepare
from bench.errors import BenchError
from bench.nn import Gate
from bench.score import everything, references, score, whole
from bench.spec import Spec, derive_seed, digest
from bench.store import SCHEMA
from bench.train import Diverged, Fit, evaluate, fit

Report = Callable[[str], None]
BUDGET = {"epochs": 20, "patience": 3}


def specify(
    dataset: str,
    method: str,
    *,
    given: Mapping[str, Any] | None = None,
    knobs: Mapping[str, Any] | None = None,
    seed: int = 0,
    budget: Mapping[str, int] | None = None,
) -> Spec:
    """The full spec of a run from what a user says. Raises BenchError for unknown names and bad values."""
    from bench.text.models import identity

    data, resolved_knobs = make(dataset, knobs or {})
    cls = registry.load_method(method)
    resolved, parts = config.resolve(method, given or {})
    if "lm" in resolved:
        resolved["lm"] = identity(resolved["lm"])
    return Spec(
        dataset=dataset,
        dataset_version=data.version,
        dataset_config=resolved_knobs,
        method=method,
        method_version=cls.version,
        parts=parts,
        config=resolved,
        lm=resolved.get("lm"),
        seed=seed,
        budget={**BUDGET, **(budget or {})},
    )


def run(
    spec: Spec, *, device: torch.device, folder: Path | None = None, report: Report = lambda line: None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Trains and evaluates. Returns the record, and the test predictions (empty unless the status is ok).

    folder: the prepared data set; by default it is prepared. Raises BenchError for what the user must mend (data that
    cannot be had); anything the method does wrong becomes the record's status.
    """
    data = load(folder or prepare(spec.dataset, spec.dataset_config))
    start = datetime.now(UTC)
    machine.reset_peak(device)
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "key": spec.key,
        "spec": spec.to_dict(),
        "role": "final",
        "status": "failed",
        "error": None,
        "reference": registry.load_method(spec.method).reference,
        "tasks": [
            {"name": t.name, "kind": t.kind, "role": t.role, "scope": t.scope, "space": t.space, "metric": t.metrics[0]}
            for t in data.schema.tasks
        ],
        "metrics": None,
        "references": _references(data.folder),
        "curve": [],
        "best_epoch": {},
        "gates": {},
        "cost": {},
        "data": {"sha256": data.meta["sha256"], "rows": {k: v["rows"] for k, v in data.meta["parts"].items()}},
        "code": {**machine.code_version(registry.ROOT), "method_digest": method_digest(spec.method, spec.config)},
        "env": machine.environment(device),
    }
    predictions: dict[str, np.ndarray] = {}
    try:
        reason = config.declines(spec.method, spec.config, data.schema)
        if reason:
            record |= {"status": "declined", "error": reason}
        else:
            done, predictions = _train(spec, data, device, report)
            record |= {"status": "ok", **done}
    except Diverged as error:
        record |= {"status": "diverged", "error": str(error)}
    except (MemoryError, torch.OutOfMemoryError) as error:
        record |= {"status": "oom", "error": str(error) or "out of memory"}
    except BenchError:  # a configuration that cannot be: the user's to mend, no result of the method
        raise
    except Exception as error:
        # Whatever a method does wrong must neither stop the suite nor go missing: it becomes the record's reason.
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        record["error"] = f"{type(error).__name__}: {' '.join(str(error).split())} ({where})"
    record["time"] = {
        "start": start.isoformat(timespec="seconds"),
        "stop": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return record, predictions


def method_digest(method: str, resolved: Mapping[str, Any]) -> str:
    """Digest of the code that a method's numbers come from. It audits; the declared versions decide."""
    files = {*registry.source_files(method), Path(train.__file__)}
    for key in resolved.keys() & {"balancer", "balancer.of"}:
        files |= {*registry.source_files(resolved[key], "balancer")}
    if "trunk" in resolved:
        files |= {*registry.source_files(resolved["trunk"])}
    return digest(sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in files))


def _train(
    spec: Spec, data: Data, device: torch.device, report: Report
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(derive_seed("weights", spec.seed))
    method = config.build(spec.method, spec.config, data.schema).to(device)
    keys = ("lr", "weight_decay", "batch_size", "schedule", "warmup", "grad_clip", "decay_embeddings")
    settings: dict[str, Any] = {**{k: spec.config[k] for k in keys}, **spec.budget}

    def learn(model: Method) -> Fit:
        return fit(model, data.train, data.valid, **settings, seed=spec.seed, report=report)

    rehearsed = _rehearse(method, learn, device)
    result: Fit = learn(method)
    result.seconds += rehearsed.seconds
    result.rows += rehearsed.rows
    begin = time.perf_counter()
    predictions = evaluate(method, data.test)
    try:
        measured = everything(data.test, predictions)
        for part in data.extra:
            measured["slices"][part.name] = whole(part, evaluate(method, part))
        gates = {name: m for name, m in method.named_modules() if isinstance(m, Gate)}
        for gate in gates.values():
            gate.get_buffer("usage").zero_()  # what is recorded is of the validation part alone
        valid = score(data.valid, evaluate(method, data.valid))
    except ValueError as error:
        raise Diverged(str(error)) from error
    seconds = time.perf_counter() - begin
    parameters = list(method.parameters())
    cost = {
        "fit_s": round(result.seconds, 3),
        "eval_s": round(seconds, 3),
        "params": sum(p.numel() for p in parameters),
        "trained": sum(p.numel() for p in parameters if p.requires_grad),
        "peak_mb": machine.peak_mb(device),
        "rows_per_s": round(result.rows / result.seconds) if result.rows else None,
        "texts_encoded": len(set(data.schema.texts) - {""}) if spec.lm else 0,
        "tuning_trials": 0,
    }
    done = {
        "metrics": {"valid": valid, "test": measured["test"], "slices": measured["slices"]},
        "curve": result.curve,
        "best_epoch": result.best_epoch,
        "gates": {name: found for name, gate in gates.items() if (found := gate.utilisation())},
        "cost": cost,
    }
    return done, predictions


def _rehearse(method: Method, learn: Callable[[Method], Fit], device: torch.device) -> Fit:
    """Trains a copy with the balancer from which ``method.balancer`` wants weights, if any; draws no random number."""
    first = method.balancer.rehearsal() if method.balancer is not None else None
    if method.balancer is None or first is None:
        return Fit()
    copied = copy.deepcopy(method)
    copied.balancer = first
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        done = learn(copied.to(device))
    names = [t.name for t in method.tasks]
    method.balancer.on_rehearsal(torch.tensor([[e["weights"][n] for n in names] for e in done.curve]).mean(dim=0))
    return done


@lru_cache(maxsize=8)
def _references(folder: Path) -> dict[str, Any]:
    data = load(folder)
    return references(data.train, data.test, data.extra)
