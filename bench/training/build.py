"""From a resolved configuration to a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from bench import registry
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.api import Method, Schema
from bench.spec.settings import own_settings


def _own(config: Mapping[str, Any], cls: type[Any], prefix: str = "") -> dict[str, Any]:
    return {key: config.get(prefix + key, default) for key, default in own_settings(cls).items()}


def declines(method: str, config: Mapping[str, Any], schema: Schema) -> str:
    """Why the method, the trunk it stands on or its teacher cannot work on such data; empty if they can."""
    named = {"method": method, **{key: config[key] for key in ("trunk", "teacher", "teacher.trunk") if key in config}}
    for key, name in named.items():
        if reason := registry.load_method(name).declines(schema):
            return f"{key} '{name}': {reason}" if key.startswith("teacher") else reason
    if "augment" in config:
        from bench.nn import augment

        return augment.declines(config["augment"], schema)
    return ""


def build(method: str, config: Mapping[str, Any], schema: Schema) -> Method:
    """A model from a resolved configuration. Draws its initial weights from torch's global generator."""
    import torch

    from bench.nn import augment
    from bench.nn.features import FeatureInputs
    from bench.nn.layers import normalise
    from bench.nn.lazy_adam import refuse
    from bench.nn.precision import autocast

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
            refuse(model, config["grad_clip"])
    except ValueError as error:
        raise BenchError(f"method '{method}' does not accept this configuration: {error}") from error
    return model
