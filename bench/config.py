"""From a method's name and the user's settings to one fully resolved configuration, and from there to a model.

A configuration is flat: the settings common to all methods, the method's own, and those of the components that it
names (``trunk``, ``balancer``), prefixed with the component and a dot: ``balancer.weights``.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from bench import registry
from bench.errors import BenchError, unknown

if TYPE_CHECKING:
    from bench.api import Method, Schema

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
    "norm": ("none", "batch", "layer"),
    "schedule": ("constant", "cosine", "linear"),
    "precision": ("float32", "bfloat16"),
}
COMMON_SPACE: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-4, 1e-2, log=True),
    "weight_decay": FloatDistribution(1e-6, 1e-1, log=True),
    "batch_size": CategoricalDistribution([512, 1024, 2048, 4096]),
    "embedding": CategoricalDistribution([8, 16, 32]),
    "id_dropout": FloatDistribution(0.0, 0.5),
    "features": CategoricalDistribution(CHOICES["features"]),
    "norm": CategoricalDistribution(CHOICES["norm"]),
    "schedule": CategoricalDistribution(CHOICES["schedule"]),
    "warmup": FloatDistribution(0.0, 0.2),
    "grad_clip": CategoricalDistribution([0.0, 0.1, 1.0, 10.0]),
    "decay_embeddings": CategoricalDistribution([False, True]),
    "precision": CategoricalDistribution(["float32"]),  # chosen for the hardware, not searched
}


def settings(cls: type[Any]) -> dict[str, Any]:
    """Keyword-only arguments of a class's constructor with their defaults, in order."""
    parameters = inspect.signature(cls).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


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


def resolve(method: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    """The full configuration of a method and the versions of the components it names."""
    cls = registry.load_method(method)
    taken = sorted(COMMON.keys() & settings(cls).keys())
    if taken:
        raise BenchError(f"method '{method}': setting '{taken[0]}' is common to all methods; give it another name")
    defaults = {**COMMON, **cls.defaults, **settings(cls)}
    components: dict[str, type[Any]] = {}
    if cls.trunk:
        defaults["trunk"] = cls.trunk
        trunk: str = check_value("trunk", given.get("trunk", cls.trunk), cls.trunk)
        components["trunk"] = registry.load_method(trunk)
        if components["trunk"].trunk:
            raise BenchError(f"setting 'trunk': '{trunk}' is itself built on a trunk; name an architecture")
    name = check_value("balancer", given.get("balancer", defaults["balancer"]), COMMON["balancer"])
    components["balancer"] = registry.load_balancer(name)
    if components["balancer"].of:
        defaults["balancer.of"] = default = components["balancer"].of
        of: str = check_value("balancer.of", given.get("balancer.of", default), default)
        components["balancer.of"] = registry.load_balancer(of)
        if components["balancer.of"].of:
            raise BenchError(f"setting 'balancer.of': '{of}' works itself on another balancer; name one that does not")
    for key, component in components.items():
        defaults.update({f"{key}.{k}": v for k, v in settings(component).items()})
    config = apply(defaults, given)
    if not config["lr"] > 0 or not config["batch_size"] > 0 or not config["embedding"] > 0:
        raise BenchError("settings 'lr', 'batch_size' and 'embedding' must be positive")
    if not 0 <= config["warmup"] < 1 or not config["grad_clip"] >= 0:
        raise BenchError("setting 'warmup' must be at least 0 and below 1, 'grad_clip' at least 0")
    for key, known in CHOICES.items():
        if config[key] not in known:
            raise unknown(f"value of '{key}'", config[key], known)
    return config, {key: component.version for key, component in components.items()}


def _own(config: Mapping[str, Any], cls: type[Any], prefix: str = "") -> dict[str, Any]:
    return {key: config[prefix + key] for key in settings(cls)}


def declines(method: str, config: Mapping[str, Any], schema: Schema) -> str:
    """Why the method, or the trunk it stands on, cannot work on such data; empty if they can."""
    names = [method, *(config[key] for key in config.keys() & {"trunk"})]
    return next(filter(None, (registry.load_method(name).declines(schema) for name in names)), "")


def build(method: str, config: Mapping[str, Any], schema: Schema) -> Method:
    """A model from a resolved configuration. Draws its initial weights from torch's global generator."""
    import torch

    from bench.nn import FeatureInputs, autocast, normalise

    own = registry.load_method(method)
    precision = getattr(torch, config["precision"])
    cls: Callable[..., Method] = own if precision is torch.float32 else autocast(own, precision)
    inputs = partial(FeatureInputs, **{key: config[key] for key in settings(FeatureInputs)})
    positional: list[Any] = [schema, inputs]
    if "trunk" in config:
        trunk = registry.load_method(config["trunk"])
        positional.append(partial(trunk, **_own(config, trunk, "trunk.")))
    try:
        model = cls(*positional, **_own(config, own))
        if config["norm"] != "none":
            normalise(model, config["norm"])
        balancer = registry.load_balancer(config["balancer"])
        positional = [schema.tasks]
        if "balancer.of" in config:
            of = registry.load_balancer(config["balancer.of"])
            positional.append(partial(of, **_own(config, of, "balancer.of.")))
        model.balancer = cast(Any, balancer)(*positional, **_own(config, balancer, "balancer."))
    except ValueError as error:
        raise BenchError(f"method '{method}' does not accept this configuration: {error}") from error
    return model
