"""What a study has found: best trial, importances, front of the tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from bench import registry
from bench.machine.provenance import code_version, environment
from bench.metrics.multitask import hypervolume
from bench.spec import rounded
from bench.storage.studies import STUDY_SCHEMA
from bench.tuning.study import FINISHED, Study, with_settings

IMPORTANCE_TRIALS = 10  # with fewer results a forest over the settings says nothing


def outcome_of(study: Study, counted: Sequence[FrozenTrial], device: torch.device) -> dict[str, Any]:
    """Returns what is stored of a study: its trials, the best of them, importances, cost and where it was made."""
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
        "trials": [_summary(study, t) for t in finished],
        "best": best,
        "importances": _importances(study, finished) if len(complete) >= IMPORTANCE_TRIALS else {},
        "seconds": round(sum(t.user_attrs["seconds"] for t in finished), 3),
        "code": code_version(registry.ROOT),
        "env": {**environment(device), "optuna": version("optuna")},
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


def _summary(study: Study, trial: FrozenTrial) -> dict[str, Any]:
    noted, complete = trial.user_attrs, trial.state == TrialState.COMPLETE
    summary = {
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
        summary["values"] = dict(zip(study.judged, trial.values, strict=True)) if complete else None
    return summary


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
