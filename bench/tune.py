"""Optuna studies: the settings of a method, chosen on the validation part alone (Akiba et al., KDD 2019).

A study belongs to the spec of its trial 0, the defaults with what the user has fixed. It lives in an Optuna storage,
trial by trial, and any number of processes may work on it; its outcome is one JSON file under ``studies/`` in the
results folder.
"""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
import torch
from filelock import FileLock, Timeout
from optuna._hypervolume import compute_hypervolume
from optuna.distributions import distribution_to_json
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from bench import machine, registry
from bench.data import cache
from bench.data.prepare import load
from bench.errors import BenchError
from bench.execute import prepare_all
from bench.progress import Progress, Silent
from bench.run import Report, Seen, fault, specify, trained
from bench.score import score
from bench.spaces import Space, space_of
from bench.spec import Spec, derive_seed, digest, rounded
from bench.store import Store, write_atomically
from bench.train import Diverged, constants, evaluate, skills
from bench.workers import begin, start

SCHEMA = 1
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
IMPORTANCE_TRIALS = 10  # with fewer results a forest over the settings says nothing
POLL_S = 0.5
BEAT_S, SILENCE_S = 10.0, 60.0  # a worker's sign of life; after how long without one its trial goes to another
LIVES = 5  # a trial whose process dies that often is a failure


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
    points: int = 3


@dataclass(frozen=True)
class Budget:
    """When a study has enough: trials, or seconds that all its finished trials have taken; what comes first."""

    trials: int | None = None
    seconds: float | None = None

    def counted(self, known: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Those of a study's trials that count: the first, and what has ended. Workers on two machines can begin more
        than are wanted; these wait until more are."""
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
        self.seen = Seen.of(load(folder))
        self.before = dict(after["best"]["settings"]) if after else {}
        self.spent_before = (len(after["trials"]), after["seconds"]) if after else (0, 0.0)
        self.space = space_of(_at(spec, self.before), dict.fromkeys(fixed), self.seen, search.stage)
        self.constant = constants(self.seen.train, self.seen.valid)
        self.judged = [*skills(self.seen.schema.tasks, self.constant, self.constant)]  # tasks that have a skill there
        self.about = {
            "spec": spec.to_dict(),
            "fixed": sorted(fixed),
            "parts": _at(spec, {**self.before, **self.space.base}).parts,
            "data": self.seen.meta["sha256"],
            "space": {key: json.loads(distribution_to_json(found)) for key, found in self.space.ranges.items()},
            **asdict(search),
            "after": {"key": after["key"], "settings": self.before} if after else None,
        }
        self.key = digest(self.about)
        self.path = _folder(results, spec) / f"{self.key}.json"

    def settings(self, number: int, params: Mapping[str, Any]) -> dict[str, Any]:
        """What a trial sets beside what is fixed."""
        return {**self.before, **self.space.settings(number, params)}

    def opened(self) -> optuna.Study:
        """It in its storage, made if it is new. Raises BenchError if that cannot be used."""
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


def _folder(results: Path, spec: Spec) -> Path:
    return results / "studies" / spec.dataset / spec.method


def _at(spec: Spec, settings: Mapping[str, Any]) -> Spec:
    """The spec with other settings."""
    given = {**spec.config, **settings}
    return specify(
        spec.dataset, spec.method, given=given, knobs=spec.dataset_config, seed=spec.seed, budget=spec.budget
    )


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


def tune(
    spec: Spec,
    fixed: Mapping[str, Any],
    budget: Budget,
    results: Path,
    progress: Progress,
    *,
    search: Search = Search(),
    workers: int = 1,
    storage: str | None = None,
    device: torch.device,
    raw: Path | None = None,
) -> dict[str, Any]:
    """Goes on with the study of a spec until its budget is met; returns its outcome.

    spec: trial 0, with ``training_seed(search.seed)``. fixed: the settings that it was made with. workers: processes
    of this call that work on it; others, here or where ``storage`` can be reached, may work on it at the same time.
    Raises BenchError for what the user must mend; a trial that fails is stored with its reason and stops nothing.
    """
    Store(results).check_writable()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    (folder,) = prepare_all([spec], raw, progress)
    torch.set_num_threads(1)
    after = _latest(results, spec, "settings") if search.stage == "weights" else None
    make = partial(Study, spec, sorted(fixed), search, folder, results, storage, after)
    study = make()
    grid = study.space.grid(search.points) if search.sampler == "grid" else None
    if grid is not None:
        if budget.seconds is None and budget.trials is not None and budget.trials < len(grid) + 1:
            raise BenchError(
                f"the grid has {len(grid)} points: give --trials {len(grid) + 1} (the defaults come first), fewer "
                "--points, or fix settings with -s"
            )
        budget = replace(budget, trials=len(grid) + 1)
    opened = study.opened()
    done = [t for t in budget.counted(_known(opened)) if t.state in FINISHED]
    for known in done:
        progress.end(_job(study, known.number), f"already stored ({known.state.name.lower()})")
    if not budget.met(_known(opened)):
        if workers == 1:
            _work(study, opened, budget, device, progress, uuid.uuid4().hex)
        else:
            _with_workers(make, study, opened, budget, workers, device, progress)
    outcome = _outcome(study, budget.counted(_known(opened)), device)
    if len(outcome["trials"]) > len(done) or not study.path.exists():
        write_atomically(study.path, (json.dumps(outcome, indent=1, allow_nan=False) + "\n").encode())
    return outcome


def _job(study: Study, number: int) -> str:
    return f"{study.spec.dataset} {study.spec.method} trial {number}"


def _known(opened: optuna.Study) -> list[FrozenTrial]:
    return opened.get_trials(deepcopy=False)


def _work(
    study: Study, opened: optuna.Study, budget: Budget, device: torch.device, progress: Progress, name: str
) -> None:
    """One worker: takes trials until the budget is met. ``progress`` hears of what it does itself."""
    with _Worker(study, opened, name) as worker:
        while (trial := worker.next(budget)) is not None:
            progress.begin(job := _job(study, trial.number))
            with worker.alive(trial):
                ending = _tried(study, opened, trial, device, progress.note)
            progress.end(job, ending)


class _Worker:
    """Who works on a trial. It is alive while it holds its lock, if that is on this machine, or while it gives signs of
    life in the database; else its trial goes to another worker, with the same number and parameters."""

    def __init__(self, study: Study, opened: optuna.Study, name: str) -> None:
        self.study, self.opened, self.name = study, opened, name
        self.lock = self._lock(self.name)
        self.heard: dict[int, tuple[Any, float]] = {}  # trial -> its last sign of life, and when it was new to us

    def __enter__(self) -> _Worker:
        self.lock.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # Ctrl-C
            _let_go(self.opened, [self.name])
        Path(self.lock.lock_file).unlink(missing_ok=True)
        self.lock.release()

    def next(self, budget: Budget) -> optuna.Trial | None:
        """A trial whose worker is dead, else a new one; None if the budget is met. Waits for those of others."""
        while True:
            with cache.only_one(f"study-{self.study.key}"):
                known = _known(self.opened)
                running = [t for t in budget.counted(known) if t.state == TrialState.RUNNING]
                for left in running:
                    if self._dead(left) and self._claimed(left):
                        return propose(self.opened, self.study.space, self.study.search, left)
                if not budget.spent(known):
                    trial = self.opened.ask()
                    if budget.trials is None or trial.number < budget.trials:
                        trial.set_user_attr("worker", self.name)
                        return propose(self.opened, self.study.space, self.study.search, trial)
                elif not running:
                    return None
            time.sleep(POLL_S)

    @contextmanager
    def alive(self, trial: optuna.Trial) -> Iterator[None]:
        """Gives signs of life to workers on other machines."""
        ended = threading.Event()

        def beat() -> None:
            count = 0
            while not ended.wait(BEAT_S):
                count += 1
                with suppress(UpdateFinishedTrialError):
                    trial.set_user_attr("beat", [self.name, count])

        if self.study.storage is None:
            yield
            return
        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _dead(self, trial: FrozenTrial) -> bool:
        noted = trial.user_attrs
        if self.study.storage is None and not noted.get("worker"):  # all that work on a journal are here
            return True
        path = Path((lock := self._lock(str(noted.get("worker")))).lock_file)
        if path.exists() or self.study.storage is None:
            try:
                lock.acquire(blocking=False)
            except Timeout:
                return False
            lock.release()
            path.unlink(missing_ok=True)
            return True
        sign, now = (noted.get("worker"), noted.get("beat"), len(trial.intermediate_values)), time.monotonic()
        if self.heard.get(trial.number, (None, 0.0))[0] != sign:
            self.heard[trial.number] = sign, now
        return now - self.heard[trial.number][1] > SILENCE_S

    def _claimed(self, trial: FrozenTrial) -> bool:
        """Takes the trial over, unless it has cost too many processes their lives: then it fails."""
        noted = trial.user_attrs
        deaths = noted.get("deaths", 0) + bool(noted.get("worker"))
        note = partial(self.opened._storage.set_trial_user_attr, trial._trial_id)
        with suppress(UpdateFinishedTrialError):
            note("worker", self.name)
            note("deaths", deaths)
            if deaths < LIVES:
                return True
            note("reason", f"failed: the process that ran it died {LIVES} times, perhaps for want of memory")
            note("seconds", 0.0)
            self.opened._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        return False

    def _lock(self, name: str) -> FileLock:
        return FileLock(cache.root() / "locks" / f"tuning-{name}.lock")


def _with_workers(
    make: Callable[[], Study],
    study: Study,
    opened: optuna.Study,
    budget: Budget,
    workers: int,
    device: torch.device,
    progress: Progress,
) -> None:
    """Keeps ``workers`` processes at it until the budget is met, and tells what they have done. A process that dies is
    replaced; trials know how often that happened to them. Raises BenchError if processes die without trying one."""
    context = multiprocessing.get_context("spawn")
    shown = {t.number for t in _known(opened) if t.state in FINISHED}
    begun: set[int] = set()

    def show() -> None:
        for trial in budget.counted(_known(opened)):
            if trial.number not in begun | shown and "worker" in trial.user_attrs:
                begun.add(trial.number)
                progress.begin(_job(study, trial.number))
            if trial.number not in shown and trial.state in FINISHED:
                shown.add(trial.number)
                progress.end(_job(study, trial.number), _ending(trial))

    def started(name: str) -> Any:
        process = context.Process(target=_worker_process, args=(make, registry.plugins(), budget, device, name))
        start(process)
        return process

    names = [uuid.uuid4().hex for _ in range(workers)]
    processes = [started(name) for name in names]
    try:
        deaths = 0
        while any(process.is_alive() for process in processes) or not budget.met(_known(opened)):
            time.sleep(POLL_S)
            before = len(shown)
            show()
            deaths = 0 if len(shown) > before else deaths
            for i, process in enumerate(processes):
                if process.exitcode:
                    deaths += 1
                    if deaths > workers * LIVES:
                        raise BenchError(
                            f"processes of this study die one after the other (exit code {process.exitcode}); finished "
                            "trials are stored: run the same command again with fewer --workers"
                        )
                    names[i] = uuid.uuid4().hex
                    processes[i] = started(names[i])
        show()
    finally:
        for process in processes:
            process.terminate()
            process.join()
        _let_go(opened, names)


def _let_go(opened: optuna.Study, names: Sequence[str]) -> None:
    """The trials of workers that were stopped are free, and that does not count against them."""
    for trial in _known(opened):
        if trial.state == TrialState.RUNNING and trial.user_attrs.get("worker") in names:
            opened._storage.set_trial_user_attr(trial._trial_id, "worker", "")


def _worker_process(
    make: Callable[[], Study], plugins: Sequence[Path], budget: Budget, device: torch.device, name: str
) -> None:
    begin(plugins)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = make()
    _work(study, study.opened(), budget, device, Silent(None), name)


def propose(opened: optuna.Study, space: Space, search: Search, trial: optuna.Trial | FrozenTrial) -> optuna.Trial:
    """The trial with its parameters.

    Each number, and each parameter of it, has its own seed. So what is proposed depends on the trials before, and not
    on where in between the process began. Only ``gp`` proposes something else if it was killed while it proposed.
    Trial 0 is the defaults, and in the sampler ``grid`` the number says the point.
    """
    number, storage = trial.number, opened._storage
    fixed: dict[str, Any] = space.start if number == 0 else {}
    if number and search.sampler == "grid":
        fixed = space.grid(search.points)[number - 1]
    for key, value in fixed.items():
        own = space.ranges[key]
        storage.set_trial_param(trial._trial_id, key, own.to_internal_repr(value), own)
    opened.sampler = _sampler(search.sampler, search.seed, number)
    found = optuna.trial.Trial(opened, trial._trial_id)
    if not fixed:
        _ = found.relative_params  # now, with this seed, whatever is already there
    for key, own in space.ranges.items():
        opened.sampler = _sampler(search.sampler, search.seed, number, key)
        found._suggest(key, own)
    return found


def _sampler(name: str, *parts: str | int) -> optuna.samplers.BaseSampler:
    seed = derive_seed("sampler", *parts) % 2**32
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    if name == "cmaes":
        return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    return optuna.samplers.RandomSampler(seed=seed)


def _pruner(name: str, epochs: int) -> optuna.pruners.BasePruner:
    if name == "median":
        return optuna.pruners.MedianPruner()
    return optuna.pruners.HyperbandPruner(max_resource=epochs) if name == "hyperband" else optuna.pruners.NopPruner()


def _tried(study: Study, opened: optuna.Study, trial: optuna.Trial, device: torch.device, report: Report) -> str:
    """Trains and judges a trial and ends it in the study; returns how it ended, in words."""
    try:
        _try(study, opened, trial, device, report)
    except UpdateFinishedTrialError:
        return "was finished by another worker"
    return _ending(_known(opened)[trial.number])


def _try(study: Study, opened: optuna.Study, trial: optuna.Trial, device: torch.device, report: Report) -> None:
    seen, tasks = study.seen, study.seen.schema.tasks
    spec = _at(study.spec, study.settings(trial.number, trial.params))
    before = max(_known(opened)[trial.number].intermediate_values, default=0)

    def each_epoch(entry: dict[str, Any], skill: float) -> None:
        epoch = entry["epoch"]
        if epoch < before or study.search.pareto:  # known from before an interruption, and it went on from there
            return
        if epoch > before:
            trial.report(skill, epoch)
        if epoch < spec.budget["epochs"] and trial.should_prune():
            trial.set_user_attr("valid", entry["valid"])
            raise optuna.TrialPruned(f"after epoch {epoch}")

    values, reason, begin = None, None, time.perf_counter()
    try:
        method, fitted = trained(spec, seen, device, report, each_epoch=each_epoch)
        try:
            scores = score(seen.valid, evaluate(method, seen.valid), primary_only=True)
        except ValueError as error:
            raise Diverged(str(error)) from error
        found = skills(tasks, scores, study.constant)
        values = [found[task] for task in study.judged]
        trial.set_user_attr("valid", {t.name: scores[t.name][t.metrics[0]] for t in tasks})
        trial.set_user_attr("best_epoch", fitted.best_epoch)
        state = TrialState.COMPLETE
    except UpdateFinishedTrialError:
        raise
    except optuna.TrialPruned as pruned:
        state, reason = TrialState.PRUNED, str(pruned)
    except BenchError as error:  # a combination that the method does not accept
        state, reason = TrialState.FAIL, f"failed: {error}"
    except Exception as error:  # as in a run: whatever goes wrong is the trial's result
        state, reason = TrialState.FAIL, "{}: {}".format(*fault(error))
    trial.set_user_attr("reason", reason)
    trial.set_user_attr("seconds", round(time.perf_counter() - begin, 3))
    if values is not None and not study.search.pareto:
        values = [float(np.mean(values)) if values else 0.0]
    opened.tell(trial, values, state=state, skip_if_finished=True)


def _ending(trial: FrozenTrial) -> str:
    seconds = f"{trial.user_attrs['seconds']:.1f} s"
    if trial.state == TrialState.COMPLETE:
        return f"skill {np.mean(trial.values):.4f}, {seconds}"
    reason = trial.user_attrs["reason"]
    return f"pruned {reason}, {seconds}" if trial.state == TrialState.PRUNED else str(reason)


def _outcome(study: Study, counted: Sequence[FrozenTrial], device: torch.device) -> dict[str, Any]:
    finished = [t for t in counted if t.state in FINISHED]
    complete = [t for t in finished if t.state == TrialState.COMPLETE]
    best = None
    if complete:
        first = max(complete, key=lambda t: (np.mean(t.values), -t.number))
        settings = study.settings(first.number, first.params)
        parts = _at(study.spec, settings).parts
        best = {"trial": first.number, "value": float(np.mean(first.values)), "settings": settings, "parts": parts}
    outcome = {
        "schema": SCHEMA,
        "key": study.key,
        "study": study.about,
        "trials": [_told(study, t) for t in finished],
        "best": best,
        "importances": _importances(study, finished) if len(complete) >= IMPORTANCE_TRIALS else {},
        "seconds": round(sum(t.user_attrs["seconds"] for t in finished), 3),
        "code": machine.code_version(registry.ROOT),
        "env": {**machine.environment(device), "optuna": version("optuna")},
        "stop": datetime.now(UTC).isoformat(),
    }
    trials, seconds = study.spent_before
    outcome["cost"] = {"tuning_trials": len(finished) + trials, "tuning_s": round(outcome["seconds"] + seconds, 3)}
    if study.search.pareto:
        outcome |= front(complete)
    return outcome


def _importances(study: Study, finished: Sequence[FrozenTrial]) -> dict[str, float]:
    """Share of each parameter in the variance of the mean skill."""
    judged = optuna.create_study(direction="maximize")
    for trial in finished:
        if trial.state == TrialState.COMPLETE:
            judged.add_trial(
                optuna.trial.create_trial(
                    params=trial.params, distributions=trial.distributions, value=float(np.mean(trial.values))
                )
            )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    found: dict[str, float] = rounded(optuna.importance.get_param_importances(judged, evaluator=evaluator))
    return found


def front(complete: Sequence[FrozenTrial]) -> dict[str, Any]:
    """Numbers of the trials of which no other is as good in all tasks and better in one, and the hypervolume of their
    skills above chance (Zitzler and Thiele, IEEE TEC 1999): 1 would be perfect in all tasks."""
    values = np.array([t.values for t in complete])
    if not len(values):
        return {"front": [], "hypervolume": 0.0}
    beaten = [((values >= own).all(axis=1) & (values > own).any(axis=1)).any() for own in values]
    above = values[(values > 0).all(axis=1)]
    volume = compute_hypervolume(-above, np.zeros(values.shape[1])) if len(above) else 0.0
    return {
        "front": [t.number for t, bad in zip(complete, beaten, strict=True) if not bad],
        "hypervolume": float(volume),
    }


def _told(study: Study, trial: FrozenTrial) -> dict[str, Any]:
    noted, complete = trial.user_attrs, trial.state == TrialState.COMPLETE
    told = {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "reason": noted["reason"],
        "params": trial.params,
        "settings": study.settings(trial.number, trial.params),
        "value": float(np.mean(trial.values)) if complete else None,
        "valid": noted.get("valid"),
        "best_epoch": noted.get("best_epoch"),
        "skills": {str(epoch): value for epoch, value in sorted(trial.intermediate_values.items())},
        "seconds": noted["seconds"],
    }
    if study.search.pareto:
        told["values"] = dict(zip(study.judged, trial.values, strict=True)) if complete else None
    return told


def tuned(results: Path, specs: Sequence[Spec]) -> tuple[list[Spec], dict[str, dict[str, Any]]]:
    """The specs with the settings that the latest study of each has found best, and by key what it cost to find them.

    Raises BenchError if a spec has no such study.
    """
    found, costs = [], {}
    for spec in specs:
        outcome = _latest(results, spec)
        found.append(own := _at(spec, outcome["best"]["settings"]))
        costs[own.key] = outcome["cost"]
    return found, costs


def _latest(results: Path, spec: Spec, stage: str | None = None) -> dict[str, Any]:
    """The outcome of the latest study that began with this spec, whatever its seed; of a ``stage``, if one is named."""
    wanted = {**spec.to_dict(), "seed": None}
    found = []
    for path in sorted(_folder(results, spec).glob("*.json")):
        outcome = _read(path)
        chosen, same = outcome["best"], {**outcome["study"]["spec"], "seed": None} == wanted
        same &= stage in (None, outcome["study"]["stage"])
        if same and chosen and _at(spec, chosen["settings"]).parts == chosen["parts"]:
            found.append(outcome)
    if not found:
        budget = ", ".join(f"{key} {value}" for key, value in spec.budget.items())
        raise BenchError(
            f"{results / 'studies'} has no finished study of {spec.method} on {spec.dataset} with these settings and "
            f"{budget}; `bench tune -d {spec.dataset} -m {spec.method}{f' --stage {stage}' if stage else ''} --trials "
            "20` makes one (with the same -s, --data, --domains, --epochs and --patience)"
        )
    return max(found, key=lambda outcome: (outcome["stop"], outcome["key"]))


def _read(path: Path) -> dict[str, Any]:
    try:
        outcome: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if outcome["schema"] == SCHEMA and outcome["key"] == digest(outcome["study"]) == path.stem:
            return outcome
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{path} cannot be read as a study ({error}); move it away and tune again") from error
    raise BenchError(f"{path} is no study of schema {SCHEMA} under its own key; move it away and tune again")


def table(outcome: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The best trial beside the defaults: name, value there and here, of skill and tasks and of what it set anew."""
    first, chosen = outcome["trials"][0], outcome["trials"][outcome["best"]["trial"]]
    rows = {"mean skill": (first["value"], chosen["value"])}
    rows |= {task: ((first["valid"] or {}).get(task), value) for task, value in chosen["valid"].items()}
    for key, value in chosen["settings"].items():
        default = outcome["study"]["spec"]["config"].get(key)
        several = value if isinstance(value, dict) else None
        found = {f"{key}.{k}": (None, v) for k, v in several.items()} if several else {key: (default, value)}
        rows |= {name: pair for name, pair in found.items() if pair[0] != pair[1]}
    return [(name, _shown(there), _shown(here)) for name, (there, here) in rows.items()]


def _shown(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
