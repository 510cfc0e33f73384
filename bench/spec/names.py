"""Names for runs and rows: the method, with the settings that tell it from others of its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.spec.key import canonical

Settings = Mapping[str, Any]


def named(name: str, family: Sequence[Settings]) -> list[str]:
    """A name for each of a family: the common name, with those of its settings that tell it from the others."""
    texts = [{key: canonical(value) for key, value in own.items()} for own in family]
    others = {tuple(sorted(own.items())): own for own in texts}
    names = []
    for own, settings in zip(texts, family, strict=True):
        label = listed({key: settings[key] for other in others.values() for key in _distinct(own, other)})
        names.append(f"{name} ({label})" if label else name)
    return names


def _distinct(own: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Settings with another value there. What follows from them is left out: those that are unknown there, and those of
    another component (``balancer.weights`` and ``balancer version`` where ``balancer`` differs)."""
    changed = [key for key in own if key in other and own[key] != other[key]]
    component = {key: key.removesuffix(" version").partition(".")[0] for key in changed}
    chosen = [key for key in changed if component[key] == key or component[key] not in changed]
    return chosen or [key for key in own if key not in other]


def listed(values: Settings, sign: str = "=") -> str:
    """``key=value`` in key order, with commas."""
    texts = {key: canonical(values[key]).strip('"') for key in sorted(values)}
    return ", ".join(f"{key}{sign}{'none' if text == 'null' else text}" for key, text in texts.items())


def run_names(specs: Sequence[Settings]) -> list[str]:
    """A name for each run: data set, method and seed, with the settings that tell it from other runs in the list."""
    configs: dict[tuple[str, str], dict[str, Settings]] = {}
    for spec in specs:
        configs.setdefault((spec["dataset"], spec["method"]), {})[canonical(spec["config"])] = spec["config"]
    labels = {
        (*pair, text): label
        for pair, family in configs.items()
        for text, label in zip(family, named(pair[1], list(family.values())), strict=True)
    }
    return [
        f"{s['dataset']} {labels[s['dataset'], s['method'], canonical(s['config'])]} seed {s['seed']}" for s in specs
    ]
