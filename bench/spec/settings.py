"""The settings of a run: those common to all methods, with defaults and ranges, and how given values are checked."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from bench.errors import BenchError, unknown

Allowed = tuple[str, Callable[[Any], bool]]
_POSITIVE: Allowed = ("must be positive", lambda value: value > 0)
_NOT_NEGATIVE: Allowed = ("must be at least 0", lambda value: value >= 0)
_SHARE: Allowed = ("must be at least 0 and below 1", lambda value: 0 <= value < 1)


@dataclass(frozen=True)
class Setting:
    """A setting that all methods have.

    search: the range that `bench tune` searches, the same for all methods: equal budgets by construction. choices: the
    names that it may be. allowed: what its value must be, in words, and whether one is. only_with: the setting without
    which, at its default, this one is no part of a configuration, so that records from before it keep their keys. A
    class names own settings of this sort in ``later``: each is a part only where it is not at its default.
    """

    default: Any
    search: BaseDistribution | None = None
    choices: tuple[str, ...] = ()
    allowed: Allowed | None = None
    only_with: str = ""

    def check(self, key: str, value: Any) -> None:
        """Raises BenchError for a value that this setting cannot have."""
        if self.choices and value not in self.choices:
            raise unknown(f"value of '{key}'", value, self.choices)
        if self.allowed is not None and not self.allowed[1](value):
            raise BenchError(f"setting '{key}' {self.allowed[0]}, got {json.dumps(value)}")


def _named(*choices: str, search: Sequence[str] | None = None, only_with: str = "") -> Setting:
    """A setting that is one of some names, the first by default; all of them are searched, or those named."""
    searched = choices if search is None else search
    return Setting(choices[0], CategoricalDistribution(searched) if searched else None, choices, only_with=only_with)


SETTINGS: dict[str, Setting] = {
    "lr": Setting(2e-3, FloatDistribution(1e-4, 1e-2, log=True), allowed=_POSITIVE),
    "weight_decay": Setting(1e-4, FloatDistribution(1e-6, 1e-1, log=True)),
    "batch_size": Setting(2048, CategoricalDistribution([512, 1024, 2048, 4096]), allowed=_POSITIVE),
    "embedding": Setting(16, CategoricalDistribution([8, 16, 32]), allowed=_POSITIVE),
    "id_dropout": Setting(0.1, FloatDistribution(0.0, 0.5)),
    "features": _named("concat", "dcn", "fm"),
    "norm": _named("none", "batch", "layer", "batch_fused", search=["none", "batch", "layer"]),  # the last is for speed
    "schedule": _named("constant", "cosine", "linear"),
    "warmup": Setting(0.0, FloatDistribution(0.0, 0.2), allowed=_SHARE),
    "grad_clip": Setting(0.0, CategoricalDistribution([0.0, 0.1, 1.0, 10.0]), allowed=_NOT_NEGATIVE),
    "decay_embeddings": Setting(False, CategoricalDistribution([False, True])),
    "precision": _named("float32", "bfloat16", search=["float32"]),  # chosen for the hardware, not searched
    "balancer": Setting("uniform"),
    "augment": _named(
        "none", "crop", "mask", "reorder", "substitute", "mixup", "token_dropout", "swap",
        search=(), only_with="augment",
    ),
    "augment_rate": Setting(0.2, only_with="augment"),
    "embedding_updates": _named("dense", "rows", search=(), only_with="embedding_updates"),
}  # fmt: skip

COMMON: dict[str, Any] = {key: setting.default for key, setting in SETTINGS.items()}
COMMON_SPACE: dict[str, BaseDistribution] = {k: s.search for k, s in SETTINGS.items() if s.search is not None}


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
