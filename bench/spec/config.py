"""From a method's name and the user's settings to one fully resolved configuration.

A configuration is flat: the settings common to all methods, the method's own, and those of the components that it
names (``trunk``, ``balancer``, ``teacher``), prefixed with the component and a dot: ``balancer.weights``. The common
settings and the balancer are a teacher's too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench import registry
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.api import Method
from bench.spec.settings import COMMON, SETTINGS, apply, check_value, own_settings


def resolve(method: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    """The full configuration of a method and the versions of the components it names."""
    cls = registry.load_method(method)
    taken = sorted(COMMON.keys() & own_settings(cls).keys())
    if taken:
        raise BenchError(f"method '{method}': setting '{taken[0]}' is common to all methods; give it another name")
    defaults = {**COMMON, **cls.defaults, **own_settings(cls)}
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
        defaults.update({f"{key}.{k}": v for k, v in own_settings(part).items()})
    config = apply(defaults, given)
    for key, setting in SETTINGS.items():
        setting.check(key, config[key])
    later = {f"{key}.{own}" for key, part in components.items() for own in part.later}
    absent = {key for key in later.union(cls.later) if config[key] == defaults[key]}
    absent |= {key for key, s in SETTINGS.items() if (on := s.only_with) and config[on] == SETTINGS[on].default}
    config = {key: value for key, value in config.items() if key not in absent}
    return config, {key: part.version for key, part in components.items()}


def teachers(of: Mapping[str, Any]) -> dict[str, Any]:
    """The teacher's part of a resolved configuration, or of the versions of its components, as its own run has it."""
    common = {k: v for k, v in of.items() if k.partition(".")[0] in COMMON}
    return common | {k.removeprefix("teacher."): v for k, v in of.items() if k.startswith("teacher.")}
