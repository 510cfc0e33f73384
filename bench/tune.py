"""Optuna studies: the settings of a method, chosen on the validation part alone (Akiba et al., KDD 2019).

A study belongs to the spec of its trial 0, the defaults with what the user has fixed. It lives in an Optuna storage,
trial by trial; its outcome is one JSON file under ``studies/`` in the results folder.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from bench import config, machine, registry
from bench.data import cache
from bench.data.prepare import load
from bench.errors import BenchError
from bench.execute import prepare_all
from bench.progress import Progress
from bench.run import Report, Seen, fault, specify, trained
from bench.score import score
from bench.spec import Spec, derive_seed, digest, rounded
from bench.store import Store, write_atomically
from bench.train import Diverged, constants, evaluate, mean_skill

SCHEMA = 1
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
IMPORTANCE_TRIALS = 10  # with fewer results a forest over the settings says nothing
WEIGHT = FloatDistribution(1e-6, 1 - 1e-6)  # u of a task's loss weight, which is -log u over the sum of all tasks'
EQUAL = math.exp(-1)


def training_seed(seed: int) -> int:
    """The seed that all trials of a study train with. Final runs use 0, 1, ...: never this one."""
    return derive_seed("tuning", seed)


@dataclass(frozen=True)
class Space:
    """What is searched, by parameter: its range and the value of trial 0.

    weighted: the settings whose value is a loss weight for each task; their parameters are ``SETTING.TASK``. base: what
    a trial sets so that there are such weights.
    """

    ranges: dict[str, BaseDistribution]
    start: dict[str, Any]
    weighted: tuple[str, ...]
    base: dict[str, str]

    def settings(self, number: int, params: Mapping[str, Any]) -> dict[str, Any]:
        """What a trial sets beside what is fixed. Trial 0 sets nothing: it is the defaults."""
        if number == 0:
            return {}
        found = {**params, **self.base}
        for key in self.weighted:
            us = {k: found.pop(k) for k in params if k.startswith(f"{key}.")}
            found[key] = simplex({k.removeprefix(f"{key}."): u for k, u in us.items()})
        return dict(rounded(found))


def simplex(us: Mapping[str, float]) -> dict[str, float]:
    """Positive weights of sum 1 from values in (0, 1), -log u over the sum of all: uniform values give weights that are
    uniform on the simplex, and a search sees variables without a constraint."""
    total = sum(-math.log(u) for u in us.values())
    return {key: -math.log(u) / total for key, u in us.items()}


def space_of(spec: Spec, fixed: Mapping[str, Any], seen: Seen) -> Space:
    """The space of a method on a data set: its own, its trunk's and balancer's, the common one, and the loss weights
    where the balancer is ``uniform`` by default or ``static``. What is fixed is not searched.

    Raises BenchError if the method declines such data, does not accept what is fixed, or leaves nothing to search.
    """
    if reason := config.declines(spec.method, spec.config, seen.schema):
        raise BenchError(f"method '{spec.method}' declines data set '{spec.dataset}': {reason}")
    model = config.build(spec.method, spec.config, seen.schema)
    learns = any(p.requires_grad for p in model.parameters())
    shares = any(len(tasks) > 1 for tasks, _ in model.parts())
    cls = registry.load_method(spec.method)
    declared = {**cls.space, **(config.COMMON_SPACE if learns else {})}
    defaults = {**config.settings(cls), **spec.config}
    if "trunk" in spec.config:
        _add("trunk", registry.load_method(spec.config["trunk"]), declared, defaults)
    base: dict[str, str] = {}
    weighted = []
    if learns and shares:
        if "balancer" not in fixed and spec.config["balancer"] == "uniform":
            base = {"balancer": "static"}
        for key in ("balancer", "balancer.of"):
            if name := base.get(key, spec.config.get(key)):
                _add(key, registry.load_balancer(name), declared, defaults)
                if name == "static" and f"{key}.weights" not in fixed:
                    weighted.append(f"{key}.weights")
    ranges = {k: v for k, v in declared.items() if k not in fixed and not v.single()}
    ranges = {k: _around(v, defaults[k]) for k, v in ranges.items()}
    start = {k: defaults[k] for k in ranges}
    for key in weighted:
        for task in seen.schema.tasks:
            ranges[f"{key}.{task.name}"], start[f"{key}.{task.name}"] = WEIGHT, EQUAL
    if not ranges:
        raise BenchError(f"method '{spec.method}' has nothing left to tune; fix fewer settings with -s")
    return Space(ranges, start, tuple(weighted), base)


def _add(key: str, part: type[Any], declared: dict[str, BaseDistribution], defaults: dict[str, Any]) -> None:
    declared |= {f"{key}.{own}": found for own, found in part.space.items()}
    for own, value in config.settings(part).items():
        defaults.setdefault(f"{key}.{own}", value)


def _around(found: BaseDistribution, default: Any) -> BaseDistribution:
    """The range, made to hold the default: a method may have its own for a common setting."""
    with suppress(ValueError):
        if found._contains(found.to_internal_repr(default)):
            return found
    if isinstance(found, CategoricalDistribution):
        return CategoricalDistribution([*found.choices, default])
    assert isinstance(found, (FloatDistribution, IntDistribution))
    return type(found)(min(found.low, default), max(found.high, default), log=found.log)


def tune(
    spec: Spec,
    fixed: Mapping[str, Any],
    trials: int,
    results: Path,
    progress: Progress,
    *,
    sampler: str,
    pruner: str,
    seed: int,
    storage: str | None = None,
    device: torch.device,
    raw: Path | None = None,
) -> dict[str, Any]:
    """Goes on with the study of a spec until it has ``trials`` finished trials; returns its outcome.

    spec: trial 0, with ``training_seed(seed)``. fixed: the settings that it was made with. storage: URL of a database;
    by default a journal file beside the outcome. One process works on a study at a time. Raises BenchError for what
    the user must mend; a trial that fails is stored with its reason and stops nothing.
    """
    Store(results).check_writable()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    (folder,) = prepare_all([spec], raw, progress)
    torch.set_num_threads(1)
    seen = Seen.of(load(folder))
    space = space_of(spec, fixed, seen)
    about = {
        "spec": spec.to_dict(),
        "fixed": sorted(fixed),
        "parts": _at(spec, space.base).parts,
        "data": seen.meta["sha256"],
        "space": {key: json.loads(distribution_to_json(found)) for key, found in space.ranges.items()},
        "sampler": sampler,
        "pruner": pruner,
        "seed": seed,
    }
    key = digest(about)
    path = results / "studies" / spec.dataset / spec.method / f"{key}.json"
    of = f"{spec.dataset} {spec.method} trial "
    with cache.only_one(f"study-{key}"):
        study = _opened(storage, path.with_suffix(".log"), key, _pruner(pruner, spec.budget["epochs"]))
        study.enqueue_trial(space.start, skip_if_exists=True)
        done = [t for t in study.get_trials(deepcopy=False) if t.state in FINISHED]
        for known in done[:trials]:
            progress.end(f"{of}{known.number}", f"already stored ({known.state.name.lower()})")
        for _ in range(trials - len(done)):
            trial = _next(study, space, sampler, seed)
            progress.begin(job := f"{of}{trial.number}")
            own = _at(spec, space.settings(trial.number, trial.params))
            progress.end(job, _tried(study, trial, own, seen, device, progress.note))
        outcome = _outcome(study, key, about, space, spec, device)
        if trials > len(done) or not path.exists():
            write_atomically(path, (json.dumps(outcome, indent=1, allow_nan=False) + "\n").encode())
    return outcome


def _at(spec: Spec, settings: Mapping[str, Any]) -> Spec:
    """The spec with other settings."""
    given = {**spec.config, **settings}
    return specify(
        spec.dataset, spec.method, given=given, knobs=spec.dataset_config, seed=spec.seed, budget=spec.budget
    )


def _opened(url: str | None, path: Path, name: str, pruner: optuna.pruners.BasePruner) -> optuna.Study:
    try:
        if url is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            _mend(path)
            backend = JournalFileBackend(str(path))
            storage: optuna.storages.BaseStorage = optuna.storages.JournalStorage(backend)
        else:
            storage = optuna.storages.RDBStorage(url)
        return optuna.create_study(
            storage=storage, study_name=name, direction="maximize", load_if_exists=True, pruner=pruner
        )
    except Exception as error:  # each database has errors of its own
        line = (str(error).splitlines() or [""])[0]
        where = path if url is None else "the database of --storage"
        raise BenchError(f"{where} cannot be used as a study's storage: {type(error).__name__}: {line}") from error


def _mend(path: Path) -> None:
    """Clears what a killed process left: its lock, and a last line half-written, which would hide what follows it."""
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if path.exists():
        data = path.read_bytes()
        if not data.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)


def _sampler(name: str, *parts: str | int) -> optuna.samplers.BaseSampler:
    seed = derive_seed("sampler", *parts) % 2**32
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)


def _pruner(name: str, epochs: int) -> optuna.pruners.BasePruner:
    if name == "median":
        return optuna.pruners.MedianPruner()
    return optuna.pruners.HyperbandPruner(max_resource=epochs) if name == "hyperband" else optuna.pruners.NopPruner()


def _next(study: optuna.Study, space: Space, sampler: str, seed: int) -> optuna.Trial:
    """The next trial with its parameters: one that an interruption has left, else a new one.

    Each number, and each parameter of it, has its own seed. So what is proposed depends on the trials before, and not
    on where in between the process began. Only ``gp`` proposes something else if it was killed while it proposed.
    """
    known = study.get_trials(deepcopy=False)
    left = next((t for t in known if t.state == TrialState.RUNNING), None)
    number = left.number if left else sum(t.state != TrialState.WAITING for t in known)
    study.sampler = _sampler(sampler, seed, number)
    trial = optuna.trial.Trial(study, left._trial_id) if left else study.ask()
    _ = trial.relative_params  # now, with this seed, whatever is already there
    for key, found in space.ranges.items():
        study.sampler = _sampler(sampler, seed, number, key)
        trial._suggest(key, found)
    return trial


def _tried(
    study: optuna.Study,
    trial: optuna.Trial,
    spec: Spec,
    seen: Seen,
    device: torch.device,
    report: Report,
) -> str:
    """Trains and judges a trial and ends it in the study; returns how it ended, in words."""
    before = max(study.get_trials(deepcopy=False)[trial.number].intermediate_values, default=0)

    def each_epoch(entry: dict[str, Any], skill: float) -> None:
        epoch = entry["epoch"]
        if epoch < before:  # known from before an interruption, and it went on from there
            return
        if epoch > before:
            trial.report(skill, epoch)
        if epoch < spec.budget["epochs"] and trial.should_prune():
            trial.set_user_attr("valid", entry["valid"])
            raise optuna.TrialPruned(f"after epoch {epoch}")

    value, reason, begin = None, None, time.perf_counter()
    try:
        method, fitted = trained(spec, seen, device, report, each_epoch=each_epoch)
        try:
            scores = score(seen.valid, evaluate(method, seen.valid), primary_only=True)
        except ValueError as error:
            raise Diverged(str(error)) from error
        value = mean_skill(seen.schema.tasks, scores, constants(seen.train, seen.valid))
        trial.set_user_attr("valid", {t.name: scores[t.name][t.metrics[0]] for t in seen.schema.tasks})
        trial.set_user_attr("best_epoch", fitted.best_epoch)
        state = TrialState.COMPLETE
    except optuna.TrialPruned as pruned:
        state, reason = TrialState.PRUNED, str(pruned)
    except BenchError as error:  # a combination that the method does not accept
        state, reason = TrialState.FAIL, f"failed: {error}"
    except Exception as error:  # as in a run: whatever goes wrong is the trial's result
        state, reason = TrialState.FAIL, "{}: {}".format(*fault(error))
    trial.set_user_attr("reason", reason)
    trial.set_user_attr("seconds", seconds := round(time.perf_counter() - begin, 3))
    study.tell(trial, value, state=state)
    if state == TrialState.COMPLETE:
        return f"skill {value:.4f}, {seconds:.1f} s"
    return f"pruned {reason}, {seconds:.1f} s" if state == TrialState.PRUNED else str(reason)


def _outcome(
    study: optuna.Study,
    key: str,
    about: dict[str, Any],
    space: Space,
    spec: Spec,
    device: torch.device,
) -> dict[str, Any]:
    finished = [t for t in study.get_trials(deepcopy=False) if t.state in FINISHED]
    complete = [t for t in finished if t.state == TrialState.COMPLETE]
    best = None
    if complete:
        first = max(complete, key=lambda t: (t.value, -t.number))
        settings = space.settings(first.number, first.params)
        parts = _at(spec, settings).parts
        best = {"trial": first.number, "value": first.value, "settings": settings, "parts": parts}
    importances = {}
    if len(complete) >= IMPORTANCE_TRIALS:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        importances = rounded(optuna.importance.get_param_importances(study, evaluator=evaluator))
    return {
        "schema": SCHEMA,
        "key": key,
        "study": about,
        "trials": [_told(t, space) for t in finished],
        "best": best,
        "importances": importances,
        "seconds": round(sum(t.user_attrs["seconds"] for t in finished), 3),
        "code": machine.code_version(registry.ROOT),
        "env": {**machine.environment(device), "optuna": version("optuna")},
        "stop": datetime.now(UTC).isoformat(),
    }


def _told(trial: FrozenTrial, space: Space) -> dict[str, Any]:
    noted = trial.user_attrs
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "reason": noted["reason"],
        "params": trial.params,
        "settings": space.settings(trial.number, trial.params),
        "value": trial.value if trial.state == TrialState.COMPLETE else None,
        "valid": noted.get("valid"),
        "best_epoch": noted.get("best_epoch"),
        "skills": {str(epoch): value for epoch, value in sorted(trial.intermediate_values.items())},
        "seconds": noted["seconds"],
    }


def tuned(results: Path, specs: Sequence[Spec]) -> tuple[list[Spec], dict[str, dict[str, Any]]]:
    """The specs with the settings that the latest study of each has found best, and by key what it cost to find them.

    Raises BenchError if a spec has no such study.
    """
    found, costs = [], {}
    for spec in specs:
        outcome = _latest(results, spec)
        found.append(own := _at(spec, outcome["best"]["settings"]))
        costs[own.key] = {"tuning_trials": len(outcome["trials"]), "tuning_s": outcome["seconds"]}
    return found, costs


def _latest(results: Path, spec: Spec) -> dict[str, Any]:
    wanted = {**spec.to_dict(), "seed": None}
    found = []
    for path in sorted((results / "studies" / spec.dataset / spec.method).glob("*.json")):
        outcome = _read(path)
        chosen, same = outcome["best"], {**outcome["study"]["spec"], "seed": None} == wanted
        if same and chosen and _at(spec, chosen["settings"]).parts == chosen["parts"]:
            found.append(outcome)
    if not found:
        budget = ", ".join(f"{key} {value}" for key, value in spec.budget.items())
        raise BenchError(
            f"{results / 'studies'} has no finished study of {spec.method} on {spec.dataset} with these settings and "
            f"{budget}; `bench tune -d {spec.dataset} -m {spec.method} --trials 20` makes one (with the same -s, "
            "--data, --domains, --epochs and --patience)"
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
