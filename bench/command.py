"""The command that makes a run again, from its spec."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from bench.spec import canonical


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


def _typed(value: Any) -> str:
    """As one types it: text as it is, unless it would be read as something else."""
    if not isinstance(value, str):
        return canonical(value)
    try:
        json.loads(value)
    except json.JSONDecodeError:
        return value
    return canonical(value)
