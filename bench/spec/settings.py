"""The settings of a run: those common to all methods, with defaults and ranges, and how given values are checked."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from bench.errors import BenchError, unknown

# What every method has, with the same ranges for all: equal budgets by construction.
COMMON: dict[str, Any] = {
    "lr": 2e-3,
    "weight_decay": 1e-4,
    "batch_size": 2048,
    "embedding": 16,
    "id_dropout": 0.1,
    "features": "concat",
    "norm": "none",
    "schedule": "constant",
    "warmup": 0.0,
    "grad_clip": 0.0,
    "decay_embeddings": False,
    "precision": "float32",
    "balancer": "uniform",
}


CHOICES: dict[str, tuple[str, ...]] = {
    "features": ("concat", "dcn", "fm"),
    "norm": ("none", "batch", "layer", "batch_fused"),
    "schedule": ("constant", "cosine", "linear"),
    "precision": ("float32", "bfloat16"),
    "embedding_updates": ("dense", "rows"),
    "augment": ("none", "crop", "mask", "reorder", "substitute", "mixup", "token_dropout", "swap"),
}


# Common settings that came after the first records. Where ``augment`` is "none", neither of its two is a part of a
# configuration, so that records from before them keep their keys; nor is ``embedding_updates`` where it is "dense". A
# class names its own such settings in ``later``: each is a part only where it is not at its default.
AUGMENT: dict[str, Any] = {"augment": "none", "augment_rate": 0.2}


LATER: dict[str, Any] = AUGMENT | {"embedding_updates": "dense"}


COMMON_SPACE: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-4, 1e-2, log=True),
    "weight_decay": FloatDistribution(1e-6, 1e-1, log=True),
    "batch_size": CategoricalDistribution([512, 1024, 2048, 4096]),
    "embedding": CategoricalDistribution([8, 16, 32]),
    "id_dropout": FloatDistribution(0.0, 0.5),
    "features": CategoricalDistribution(CHOICES["features"]),
    "norm": CategoricalDistribution(["none", "batch", "layer"]),  # the fused one is chosen for speed, not searched
    "schedule": CategoricalDistribution(CHOICES["schedule"]),
    "warmup": FloatDistribution(0.0, 0.2),
    "grad_clip": CategoricalDistribution([0.0, 0.1, 1.0, 10.0]),
    "decay_embeddings": CategoricalDistribution([False, True]),
    "precision": CategoricalDistribution(["float32"]),  # chosen for the hardware, not searched
}


def own_settings(cls: type[Any]) -> dict[str, Any]:
    """Keyword-only arguments of a class's constructor with their defaults, in order; those of its base's, too, where it
    passes on ``**settings``."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if "__init__" in base.__dict__:
            parameters = inspect.signature(base.__dict__["__init__"]).parameters.values()
            found = {**{p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}, **found}
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return found


def parse(text: str) -> Any:
    """A value from the command line: JSON where it parses, else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def check_value(key: str, value: Any, default: Any) -> Any:
    """The value if its type fits the default's (an int may stand for a float). Raises BenchError if not."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise BenchError(f"setting '{key}': numbers must be finite, got {json.dumps(value)}") from error
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    fits = (
        type(value) is type(default)
        or default is None
        or (isinstance(default, (list, tuple)) and isinstance(value, list))
    )
    if not fits:
        kind = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a name"}
        wanted = kind.get(type(default).__name__, type(default).__name__)
        raise BenchError(f"setting '{key}': expected {wanted} such as {json.dumps(default)}, got {json.dumps(value)}")
    return value


def apply(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults overridden by given settings. Raises BenchError for an unknown key (with the nearest) or a bad type."""
    for key in given:
        if key not in defaults:
            raise unknown("setting", key, defaults)
    return {
        key: check_value(key, given[key], default) if key in given else default for key, default in defaults.items()
    }
