"""Optuna studies: the settings of a method, chosen on the validation part alone (Akiba et al., KDD 2019).

A study belongs to the spec of its trial 0, the defaults with what the user has fixed. It lives in an Optuna storage,
trial by trial, and any number of processes may work on it; its outcome is one JSON file under ``studies/`` in the
results folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from bench import machine, registry
from bench.errors import BenchError
from bench.execute import prepare_all
from bench.gains import hypervolume
from bench.progress import Progress
from bench.spec import Spec, rounded
from bench.store import STUDY_SCHEMA, Store, read_study, write_atomically
from bench.study import FINISHED, Budget, Search, Study, folder_of, known_to, with_settings
from bench.trials import job_name, work, work_in_processes

IMPORTANCE_TRIALS = 10  # with fewer results a forest over the settings says nothing


def tune(
    spec: Spec,
    fixed: Mapping[str, Any],
    budget: Budget,
    results: Path,
    progress: Progress,
    *,
    search: Search,
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
    done = [t for t in budget.counted(known_to(opened)) if t.state in FINISHED]
    for known in done:
        progress.end(job_name(study, known.number), f"already stored ({known.state.name.lower()})")
    if not budget.met(known_to(opened)):
        if workers == 1:
            work(study, opened, budget, device, progress)
        else:
            work_in_processes(make, study, opened, budget, workers, device, progress)
    outcome = _outcome(study, budget.counted(known_to(opened)), device)
    if len(outcome["trials"]) > len(done) or not study.path.exists():
        write_atomically(study.path, (json.dumps(outcome, indent=1, allow_nan=False) + "\n").encode())
    return outcome


def _outcome(study: Study, counted: Sequence[FrozenTrial], device: torch.device) -> dict[str, Any]:
    finished = [t for t in counted if t.state in FINISHED]
    complete = [t for t in finished if t.state == TrialState.COMPLETE]
    best = None
    if complete:
        first = max(complete, key=lambda t: (np.mean(t.values), -t.number))
        settings = study.settings(first.number, first.params)
        parts = with_settings(study.spec, settings).parts
        best = {"trial": first.number, "value": float(np.mean(first.values)), "settings": settings, "parts": parts}
    outcome = {
        "schema": STUDY_SCHEMA,
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
    skills above chance: 1 would be perfect in all tasks."""
    values = np.array([t.values for t in complete])
    if not len(values):
        return {"front": [], "hypervolume": 0.0}
    beaten = [((values >= own).all(axis=1) & (values > own).any(axis=1)).any() for own in values]
    return {
        "front": [t.number for t, bad in zip(complete, beaten, strict=True) if not bad],
        "hypervolume": hypervolume(values, np.zeros(values.shape[1])),
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
        found.append(own := with_settings(spec, outcome["best"]["settings"]))
        costs[own.key] = outcome["cost"]
    return found, costs


def _latest(results: Path, spec: Spec, stage: str | None = None) -> dict[str, Any]:
    """The outcome of the latest study that began with this spec, whatever its seed; of a ``stage``, if one is named."""
    wanted = {**spec.to_dict(), "seed": None}
    found = []
    for path in sorted(folder_of(results, spec).glob("*.json")):
        outcome = read_study(path)
        chosen, same = outcome["best"], {**outcome["study"]["spec"], "seed": None} == wanted
        same &= stage in (None, outcome["study"]["stage"])
        if same and chosen and with_settings(spec, chosen["settings"]).parts == chosen["parts"]:
            found.append(outcome)
    if not found:
        budget = ", ".join(f"{key} {value}" for key, value in spec.budget.items())
        raise BenchError(
            f"{results / 'studies'} has no finished study of {spec.method} on {spec.dataset} with these settings and "
            f"{budget}; `bench tune -d {spec.dataset} -m {spec.method}{f' --stage {stage}' if stage else ''} --trials "
            "20` makes one (with the same -s, --data, --domains, --epochs and --patience)"
        )
    return max(found, key=lambda outcome: (outcome["stop"], outcome["key"]))


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
