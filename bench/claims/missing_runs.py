"""The runs that are missing for a comparison, as commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.leaderboard.grouping import RowRuns
from bench.leaderboard.selection import Rows, Selector, trials
from bench.spec.command import short_command
from bench.spec.settings import parse

TRIALS = 20  # of a study, where no other row tells how many


def more(group: Rows, entries: Sequence[RowRuns], seeds: int) -> tuple[str, ...]:
    """The commands that give rows their first ``seeds`` seeds, for those that lack some."""
    lacking = [entry for entry in entries if not set(range(seeds)) <= entry.runs.keys()]
    return tuple(short_command(group.spec(entry), seeds) for entry in lacking)


def missing(dataset: str, kin: Sequence[Rows], selectors: Sequence[Selector], seeds: int) -> tuple[str, ...]:
    """The commands that make the rows that none of the groups ``kin`` has, under the budget and batch size of the first
    of them, and give the others as many seeds."""
    commands: list[str] = []
    group = kin[0] if kin else None
    for selector in selectors:
        found = group.find(selector) if group else []
        if group and len(found) == 1:
            commands += more(group, found, seeds)
        elif not found:
            commands += _new(dataset, group, selector, seeds)
    return tuple(commands)


def _new(dataset: str, group: Rows | None, selector: Selector, seeds: int) -> list[str]:
    settings = {key: parse(value) for key, value in selector.settings.items()}
    about: dict[str, Any] = {"dataset": dataset, "dataset_config": {}, "budget": {}}
    if group is not None:
        about = group.about
        settings.setdefault("batch_size", group.entries[0].config["batch_size"])
    run = short_command({**about, "method": selector.method, "config": settings, "seed": 0}, seeds)
    if not selector.tuned:
        return [run]
    known = max(map(trials, group.entries), default=0) if group else 0
    chosen = run.removeprefix("bench run ").removesuffix(f" --seeds {seeds}")
    return [f"bench tune {chosen} --trials {known or TRIALS}", f"bench run --tuned {chosen} --seeds {seeds}"]
