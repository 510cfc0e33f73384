"""From a method's name and the user's settings to one fully resolved configuration, and from there to a model.

A configuration is flat: the settings common to all methods, the method's own, and those of the components that it
names (``trunk``, ``balancer``, ``teacher``), prefixed with the component and a dot: ``balancer.weights``. The common
settings and the balancer are a teacher's too.
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


def settings(cls: type[Any]) -> dict[str, Any]:
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


def resolve(method: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    """The full configuration of a method and the versions of the components it names."""
    cls = registry.load_method(method)
    taken = sorted((COMMON | LATER).keys() & settings(cls).keys())
    if taken:
        raise BenchError(f"method '{method}': setting '{taken[0]}' is common to all methods; give it another name")
    defaults = {**COMMON, **LATER, **cls.defaults, **settings(cls)}
    components: dict[str, type[Any]] = {}

    def component(key: str, default: str) -> type[Method]:
        defaults[key] = default
        named: str = check_value(key, given.get(key, default), default)
        found = components[key] = registry.load_method(named)
        if key.endswith("trunk") and found.trunk:
            raise BenchError(f"setting '{key}': '{named}' is itself built on a trunk; name an architecture")
        if found.teacher:
            raise BenchError(f"setting '{key}': '{named}' itself learns from a teacher; name a method that does not")
        return found

    if cls.trunk:
        component("trunk", cls.trunk)
    if cls.teacher and (teacher := component("teacher", cls.teacher)).trunk:
        component("teacher.trunk", teacher.trunk)
    name = check_value("balancer", given.get("balancer", defaults["balancer"]), COMMON["balancer"])
    components["balancer"] = registry.load_balancer(name)
    if components["balancer"].of:
        defaults["balancer.of"] = default = components["balancer"].of
        of: str = check_value("balancer.of", given.get("balancer.of", default), default)
        components["balancer.of"] = registry.load_balancer(of)
        if components["balancer.of"].of:
            raise BenchError(f"setting 'balancer.of': '{of}' works itself on another balancer; name one that does not")
    for key, part in components.items():
        defaults.update({f"{key}.{k}": v for k, v in settings(part).items()})
    config = apply(defaults, given)
    if not config["lr"] > 0 or not config["batch_size"] > 0 or not config["embedding"] > 0:
        raise BenchError("settings 'lr', 'batch_size' and 'embedding' must be positive")
    if not 0 <= config["warmup"] < 1 or not config["grad_clip"] >= 0:
        raise BenchError("setting 'warmup' must be at least 0 and below 1, 'grad_clip' at least 0")
    for key, known in CHOICES.items():
        if config[key] not in known:
            raise unknown(f"value of '{key}'", config[key], known)
    later = {f"{key}.{own}" for key, part in components.items() for own in part.later}
    absent = {key for key in later.union(cls.later) if config[key] == defaults[key]}
    if config["augment"] == "none":
        absent |= AUGMENT.keys()
    if config["embedding_updates"] == "dense":
        absent.add("embedding_updates")
    config = {key: value for key, value in config.items() if key not in absent}
    return config, {key: part.version for key, part in components.items()}


def teachers(of: Mapping[str, Any]) -> dict[str, Any]:
    """The teacher's part of a resolved configuration, or of the versions of its components, as its own run has it."""
    common = {k: v for k, v in of.items() if k.partition(".")[0] in COMMON | LATER}
    return common | {k.removeprefix("teacher."): v for k, v in of.items() if k.startswith("teacher.")}


def _own(config: Mapping[str, Any], cls: type[Any], prefix: str = "") -> dict[str, Any]:
    return {key: config.get(prefix + key, default) for key, default in settings(cls).items()}


def declines(method: str, config: Mapping[str, Any], schema: Schema) -> str:
    """Why the method, the trunk it stands on or its teacher cannot work on such data; empty if they can."""
    named = {"method": method, **{key: config[key] for key in ("trunk", "teacher", "teacher.trunk") if key in config}}
    for key, name in named.items():
        if reason := registry.load_method(name).declines(schema):
            return f"{key} '{name}': {reason}" if key.startswith("teacher") else reason
    if "augment" in config:
        from bench import augment

        return augment.declines(config["augment"], schema)
    return ""


def build(method: str, config: Mapping[str, Any], schema: Schema) -> Method:
    """A model from a resolved configuration. Draws its initial weights from torch's global generator."""
    import torch

    from bench import augment, row_updates
    from bench.features import FeatureInputs
    from bench.nn import normalise
    from bench.precision import autocast

    own = registry.load_method(method)
    precision = getattr(torch, config["precision"])
    cls: Callable[..., Method] = own if precision is torch.float32 else autocast(own, precision)
    inputs = partial(FeatureInputs, **_own(config, FeatureInputs))
    positional: list[Any] = [schema, inputs]
    if "trunk" in config:
        trunk = registry.load_method(config["trunk"])
        positional.append(partial(trunk, **_own(config, trunk, "trunk.")))
    try:
        model = cls(*positional, **_own(config, own))
        if config["norm"] != "none":
            normalise(model, config["norm"])
        if "augment" in config:
            augment.install(model, config["augment"], config["augment_rate"])
        balancer = registry.load_balancer(config["balancer"])
        positional = [schema.tasks]
        if "balancer.of" in config:
            of = registry.load_balancer(config["balancer.of"])
            positional.append(partial(of, **_own(config, of, "balancer.of.")))
        model.balancer = cast(Any, balancer)(*positional, **_own(config, balancer, "balancer."))
        if "embedding_updates" in config:
            row_updates.refuse(model, config["grad_clip"])
    except ValueError as error:
        raise BenchError(f"method '{method}' does not accept this configuration: {error}") from error
    return model
