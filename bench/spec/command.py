"""The command that makes a run again, from its spec."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from bench.errors import BenchError
from bench.spec.key import canonical

COMPONENTS = ("trunk", "teacher", "teacher.trunk", "balancer", "balancer.of")
LANGUAGE_MODELS = ("lm", "teacher.lm")


def reproduce_command(spec: Mapping[str, Any], seeds: int | None = None) -> str:
    """The `bench run` command of a stored spec, for a POSIX shell: for its own seed, or for the first ``seeds`` seeds.

    All settings are named, so that later defaults do not matter. With the same data and versions of the code the key is
    the same. A method outside the checkout needs its ``--plugin`` besides.
    """
    count = spec["seed"] + 1
    words = ["bench", "run", "-d", spec["dataset"], "-m", spec["method"]]
    words += [word for key, value in spec["dataset_config"].items() for word in ("--data", f"{key}={_typed(value)}")]
    words += [word for key, value in spec["config"].items() for word in ("-s", f"{key}={_typed(value)}")]
    words += [word for key, value in spec["budget"].items() for word in (f"--{key}", str(value))]
    words += ["--seeds", str(seeds or count)]
    if seeds is None and count > 1:
        words += ["--shard", f"{count}/{count}"]  # of the seeds 0, 1, ... the last alone
    return shlex.join(words)


def short_command(spec: Mapping[str, Any], seeds: int) -> str:
    """The `bench run` command for the first ``seeds`` seeds of a spec, with what differs from this version's defaults.

    It loads the method's code; where that is not to be had, it names all settings.
    """
    from bench import registry
    from bench.spec import config
    from bench.spec.settings import own_settings

    named = {k: v for k, v in spec["config"].items() if k in COMPONENTS}
    try:
        resolved, _ = config.resolve(spec["method"], named)
        knobs = own_settings(registry.load_dataset(spec["dataset"]))
    except BenchError:
        return reproduce_command(spec, seeds)
    usual = config.resolve(spec["method"], {})[0]

    def differs(key: str, value: Any) -> bool:
        default = usual.get(key) if key in named else resolved.get(key)
        if key in LANGUAGE_MODELS and isinstance(default, str):  # a record's names the weights, too
            return str(value).partition("@")[0] != default
        return key not in resolved or canonical(default) != canonical(value)

    chosen = {k: v for k, v in spec["config"].items() if differs(k, v)}
    data = {k: v for k, v in spec["dataset_config"].items() if k not in knobs or canonical(knobs[k]) != canonical(v)}
    return reproduce_command({**spec, "config": chosen, "dataset_config": data}, seeds)


def _typed(value: Any) -> str:
    """Returns a value as one types it: text as it is, unless it would be read as something else."""
    from bench.spec.settings import parse

    return value if isinstance(value, str) and parse(value) == value else canonical(value)
