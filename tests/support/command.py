"""Calling the command in tests: types of the fixtures, the smallest data, waiting, and what a command line means."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import Result

from bench.cli._plan import shard_of, specs_of
from bench.cli.run import run
from tests.support.forked import Forked

# The smallest simulated data that still has every label in every part.
SMALL = ("--data", "users=60", "--data", "items=100", "--data", "groups=200")
Bench = Callable[..., Result]
Start = Callable[..., "subprocess.Popen[str]"]
Fork = Callable[..., Forked]
Plugin = Callable[..., Path]


def until(reached: Callable[[], object], limit: float, step: float = 0.002) -> None:
    """Waits, looking every ``step`` seconds; fails if it takes longer than ``limit`` seconds."""
    end = time.monotonic() + limit
    while not reached():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(step)


def understood(command: str) -> list[Any]:
    """The specs of a `bench run` command, as the command line reads it."""
    program, name, *words = shlex.split(command)
    assert (program, name) == ("bench", "run")
    context = run.make_context("run", words)
    plan = {k: v for k, v in context.params.items() if k in specs_of.__annotations__}
    return specs_of(**plan)[shard_of(context.params["shard"])]
