"""What the next trial of a study tries."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.trial import FrozenTrial

from bench.spec import derive_seed
from bench.tuning.space import Space
from bench.tuning.study import Search


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
