"""What a study searches: the settings of a method, those common to all methods, and the loss weights of the tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from bench import registry
from bench.errors import BenchError
from bench.spec import Spec, rounded
from bench.spec.settings import COMMON_SPACE, own_settings
from bench.training.build import build, declines
from bench.training.session import TrainingView

WEIGHT = FloatDistribution(1e-6, 1 - 1e-6)  # u of a task's loss weight, which is -log u over the sum of all tasks'
EQUAL = math.exp(-1)


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

    def grid(self, points: int) -> Grid:
        """All combinations of ``points`` values of each parameter, of all choices where it has choices: from end to end
        of a range, in equal steps of the logarithm where that is searched; quantiles of a loss weight's u."""
        weights = [(i + 0.5) / points for i in range(points)]
        return Grid({k: weights if v is WEIGHT else _points(v, points) for k, v in self.ranges.items()})

    def settings(self, number: int, params: Mapping[str, Any]) -> dict[str, Any]:
        """What a trial sets beside what is fixed. Trial 0 sets nothing: it is the defaults."""
        if number == 0:
            return {}
        found = {**params, **self.base}
        for key in self.weighted:
            us = {k: found.pop(k) for k in params if k.startswith(f"{key}.")}
            found[key] = simplex({k.removeprefix(f"{key}."): u for k, u in us.items()})
        return dict(rounded(found))


@dataclass(frozen=True)
class Grid:
    """Values of each parameter; the points are their combinations, the last parameter's values first."""

    values: dict[str, list[Any]]

    def __len__(self) -> int:
        return math.prod(map(len, self.values.values()))

    def __getitem__(self, number: int) -> dict[str, Any]:
        found = {}
        for key, values in reversed(self.values.items()):
            number, place = divmod(number, len(values))
            found[key] = values[place]
        return found


def _points(found: BaseDistribution, points: int) -> list[Any]:
    if isinstance(found, CategoricalDistribution):
        return list(found.choices)
    assert isinstance(found, (FloatDistribution, IntDistribution))
    spaced = np.geomspace if found.log else np.linspace
    values = np.clip(spaced(found.low, found.high, points), found.low, found.high).tolist()
    return sorted({round(v) for v in values}) if isinstance(found, IntDistribution) else values


def simplex(us: Mapping[str, float]) -> dict[str, float]:
    """Positive weights of sum 1 from values in (0, 1), -log u over the sum of all: uniform values give weights that are
    uniform on the simplex, and a search sees variables without a constraint."""
    total = sum(-math.log(u) for u in us.values())
    return {key: -math.log(u) / total for key, u in us.items()}


def space_of(spec: Spec, fixed: Mapping[str, Any], seen: TrainingView, stage: str = "all") -> Space:
    """The space of a method on a data set: its own, its trunk's and balancer's, the common one, and the loss weights
    where the balancer is ``uniform`` by default or ``static``. What is fixed is not searched. stage: ``settings``
    leaves out the loss weights, ``weights`` all else.

    Raises BenchError if the method declines such data, does not accept what is fixed, or leaves nothing to search.
    """
    if reason := declines(spec.method, spec.config, seen.schema):
        raise BenchError(f"method '{spec.method}' declines data set '{spec.dataset}': {reason}")
    model = build(spec.method, spec.config, seen.schema)
    learns = any(p.requires_grad for p in model.parameters())
    shares = any(len(tasks) > 1 for tasks, _ in model.parts())
    cls = registry.load_method(spec.method)
    declared = {**cls.space, **(COMMON_SPACE if learns else {})}
    defaults = {**own_settings(cls), **spec.config}
    if "trunk" in spec.config:
        _add("trunk", registry.load_method(spec.config["trunk"]), declared, defaults)
    base: dict[str, str] = {}
    weighted = []
    if learns and shares and stage != "settings":
        if "balancer" not in fixed and spec.config["balancer"] == "uniform":
            base = {"balancer": "static"}
        for key in ("balancer", "balancer.of"):
            if name := base.get(key, spec.config.get(key)):
                _add(key, registry.load_balancer(name), declared, defaults)
                if name == "static" and f"{key}.weights" not in fixed:
                    weighted.append(f"{key}.weights")
    if stage == "weights":
        declared = {}
    ranges = {k: v for k, v in declared.items() if k not in fixed and not v.single()}
    ranges = {k: _around(v, defaults[k]) for k, v in ranges.items()}
    start = {k: defaults[k] for k in ranges}
    for key in weighted:
        for task in seen.schema.tasks:
            ranges[f"{key}.{task.name}"], start[f"{key}.{task.name}"] = WEIGHT, EQUAL
    if not ranges:
        what = "no loss weights to tune" if stage == "weights" else "nothing left to tune; fix fewer settings with -s"
        raise BenchError(f"method '{spec.method}' has {what}")
    return Space(ranges, start, tuple(weighted), base)


def _add(key: str, part: type[Any], declared: dict[str, BaseDistribution], defaults: dict[str, Any]) -> None:
    declared |= {f"{key}.{own}": found for own, found in part.space.items()}
    for own, value in own_settings(part).items():
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
