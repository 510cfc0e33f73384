"""run(spec) -> record. An exception becomes a record with its status; it is never a number and never missing."""

from __future__ import annotations

import copy
import hashlib
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from bench import config, features, machine, parallel, registry, train
from bench.api import Method, Schema
from bench.checkpoint import Keeper
from bench.data import cache
from bench.data.prepare import Data, load, make, prepare
from bench.data.tensors import Split
from bench.errors import BenchError
from bench.nn import Gate
from bench.score import everything, references, score, whole
from bench.spec import CLEAN, PAPER, Spec, derive_seed, digest
from bench.store import SCHEMA, write_atomically
from bench.train import Diverged, Fit, fit, predict

Report = Callable[[str], None]
EachEpoch = Callable[[dict[str, Any], float], None]
BUDGET = {"epochs": 20, "patience": 3}


@dataclass(frozen=True)
class Seen:
    """What training and selection may see of a data set: no test part can be reached from here, but under the protocol
    of publications that select on it."""

    schema: Schema
    train: Split
    valid: Split
    meta: dict[str, Any]

    @classmethod
    def of(cls, data: Data) -> Seen:
        """The same data without its test parts."""
        return cls(data.schema, data.train, data.valid, data.meta)

    @classmethod
    def published(cls, data: Data) -> Seen:
        """A fault, on purpose: the test part in the place of the validation part. It trains on the same rows, so that
        the difference to ``of`` is what selection on the test part gains."""
        return cls(data.schema, data.train, data.test, data.meta)


PROTOCOLS: dict[str, Callable[[Data], Seen]] = {CLEAN: Seen.of, PAPER: Seen.published}


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
    for key in resolved.keys() & {"lm", "teacher.lm"}:
        resolved[key] = identity(resolved[key])
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
    spec: Spec,
    *,
    device: torch.device,
    folder: Path | None = None,
    report: Report = lambda line: None,
    checkpoint: float = 0.0,
    each_epoch: EachEpoch = lambda entry, skill: None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Trains and evaluates. Returns the record, and the test predictions (empty unless the status is ok, and of a large
    test part).

    folder: the prepared data set; by default it is prepared. checkpoint: minutes between two, 0 for none; to be removed
    by ``bench.checkpoint.discard`` when the record is stored. each_epoch: see ``trained``. Raises BenchError for what
    the user must mend (data that cannot be had); anything the method does wrong becomes the record's status.
    """
    data = load(folder or prepare(spec.dataset, spec.dataset_config))
    start = datetime.now(UTC)
    machine.reset_peak(device)
    record = _without_result(spec, data, device)
    predictions: dict[str, np.ndarray] = {}
    belongs = {"data": data.meta["sha256"], "code": record["code"]["method_digest"], "device": device.type}
    keeper = Keeper(spec.key, checkpoint, belongs) if checkpoint else None
    try:
        reason = config.declines(spec.method, spec.config, data.schema)
        if reason:
            record |= {"status": "declined", "error": reason}
        else:
            done, predictions = _train(spec, data, device, report, keeper, each_epoch)
            record |= {"status": "ok", **done}
    except BenchError:  # a configuration that cannot be: the user's to mend, no result of the method
        raise
    except Exception as error:
        if parallel.lost(error):
            raise
        # Whatever a method does wrong must neither stop the suite nor go missing: it becomes the record's reason.
        record["status"], record["error"] = fault(error)
    return record | _time(start), predictions


def stopped(
    spec: Spec, status: str, error: str, start: datetime, *, device: torch.device, folder: Path | None = None
) -> dict[str, Any]:
    """The record of a run that was stopped from outside and could not write its own; arguments as in ``run``."""
    data = load(folder or prepare(spec.dataset, spec.dataset_config))
    return _without_result(spec, data, device) | {"status": status, "error": error} | _time(start)


def _time(start: datetime) -> dict[str, Any]:
    stop = datetime.now(UTC)
    return {"time": {"start": start.isoformat(timespec="seconds"), "stop": stop.isoformat(timespec="seconds")}}


def _without_result(spec: Spec, data: Data, device: torch.device) -> dict[str, Any]:
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
        "references": _references(data.folder),
        "curve": [],
        "best_epoch": {},
        "gates": {},
        "decisions": [],
        "cost": {},
        "data": {"sha256": data.meta["sha256"], "rows": {k: v["rows"] for k, v in data.meta["parts"].items()}},
        "code": {**machine.code_version(registry.ROOT), "method_digest": method_digest(spec.method, spec.config)},
        "env": machine.environment(device),
    }


def fault(error: Exception) -> tuple[str, str]:
    """The status of a run that ended with this error, and the reason."""
    if isinstance(error, Diverged):
        return "diverged", str(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return "oom", str(error) or "out of memory"
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}:{place.lineno}"
    return "failed", f"{type(error).__name__}: {' '.join(str(error).split())} ({where})"


def method_digest(method: str, resolved: Mapping[str, Any]) -> str:
    """Digest of the code that a method's numbers come from. It audits; the declared versions decide."""
    files = {*registry.source_files(method), Path(train.__file__), Path(features.__file__)}
    for key in resolved.keys() & {"balancer", "balancer.of"}:
        files |= {*registry.source_files(resolved[key], "balancer")}
    for key in resolved.keys() & {"trunk", "teacher", "teacher.trunk"}:
        files |= {*registry.source_files(resolved[key])}
    return digest(sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in files))


def trained(
    spec: Spec,
    data: Seen,
    device: torch.device,
    report: Report = lambda line: None,
    watch: Callable[[Method], AbstractContextManager[Any]] = nullcontext,
    each_epoch: EachEpoch = lambda entry, skill: None,
    keeper: Keeper | None = None,
) -> tuple[Method, Fit]:
    """A run's trained method and what its training left behind. ``watch``: a context on the method, around training.
    ``each_epoch``: see ``fit``; it hears of the method alone, not of teachers and rehearsals."""
    machine.set_up()
    torch.manual_seed(derive_seed("weights", spec.seed))
    method = config.build(spec.method, spec.config, data.schema).to(device)
    parallel.check(method)
    taught = _teach(method, spec, data, device, report, keeper)
    result = _learn(method, spec, data, device, report, watch, each_epoch, keeper)
    result.seconds += taught.seconds
    result.rows += taught.rows
    return method, result


def _learn(
    method: Method,
    spec: Spec,
    data: Seen,
    device: torch.device,
    report: Report,
    watch: Callable[[Method], AbstractContextManager[Any]] = nullcontext,
    each_epoch: EachEpoch = lambda entry, skill: None,
    keeper: Keeper | None = None,
    stage: str = "",
) -> Fit:
    keys = ("lr", "weight_decay", "batch_size", "schedule", "warmup", "grad_clip", "decay_embeddings", *config.AUGMENT)
    settings: dict[str, Any] = {**{k: spec.config[k] for k in keys if k in spec.config}, **spec.budget}

    def learn(model: Method, seed: int = spec.seed, rehearsal: str = "", **more: Any) -> Fit:
        with keeper.at(stage, rehearsal) if keeper is not None else nullcontext():
            return fit(model, data.train, data.valid, **settings, seed=seed, report=report, keeper=keeper, **more)

    rehearsed = _rehearse(method, learn, spec.seed, device)
    with watch(method):
        result: Fit = learn(method, each_epoch=each_epoch)
    result.seconds += rehearsed.seconds
    result.rows += rehearsed.rows
    return result


def _train(
    spec: Spec, data: Data, device: torch.device, report: Report, keeper: Keeper | None, each_epoch: EachEpoch
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    seen = PROTOCOLS[spec.protocol](data)
    method, result = trained(spec, seen, device, report, each_epoch=each_epoch, keeper=keeper)
    begin = time.perf_counter()
    predictions = predict(method, data.test)
    try:
        measured = everything(data.test, predictions)
        for part in data.extra:
            measured["slices"][part.name] = whole(part, predict(method, part))
        gates = {name: m for name, m in method.named_modules() if isinstance(m, Gate)}
        for gate in gates.values():
            gate.get_buffer("usage").zero_()  # what is recorded is of the validation part alone
        valid = score(data.valid, predict(method, data.valid))
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
        "texts_encoded": sum(getattr(m, "texts_encoded", 0) for m in method.modules()),
        "tuning_trials": 0,
        "tuning_s": 0.0,
    }
    done = {
        "metrics": {"valid": valid, "test": measured["test"], "slices": measured["slices"]},
        "curve": result.curve,
        "best_epoch": result.best_epoch,
        "gates": {name: found for name, gate in gates.items() if (found := gate.utilisation())},
        "decisions": getattr(method, "decisions", []),
        "cost": cost,
    }
    return done, {name: values for name, values in predictions.items() if isinstance(values, np.ndarray)}


def _teach(method: Method, spec: Spec, data: Seen, device: torch.device, report: Report, keeper: Keeper | None) -> Fit:
    """Hands over the run that a method learns from, if any, newly trained or from the cache; draws no random number.

    Returns what its training took, then or now. Only the declared versions decide whether a cached one is the same.
    """
    if not method.teacher:
        return Fit()
    name, resolved = spec.config["teacher"], config.teachers(spec.config)
    version, parts = spec.parts["teacher"], config.teachers(spec.parts)
    own = replace(spec, method=name, method_version=version, parts=parts, config=resolved, lm=resolved.get("lm"))
    key = digest([own.to_dict(), method.meta_share, data.meta["sha256"]])
    path = cache.root() / "teachers" / f"{key}.safetensors"
    with torch.random.fork_rng([device] if device.type == "cuda" else []), cache.only_one(f"teacher-{key}"):
        torch.manual_seed(derive_seed("teacher", spec.seed))
        model = config.build(name, resolved, data.schema).to(device)
        model.meta_share = max(model.meta_share, method.meta_share)  # the gap is measured on what neither has seen
        if path.exists():
            done = _restore(path, model)
        else:
            try:
                told: Report = lambda line: report(f"teacher {name}: {line}")  # noqa: E731
                done = _learn(model, own, data, device, told, keeper=keeper, stage="teacher")
            except Diverged as error:
                raise Diverged(f"teacher '{name}': {error}") from error
            state = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
            took = {"seconds": str(done.seconds), "rows": str(done.rows)}
            write_atomically(path, safetensors.torch.save(state, took))
    skills: dict[str, float] = {}
    if method.meta_share:
        kept, meta = train.kept_from(data.train, method.meta_share)
        skills = train.on_meta(model, meta, train.constants(kept, meta))[1]
    method.on_teacher(model.eval().requires_grad_(False), skills, spec.budget["epochs"])
    return done


def _restore(path: Path, model: Method) -> Fit:
    try:
        with safetensors.safe_open(path, "pt") as file:
            took = file.metadata()
            model.load_state_dict({k: file.get_tensor(k) for k in file.keys()})  # noqa: SIM118 (no mapping)
        return Fit(seconds=float(took["seconds"]), rows=int(took["rows"]))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise BenchError(f"{path} does not hold this teacher; delete it and run again") from error


def _rehearse(method: Method, learn: Callable[..., Fit], seed: int, device: torch.device) -> Fit:
    """Trains the copies that the method wants to learn from, if any, then one with the balancer from which
    ``method.balancer`` wants weights, if any; draws no random number."""
    total = Fit()

    def rehearse(copied: Method, stage: str, seed: int) -> Fit:
        done = learn(copied.to(device), seed, stage)
        total.seconds += done.seconds
        total.rows += done.rows
        return done

    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        copies = method.rehearsals()
        for i, copied in enumerate(copies):
            own = derive_seed(f"rehearsal {i}", seed)
            torch.manual_seed(own)
            rehearse(copied, f"rehearsal{i}", own)
    if copies:
        method.on_rehearsals(copies)
    first = method.balancer.rehearsal() if method.balancer is not None else None
    if method.balancer is None or first is None:
        return total
    copied = copy.deepcopy(method)
    copied.balancer = first
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        curve = rehearse(copied, "balancer", seed).curve
    names = [t.name for t in method.tasks]
    method.balancer.on_rehearsal(torch.tensor([[e["weights"][n] for n in names] for e in curve]).mean(dim=0))
    return total


@lru_cache(maxsize=8)
def _references(folder: Path) -> dict[str, Any]:
    data = load(folder)
    return references(data.train, data.test, data.extra)
