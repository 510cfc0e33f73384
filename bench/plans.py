"""The runs that are missing for a comparison, as commands."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from bench.command import short_command
from bench.rows import Group, Row, Selector

TRIALS = 20  # of a study, where no other row tells how many


def more(rows: Sequence[Row], seeds: int) -> tuple[str, ...]:
    """The commands that give rows their first ``seeds`` seeds, for those that lack some."""
    return tuple(short_command(row.spec, seeds) for row in rows if not set(range(seeds)) <= row.runs.keys())


def missing(dataset: str, kin: Sequence[Group], selectors: Sequence[Selector], seeds: int) -> tuple[str, ...]:
    """The commands that make the rows that none of the groups ``kin`` has, under the budget and batch size of the first
    of them, and give the others as many seeds."""
    commands: list[str] = []
    group = kin[0] if kin else None
    for selector in selectors:
        found = group.find(selector) if group else []
        if len(found) == 1:
            commands += more(found, seeds)
        elif not found:
            commands += _new(group.dataset if group else dataset, group, selector, seeds)
    return tuple(commands)


def _new(dataset: str, group: Group | None, selector: Selector, seeds: int) -> list[str]:
    words = ["-d", dataset, "-m", selector.method]
    settings = dict(selector.settings)
    if group is not None:
        settings.setdefault("batch_size", str(group.rows[0].spec["config"]["batch_size"]))
        words += [word for key, value in group.about["budget"].items() for word in (f"--{key}", str(value))]
    words += [word for key, value in settings.items() for word in ("-s", f"{key}={value}")]
    if not selector.tuned:
        return [shlex.join(["bench", "run", *words, "--seeds", str(seeds)])]
    trials = max((row.trials for row in group.rows), default=0) if group else 0
    return [
        shlex.join(["bench", "tune", *words, "--trials", str(trials or TRIALS)]),
        shlex.join(["bench", "run", "--tuned", *words, "--seeds", str(seeds)]),
    ]
