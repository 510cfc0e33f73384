"""Optuna studies: the settings of a method, chosen on the validation part alone (Akiba et al., KDD 2019).

A study belongs to the spec of its trial 0, the defaults with what the user has fixed. It lives in an Optuna storage,
trial by trial, and any number of processes may work on it; its outcome is one JSON file under ``studies/`` in the
results folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import torch

from bench.errors import BenchError
from bench.execution.progress import Progress
from bench.execution.ready import prepare_all
from bench.execution.record import check_code
from bench.spec import Spec
from bench.storage.atomic import write_atomically
from bench.storage.records import Store
from bench.storage.studies import read_study
from bench.tuning.outcome import outcome_of
from bench.tuning.study import FINISHED, Budget, Search, Study, folder_of, known_to, with_settings
from bench.tuning.trial import job_name
from bench.tuning.trial_workers import work, work_in_processes


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
    store = Store(results)
    store.check_writable()
    check_code(store)
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
    outcome = outcome_of(study, budget.counted(known_to(opened)), device)
    if len(outcome["trials"]) > len(done) or not study.path.exists():
        write_atomically(study.path, (json.dumps(outcome, indent=1, allow_nan=False) + "\n").encode())
    return outcome


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
