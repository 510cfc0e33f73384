"""A study: what decides its trials, where they are stored, and what each of them tries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import optuna
from filelock import FileLock
from optuna.distributions import distribution_to_json
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from bench.data.load import load
from bench.errors import BenchError
from bench.spec import Spec, derive_seed, digest
from bench.storage import cache
from bench.suites.specify import specify
from bench.training.session import TrainingView
from bench.training.skill import constants, skills
from bench.tuning.space import space_of

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def training_seed(seed: int) -> int:
    """The seed that all trials of a study train with. Final runs use 0, 1, ...: never this one."""
    return derive_seed("tuning", seed)


@dataclass(frozen=True)
class Search:
    """How settings are looked for; all of it decides the trials.

    stage: ``all``, ``settings`` or ``weights``, see ``space_of``; ``weights`` goes on from the best settings of the
    latest study of the stage ``settings``. pareto: each task's skill is an objective of its own. points: values of each
    parameter in the sampler ``grid``.
    """

    sampler: str = "tpe"
    pruner: str = "none"
    seed: int = 0
    stage: str = "all"
    pareto: bool = False
    points: int = 0


@dataclass(frozen=True)
class Budget:
    """When a study has enough: trials, or seconds that all its finished trials have taken; what comes first."""

    trials: int | None = None
    seconds: float | None = None

    def counted(self, known: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Returns the trials of a study that count: the first, and what has ended. Workers on two machines can begin
        more than are wanted; these wait until more are."""
        return [t for t in known if self.trials is None or t.number < self.trials or t.state in FINISHED]

    def spent(self, known: Sequence[FrozenTrial]) -> bool:
        """Whether no further trial may begin."""
        took = sum(t.user_attrs["seconds"] for t in known if t.state in FINISHED)
        enough = self.trials is not None and len(known) >= self.trials
        return enough or (self.seconds is not None and took >= self.seconds)

    def met(self, known: Sequence[FrozenTrial]) -> bool:
        """Whether a study has enough, and what counts has ended."""
        return self.spent(known) and all(t.state in FINISHED for t in self.counted(known))


class Study:
    """One study: what decides its trials, and where it lives.

    spec: trial 0, with ``training_seed``. fixed: the settings that it was made with, as the user gave them. folder: the
    prepared data. storage: URL of a database; by default a journal file beside the outcome. after: the outcome of the
    study before this one, whose best settings all trials have.
    """

    def __init__(
        self,
        spec: Spec,
        fixed: Sequence[str],
        search: Search,
        folder: Path,
        results: Path,
        storage: str | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> None:
        self.spec, self.search, self.storage = spec, search, storage
        self.seen = TrainingView.of(load(folder))
        self.before = dict(after["best"]["settings"]) if after else {}
        self.spent_before = (len(after["trials"]), after["seconds"]) if after else (0, 0.0)
        self.space = space_of(with_settings(spec, self.before), dict.fromkeys(fixed), self.seen, search.stage)
        self.constant = constants(self.seen.train, self.seen.valid)
        self.judged = [*skills(self.seen.schema.tasks, self.constant, self.constant)]  # tasks that have a skill there
        self.about = {
            "spec": spec.to_dict(),
            "fixed": sorted(fixed),
            "parts": with_settings(spec, {**self.before, **self.space.base}).parts,
            "data": self.seen.meta["sha256"],
            "space": {key: json.loads(distribution_to_json(found)) for key, found in self.space.ranges.items()},
            **asdict(search),
            "after": {"key": after["key"], "settings": self.before} if after else None,
        }
        self.key = digest(self.about)
        self.path = folder_of(results, spec) / f"{self.key}.json"

    def settings(self, number: int, params: Mapping[str, Any]) -> dict[str, Any]:
        """What a trial sets beside what is fixed."""
        return {**self.before, **self.space.settings(number, params)}

    def opened(self) -> optuna.Study:
        """Opens the study in its storage, or makes it there. Raises BenchError if the storage cannot be used."""
        log = self.path.with_suffix(".log")
        pruner = _pruner(self.search.pruner, self.spec.budget["epochs"])
        directions = [StudyDirection.MAXIMIZE] * (len(self.judged) if self.search.pareto else 1)
        with cache.only_one(f"study-{self.key}"):
            try:
                storage = _journal(log) if self.storage is None else _database(self.storage)
                return optuna.create_study(
                    storage=storage, study_name=self.key, directions=directions, load_if_exists=True, pruner=pruner
                )
            except Exception as error:  # each database has errors of its own
                line = (str(error).splitlines() or [""])[0]
                where = log if self.storage is None else "the database of --storage"
                raise BenchError(
                    f"{where} cannot be used as a study's storage: {type(error).__name__}: {line}"
                ) from error


def folder_of(results: Path, spec: Spec) -> Path:
    """Where the studies of a method on a data set are."""
    return results / "studies" / spec.dataset / spec.method


def with_settings(spec: Spec, settings: Mapping[str, Any]) -> Spec:
    """The spec with other settings."""
    given = {**spec.config, **settings}
    return specify(
        spec.dataset, spec.method, given=given, knobs=spec.dataset_config, seed=spec.seed, budget=spec.budget
    )


def known_to(opened: optuna.Study) -> list[FrozenTrial]:
    """All trials by now."""
    return opened.get_trials(deepcopy=False)


def _journal(path: Path) -> optuna.storages.BaseStorage:
    """A journal file, for the processes of one machine. A killed one lets go of its lock, and may have left its last
    line half-written, which would hide what follows it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(cache.root() / "locks" / f"journal-{path.stem}.lock")
    with lock:
        data = path.read_bytes() if path.exists() else b""
        if not data.endswith(b"\n"):
            with path.open("ab") as file:
                file.truncate(data.rfind(b"\n") + 1)
    return optuna.storages.JournalStorage(JournalFileBackend(str(path), cast(Any, lock)))


def _database(url: str) -> optuna.storages.BaseStorage:
    """Six workers may well wait for one another's writes in SQLite, which by itself gives up after 5 s."""
    waits = {"connect_args": {"timeout": 120}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    return optuna.storages.RDBStorage(url, engine_kwargs=waits)


def _pruner(name: str, epochs: int) -> optuna.pruners.BasePruner:
    if name == "median":
        return optuna.pruners.MedianPruner()
    return optuna.pruners.HyperbandPruner(max_resource=epochs) if name == "hyperband" else optuna.pruners.NopPruner()
