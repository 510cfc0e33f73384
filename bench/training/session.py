"""A run's training: a teacher first if there is one, pilot runs, then the method itself."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from bench.api import Method, Schema
from bench.data.load import Data
from bench.data.tensors import Split
from bench.errors import BenchError
from bench.machine.device import set_up
from bench.machine.processes import check
from bench.spec import CLEAN, PAPER, Spec, config, derive_seed, digest
from bench.spec.settings import AUGMENT
from bench.storage import cache
from bench.storage.atomic import write_atomically
from bench.training.build import build
from bench.training.checkpoint import Checkpointer
from bench.training.loop import Fit, fit
from bench.training.predict import Diverged
from bench.training.skill import constants, split_off_meta, on_meta

Report = Callable[[str], None]


EachEpoch = Callable[[dict[str, Any], float], None]


@dataclass(frozen=True)
class TrainingView:
    """What training and selection may see of a data set: no test part can be reached from here, but under the protocol
    of publications that select on it."""

    schema: Schema
    train: Split
    valid: Split
    meta: dict[str, Any]

    @classmethod
    def of(cls, data: Data) -> TrainingView:
        """The same data without its test parts."""
        return cls(data.schema, data.train, data.valid, data.meta)

    @classmethod
    def published(cls, data: Data) -> TrainingView:
        """A fault, on purpose: the test part in the place of the validation part. It trains on the same rows, so that
        the difference to ``of`` is what selection on the test part gains."""
        return cls(data.schema, data.train, data.test, data.meta)


PROTOCOLS: dict[str, Callable[[Data], TrainingView]] = {CLEAN: TrainingView.of, PAPER: TrainingView.published}


def trained(
    spec: Spec,
    data: TrainingView,
    device: torch.device,
    report: Report = lambda line: None,
    watch: Callable[[Method], AbstractContextManager[Any]] = nullcontext,
    each_epoch: EachEpoch = lambda entry, skill: None,
    checkpointer: Checkpointer | None = None,
) -> tuple[Method, Fit]:
    """A run's trained method and what its training left behind. ``watch``: a context on the method, around training.
    ``each_epoch``: see ``fit``; it hears of the method alone, not of teachers and rehearsals."""
    set_up()
    torch.manual_seed(derive_seed("weights", spec.seed))
    method = build(spec.method, spec.config, data.schema).to(device)
    check(method)
    taught = _teach(method, spec, data, device, report, checkpointer)
    result = _learn(method, spec, data, device, report, watch, each_epoch, checkpointer)
    result.seconds += taught.seconds
    result.rows += taught.rows
    return method, result


def _learn(
    method: Method,
    spec: Spec,
    data: TrainingView,
    device: torch.device,
    report: Report,
    watch: Callable[[Method], AbstractContextManager[Any]] = nullcontext,
    each_epoch: EachEpoch = lambda entry, skill: None,
    checkpointer: Checkpointer | None = None,
    stage: str = "",
) -> Fit:
    keys = ("lr", "weight_decay", "batch_size", "schedule", "warmup", "grad_clip", "decay_embeddings", *AUGMENT)
    settings: dict[str, Any] = {**{k: spec.config[k] for k in keys if k in spec.config}, **spec.budget}

    def learn(model: Method, seed: int = spec.seed, rehearsal: str = "", **more: Any) -> Fit:
        with checkpointer.at(stage, rehearsal) if checkpointer is not None else nullcontext():
            return fit(model, data.train, data.valid, **settings, seed=seed, report=report, checkpointer=checkpointer, **more)

    rehearsed = _rehearse(method, learn, spec.seed, device)
    with watch(method):
        result: Fit = learn(method, each_epoch=each_epoch)
    result.seconds += rehearsed.seconds
    result.rows += rehearsed.rows
    return result


def _teach(method: Method, spec: Spec, data: TrainingView, device: torch.device, report: Report, checkpointer: Checkpointer | None) -> Fit:
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
        model = build(name, resolved, data.schema).to(device)
        model.meta_share = max(model.meta_share, method.meta_share)  # the gap is measured on what neither has seen
        if path.exists():
            done = _restore(path, model)
        else:
            try:
                told: Report = lambda line: report(f"teacher {name}: {line}")  # noqa: E731
                done = _learn(model, own, data, device, told, checkpointer=checkpointer, stage="teacher")
            except Diverged as error:
                raise Diverged(f"teacher '{name}': {error}") from error
            state = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
            took = {"seconds": str(done.seconds), "rows": str(done.rows)}
            write_atomically(path, safetensors.torch.save(state, took))
    skills: dict[str, float] = {}
    if method.meta_share:
        kept, meta = split_off_meta(data.train, method.meta_share)
        skills = on_meta(model, meta, constants(kept, meta))[1]
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
