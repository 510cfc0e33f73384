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
from bench.errors import BenchError, Diverged
from bench.machine.device import set_up
from bench.machine.processes import check
from bench.spec import CLEAN, PAPER, Spec, config, derive_seed, digest
from bench.storage import cache
from bench.storage.atomic import write_atomically
from bench.training.build import build
from bench.training.checkpoint import Checkpointer
from bench.training.loop import EachEpoch, Fit, Report, fit
from bench.training.recipe import Recipe
from bench.training.skill import constants, on_meta, split_off_meta


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
        """The data without its test parts."""
        return cls(data.schema, data.train, data.valid, data.meta)

    @classmethod
    def published(cls, data: Data) -> TrainingView:
        """A fault, on purpose: the test part in the place of the validation part. It trains on the same rows, so that
        the difference to ``of`` is what selection on the test part gains."""
        return cls(data.schema, data.train, data.test, data.meta)


PROTOCOLS: dict[str, Callable[[Data], TrainingView]] = {CLEAN: TrainingView.of, PAPER: TrainingView.published}

Watch = Callable[[Method], AbstractContextManager[Any]]


def trained(
    spec: Spec,
    data: TrainingView,
    device: torch.device,
    report: Report = lambda line: None,
    watch: Watch = nullcontext,
    each_epoch: EachEpoch = lambda entry, skill: None,
    checkpointer: Checkpointer | None = None,
) -> tuple[Method, Fit]:
    """A run's trained method and what its training left behind. ``watch``: a context on the method, around training.
    ``each_epoch``: see ``fit``; it hears of the method alone, not of teachers and pilot runs."""
    set_up()
    torch.manual_seed(derive_seed("weights", spec.seed))
    method = build(spec.method, spec.config, data.schema).to(device)
    check(method)
    session = _Session(data, device, report, checkpointer)
    taught = session.teach(method, spec)
    result = session.learn(method, Recipe.of(spec), "", watch, each_epoch)
    result.count(taught)
    return method, result


@dataclass(frozen=True)
class _Session:
    """What all trainings of a run share. A ``stage`` says whose training one is: its checkpoints go by that name."""

    data: TrainingView
    device: torch.device
    report: Report
    checkpointer: Checkpointer | None

    def learn(
        self,
        method: Method,
        recipe: Recipe,
        stage: str,
        watch: Watch = nullcontext,
        each_epoch: EachEpoch = lambda entry, skill: None,
    ) -> Fit:
        """Trains a method, after the pilot runs that it and its balancer want, if any. Returns what all took."""
        before = Fit()
        self._pilots(method, recipe, stage, before)
        self._balancer_pilot(method, recipe, stage, before)
        with watch(method):
            result = self._fit(method, recipe, (stage,), each_epoch)
        result.count(before)
        return result

    def _fit(
        self,
        method: Method,
        recipe: Recipe,
        stage: tuple[str, ...],
        each_epoch: EachEpoch = lambda entry, skill: None,
    ) -> Fit:
        data, kept = self.data, self.checkpointer
        with kept.at(*stage) if kept is not None else nullcontext():
            return fit(
                method, data.train, data.valid, recipe, report=self.report, each_epoch=each_epoch, checkpointer=kept
            )

    def _own_random(self) -> AbstractContextManager[None]:
        """A block that leaves torch's generators as they were."""
        return torch.random.fork_rng([self.device] if self.device.type == "cuda" else [])

    def _pilots(self, method: Method, recipe: Recipe, stage: str, took: Fit) -> None:
        """Trains the copies that the method wants to learn from."""
        with self._own_random():
            copies = method.pilots()
            for i, copied in enumerate(copies):
                own = derive_seed(f"rehearsal {i}", recipe.seed)  # its old name, so that the numbers stay
                torch.manual_seed(own)
                took.count(self._fit(copied.to(self.device), replace(recipe, seed=own), (stage, f"pilot{i}")))
        if copies:
            method.on_pilots(copies)

    def _balancer_pilot(self, method: Method, recipe: Recipe, stage: str, took: Fit) -> None:
        """Trains a copy with the balancer from which the method's own wants weights, and hands it their means."""
        if method.balancer is None or (first := method.balancer.pilot()) is None:
            return
        copied = copy.deepcopy(method)
        copied.balancer = first
        with self._own_random():
            done = self._fit(copied.to(self.device), recipe, (stage, "balancer"))
        took.count(done)
        names = [t.name for t in method.tasks]
        weights = torch.tensor([[entry["weights"][name] for name in names] for entry in done.curve])
        method.balancer.on_pilot(weights.mean(dim=0))

    def teach(self, method: Method, spec: Spec) -> Fit:
        """Hands over the run that a method learns from, if any, newly trained or from the cache.

        Returns what its training took, then or now; draws no random number. Only the declared versions decide
        whether a cached one is the same.
        """
        if not method.teacher:
            return Fit()
        own = _teacher_of(spec)
        key = digest([own.to_dict(), method.meta_share, self.data.meta["sha256"]])
        path = cache.root() / "teachers" / f"{key}.safetensors"
        with self._own_random(), cache.only_one(f"teacher-{key}"):
            torch.manual_seed(derive_seed("teacher", spec.seed))
            model = build(own.method, own.config, self.data.schema).to(self.device)
            model.meta_share = max(model.meta_share, method.meta_share)  # the gap is measured on what neither has seen
            done = _restore(path, model) if path.exists() else self._train_teacher(model, own, path)
        skills: dict[str, float] = {}
        if method.meta_share:
            train, meta = split_off_meta(self.data.train, method.meta_share)
            skills = on_meta(model, meta, constants(train, meta))[1]
        method.on_teacher(model.eval().requires_grad_(False), skills, spec.budget["epochs"])
        return done

    def _train_teacher(self, model: Method, spec: Spec, path: Path) -> Fit:
        name = spec.method
        session = replace(self, report=lambda line: self.report(f"teacher {name}: {line}"))
        try:
            done = session.learn(model, Recipe.of(spec), "teacher")
        except Diverged as error:
            raise Diverged(f"teacher '{name}': {error}") from error
        state = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
        took = {"seconds": str(done.seconds), "rows": str(done.rows)}
        write_atomically(path, safetensors.torch.save(state, took))
        return done


def _teacher_of(spec: Spec) -> Spec:
    """The spec of the run that a method learns from."""
    resolved = config.teachers(spec.config)
    return replace(
        spec,
        method=spec.config["teacher"],
        method_version=spec.parts["teacher"],
        parts=config.teachers(spec.parts),
        config=resolved,
        lm=resolved.get("lm"),
    )


def _restore(path: Path, model: Method) -> Fit:
    try:
        with safetensors.safe_open(path, "pt") as file:
            took = file.metadata()
            model.load_state_dict({k: file.get_tensor(k) for k in file.keys()})  # noqa: SIM118 (no mapping)
        return Fit(seconds=float(took["seconds"]), rows=int(took["rows"]))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise BenchError(f"{path} does not hold this teacher; delete it and run again") from error
