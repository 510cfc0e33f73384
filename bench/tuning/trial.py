"""One trial of a study: a training, judged on the validation part."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from bench.errors import BenchError
from bench.execution.record import fault
from bench.training.loop import Report
from bench.training.predict import predict
from bench.training.score import score
from bench.training.session import trained
from bench.training.skill import skills
from bench.tuning.study import Study, known_to, with_settings


def make_trial(study: Study, opened: optuna.Study, trial: optuna.Trial, device: torch.device, report: Report) -> str:
    """Trains and judges a trial and ends it in the study; returns how it ended, in words."""
    try:
        _judge(study, opened, trial, device, report)
    except UpdateFinishedTrialError:
        return "was finished by another worker"
    return ending_of(known_to(opened)[trial.number])


def _judge(study: Study, opened: optuna.Study, trial: optuna.Trial, device: torch.device, report: Report) -> None:
    seen, tasks = study.seen, study.seen.schema.tasks
    spec = with_settings(study.spec, study.settings(trial.number, trial.params))
    before = max(known_to(opened)[trial.number].intermediate_values, default=0)

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
        scores = score(seen.valid, predict(method, seen.valid), primary_only=True)
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


def job_name(study: Study, number: int) -> str:
    """A trial, as progress calls it."""
    return f"{study.spec.dataset} {study.spec.method} trial {number}"


def ending_of(trial: FrozenTrial) -> str:
    """Says how a trial ended, in words for the progress."""
    seconds = f"{trial.user_attrs['seconds']:.1f} s"
    if trial.state == TrialState.COMPLETE:
        return f"skill {np.mean(trial.values):.4f}, {seconds}"
    reason = trial.user_attrs["reason"]
    return f"pruned {reason}, {seconds}" if trial.state == TrialState.PRUNED else str(reason)
