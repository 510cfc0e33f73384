"""Two rows head to head: each task and the mean skill, paired over seeds, and over users where predictions are kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Literal

from bench.errors import BenchError, unknown
from bench.leaderboard.columns import larger
from bench.leaderboard.filters import EVERYTHING, Filter
from bench.leaderboard.grouping import Record, RowRuns
from bench.leaderboard.over_users import over_users
from bench.leaderboard.selection import Rows, Selector, chance, comparable, one, skills, trials
from bench.leaderboard.terms import MEAN
from bench.metrics import skill
from bench.statistics.bootstrap import Interval
from bench.statistics.many import ALPHA, holm
from bench.statistics.paired import Difference, paired, signed_rank, tost, unsupported

Values = Mapping[int, float]  # by seed
Verdict = Literal["better", "worse", "equivalent", "undecided"]

MARGIN = 0.005  # of skill: a two-hundredth of the way from chance to perfect, .0025 of an AUC


@dataclass(frozen=True)
class Contrast:
    """A against B in one measure, over the seeds that both have: means, and difference A - B with its 95 % interval.

    p: of the paired t test, ``equivalence_p``: of the two one-sided tests within ``margin`` (in units of the measure),
    each after Holm over all lines. signed_rank: exact, for this line alone; ``refused`` says why there is none.
    users: the 95 % interval over users and seeds; ``no_users`` says why there is none.
    """

    group: str
    measure: str
    larger: bool
    seeds: tuple[int, ...]
    a: float
    b: float
    difference: Difference
    p: float | None
    signed_rank: float | None
    refused: str | None
    margin: float | None
    equivalence_p: float | None
    verdict: Verdict = "undecided"
    users: Interval | None = None
    no_users: str = "a mean over tasks"


@dataclass(frozen=True)
class HeadToHead:
    """All lines of A against B, by what they share, and what could not be compared."""

    a: str
    b: str
    margin: float
    lines: tuple[Contrast, ...]
    notes: tuple[str, ...]


def compare(
    records: Iterable[Record],
    a: str,
    b: str,
    *,
    margin: float = MARGIN,
    results: Path | None = None,
    part: Filter = EVERYTHING,
) -> HeadToHead:
    """Head to head of two rows wherever both are. ``margin``: differences in skill that do not matter. ``results``: the
    folder with the predictions. ``part``: of the records.

    Raises BenchError if a name means no row, several rows, or both the same one, or if the rows share no seed.
    """
    if not margin > 0:
        raise BenchError(f"--margin {margin:g}: give a positive difference in skill, such as {MARGIN}")
    all_groups, wanted = comparable(records, part), (Selector.of(a), Selector.of(b))
    names = [entry.label for group in all_groups for entry in group.entries]
    lines: list[Contrast] = []
    notes = []
    for selector, text in zip(wanted, (a, b), strict=True):
        if not any(group.find(selector) for group in all_groups):
            raise unknown("row", text, names)
    for group in all_groups:
        rows = [one(selector, group.entries, group.title) for selector in wanted]
        missing = [str(selector) for selector, row in zip(wanted, rows, strict=True) if row is None]
        first, second = rows
        if first is None or second is None:
            notes.append(f"{group.title}: no row {' and no row '.join(missing)}.")
            continue
        if first is second:
            raise BenchError(f"'{a}' and '{b}' are the same row of {group.title}; name two")
        if trials(first) != trials(second):
            notes.append(f"{group.title}: not tuned alike, {trials(first)} trials against {trials(second)}.")
        found = list(_lines(group, first, second, margin, results))
        notes += [] if found else [f"{group.title}: the rows have no result with a common seed."]
        lines += found
    if not lines:
        raise BenchError(f"'{a}' and '{b}' cannot be compared: {' '.join(notes)}")
    ps, equivalence_ps = holm([line.p for line in lines]), holm([line.equivalence_p for line in lines])
    judged = [
        replace(line, p=p, equivalence_p=e, verdict=_verdict(line, p, e))
        for line, p, e in zip(lines, ps, equivalence_ps, strict=True)
    ]
    return HeadToHead(a, b, margin, tuple(judged), tuple(notes))


def _lines(group: Rows, a: RowRuns, b: RowRuns, margin: float, results: Path | None) -> Iterator[Contrast]:
    for task in group.tasks:
        base = chance(a, task)
        scale = abs(skill(task.metric, base + 1, base)) if base is not None else 0.0  # skill a unit of the metric
        sides = [row.values("test").get(task, {}) for row in (a, b)]
        name = f"{task.name} {task.metric}"
        line = _line(group, name, larger(task), sides, margin / scale if scale else None)
        if line is not None:
            found = over_users(group, a, b, task, line.seeds, results)
            more = {"no_users": found} if isinstance(found, str) else {"users": found, "no_users": ""}
            yield replace(line, **more)
    line = _line(group, MEAN, True, (skills(a, group.tasks), skills(b, group.tasks)), margin)
    if line is not None:
        yield line


def _line(group: Rows, name: str, up: bool, sides: Sequence[Values], margin: float | None) -> Contrast | None:
    seeds = tuple(sorted(sides[0].keys() & sides[1].keys()))
    if not seeds:
        return None
    a, b = ([side[seed] for seed in seeds] for side in sides)
    difference = paired(a, b)
    return Contrast(
        group.title, name, up, seeds, mean(a), mean(b), difference, difference.p,
        signed_rank(a, b), unsupported(len(seeds)), margin, tost(a, b, margin) if margin is not None else None,
    )  # fmt: skip


def _verdict(line: Contrast, p: float | None, equivalence_p: float | None) -> Verdict:
    """A difference that is shown to be within the margin does not matter, even where it is not zero."""
    if equivalence_p is not None and equivalence_p < ALPHA:
        return "equivalent"
    if p is not None and p < ALPHA:
        return "better" if (line.difference.mean > 0) == line.larger else "worse"
    return "undecided"
