"""Claims against stored records: each confirmed, refuted or undecided (docs/claims.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import nctdtr, ndtr, stdtrit

from bench.claims.declared import MOST, Claim
from bench.claims.missing_runs import missing, more
from bench.leaderboard.grouping import Record, RowRuns
from bench.leaderboard.selection import Rows, Selector, comparable, skills, trials
from bench.leaderboard.terms import MEAN, Task
from bench.statistics.intervals import sd
from bench.statistics.many import ALPHA, holm
from bench.statistics.paired import SEEDS_NEEDED, paired

POWER = 0.8  # the chance with which the seeds that a claim needs settle it
Answer = Literal["confirmed", "refuted", "undecided"]


@dataclass(frozen=True)
class Evidence:
    """One pair in one measure on one group of rows: d over the common seeds with the half-width of its 95 % interval.

    p_for and p_against: one-sided t tests that the claim holds here, and that it does not. They are None, and
    ``missing`` says why, if there is no or only one common seed. needed: in an undecided claim, the seeds with which
    the observed difference would settle this line; None if these are more than ``MOST``.
    """

    where: str
    a: str
    b: str
    measure: str
    seeds: tuple[int, ...] = ()
    difference: float | None = None
    half_width: float | None = None
    p_for: float | None = None
    p_against: float | None = None
    tuning: str = "defaults"
    missing: str = ""
    needed: int | None = None


@dataclass(frozen=True)
class Finding:
    """The answer to a claim. p: of the better supported of "it holds" and "it does not", after Holm over all claims.
    commands: for an undecided claim, the runs that would help."""

    claim: Claim
    lines: tuple[Evidence, ...]
    p: float | None
    answer: Answer
    reason: str
    commands: tuple[str, ...] = ()


def verify(records: Iterable[Record], claims: Sequence[Claim]) -> list[Finding]:
    """The answer to each claim, in the same order. p-values are combined over a claim's lines, then corrected by Holm
    over the claims, so that the chance of any wrong answer is about .05 at most."""
    known = comparable(records)
    lines = [tuple(_lines(claim, known)) for claim in claims]
    ps = [_combined(claim, some) for claim, some in zip(claims, lines, strict=True)]
    adjusted = holm([min((p for p in both if p is not None), default=None) for both in ps])
    found = []
    for claim, some, both, p in zip(claims, lines, ps, adjusted, strict=True):
        answer: Answer = "undecided"
        if p is not None and p < ALPHA:
            answer = "confirmed" if both[1] is None or (both[0] is not None and both[0] <= both[1]) else "refuted"
        everywhere = claim.holds == "everywhere"
        commands: tuple[str, ...] = ()
        if answer == "undecided":
            some = tuple(_with_needed(claim, line, known, len(claims), len(some)) for line in some)
            reason, commands = _outlook(claim, some, known)
        elif answer == "confirmed":
            reason = "holds on every line" if everywhere else "holds on a line"
        else:
            reason = "fails on a line" if everywhere else "fails on every line"
        found.append(Finding(claim, some, p, answer, reason, commands))
    return found


def _lines(claim: Claim, known: Sequence[Rows]) -> Iterator[Evidence]:
    for dataset in claim.datasets:
        for a, b in claim.pairs:
            here = [g for g in known if g.dataset == dataset]
            both = [g for g in here if g.find(a) and g.find(b)]
            for group in both:
                yield from _measured(claim, group, a, b)
            if not both:
                absent = [str(s) for s in (a, b) if not any(g.find(s) for g in here)] or [str(a), str(b)]
                why = f"no row {' and no row '.join(absent)}" + ("" if len(absent) == 1 else " beside it")
                yield Evidence(dataset, str(a), str(b), MEAN, missing=why if here else "no records of this data set")


def _measured(claim: Claim, group: Rows, a: Selector, b: Selector) -> Iterator[Evidence]:
    line = Evidence(group.title, str(a), str(b), MEAN)
    rows = group.find(a), group.find(b)
    for selector, some in zip((a, b), rows, strict=True):
        if len(some) > 1:
            names = ", ".join(entry.label for entry in some)
            yield replace(line, missing=f"'{selector}' means several rows: {names}")
            return
    (first,), (second,) = rows
    line = replace(line, tuning=_tuning(first, second))
    chosen = [t for t in group.tasks if not claim.tasks or t.name in claim.tasks]
    measures = [(MEAN, chosen)] if claim.tasks is None else [(t.name, [t]) for t in chosen]
    if not measures:
        yield replace(line, missing=f"no task {' or '.join(claim.tasks or ())}")
    for name, tasks in measures:
        sides = [skills(row, tasks, claim.part) for row in (first, second)]
        if claim.tasks == () and not (sides[0] or sides[1]):
            continue  # a task without a value in this part
        yield _tested(claim, replace(line, measure=name), *sides)


def _tuning(a: RowRuns, b: RowRuns) -> str:
    own, other = trials(a), trials(b)
    if own == other:
        return f"tuned, {own} trials each" if own else "defaults"
    return f"UNEQUAL: {own} against {other} trials"


def _tested(claim: Claim, line: Evidence, a: dict[int, float], b: dict[int, float]) -> Evidence:
    seeds = tuple(sorted(a.keys() & b.keys()))
    if not seeds:
        return replace(line, missing="no common seed with a result")
    own, other = [a[seed] for seed in seeds], [b[seed] for seed in seeds]
    found = paired(own, other)
    line = replace(line, seeds=seeds, difference=found.mean, half_width=found.half_width)
    if found.p is None:
        return replace(line, missing="a single common seed has no spread")
    up, down = (_above(own, [v + bound for v in other]) for bound in (claim.margin, -claim.margin))
    if claim.test == "better":
        return replace(line, p_for=up, p_against=1 - up)
    if claim.test == "not worse":
        return replace(line, p_for=down, p_against=1 - down)
    return replace(line, p_for=max(down, 1 - up), p_against=min(1.0, 2 * min(up, 1 - down)))


def _above(a: Sequence[float], b: Sequence[float]) -> float:
    """One-sided p of the paired t test for a mean difference a - b above 0."""
    found = paired(a, b)
    half = (found.p or 0.0) / 2
    return half if found.mean > 0 else 1 - half


def _combined(claim: Claim, lines: Sequence[Evidence]) -> tuple[float | None, float | None]:
    """p that the claim holds, and that it does not. What must hold on every line is as sure as the weakest of them, and
    needs them all; what needs one line has as many chances as there are lines (Bonferroni)."""
    sides: list[float | None] = []
    for every, found in (
        (claim.holds == "everywhere", [line.p_for for line in lines]),
        (claim.holds == "somewhere", [line.p_against for line in lines]),
    ):
        some = [p for p in found if p is not None]
        if every:
            sides.append(max(some) if some and len(some) == len(found) else None)
        else:
            sides.append(min(1.0, len(some) * min(some)) if some else None)
    return sides[0], sides[1]


def _lean(claim: Claim, line: Evidence) -> float | None:
    """How far the observed difference is inside what is claimed; negative outside, None if there is none."""
    if line.difference is None:
        return None
    if claim.test == "equivalent":
        return claim.margin - abs(line.difference)
    return line.difference + (claim.margin if claim.test == "not worse" else -claim.margin)


def _with_needed(claim: Claim, line: Evidence, known: Sequence[Rows], claims: int, lines: int) -> Evidence:
    """The line of an undecided claim with the seeds that would settle it."""
    lean = _lean(claim, line)
    if line.p_for is None or lean is None:
        return line
    one_of_many = (lean > 0) == (claim.holds == "somewhere")
    alpha = ALPHA / claims / (lines if one_of_many else 1)
    if min(line.p_for, line.p_against or 1.0) < alpha:
        return replace(line, needed=len(line.seeds))
    group, rows = _pair(line, known)
    own, other = (skills(row, _tasks(claim, line, group), claim.part) for row in rows)
    spread = sd([own[seed] - other[seed] for seed in line.seeds]) or 0.0
    return replace(line, needed=seeds_for(abs(lean), spread, alpha))


def _pair(line: Evidence, known: Sequence[Rows]) -> tuple[Rows, list[RowRuns]]:
    (group,) = [g for g in known if g.title == line.where]
    return group, [group.find(Selector.of(side))[0] for side in (line.a, line.b)]


def _tasks(claim: Claim, line: Evidence, group: Rows) -> Sequence[Task]:
    if claim.tasks is None:
        return group.tasks
    return [t for t in group.tasks if t.name == line.measure]


def seeds_for(distance: float, spread: float, alpha: float) -> int | None:
    """The fewest paired seeds with which a one-sided t test at level alpha finds a mean ``distance`` of differences
    that have the standard deviation ``spread``, with a chance of .8; None if ``MOST`` are too few."""
    if spread == 0:
        return 2 if distance else None
    seeds = np.arange(2, MOST + 1)
    critical, shift = stdtrit(seeds - 1, 1 - alpha), distance / spread * np.sqrt(seeds)
    power = 1 - nctdtr(seeds - 1, shift, critical)
    power = np.where(np.isnan(power), ndtr(shift - critical), power)  # scipy loses a few far from the centre
    enough = seeds[power >= POWER]
    return int(enough[0]) if len(enough) else None


def _outlook(claim: Claim, lines: Sequence[Evidence], known: Sequence[Rows]) -> tuple[str, tuple[str, ...]]:
    """What an undecided claim lacks, in words, and the commands for it."""
    words: list[str] = []
    commands: list[str] = []
    lacking, measured = [line for line in lines if line.missing], [line for line in lines if not line.missing]
    for line in lacking:
        kin = [g for g in known if line.where in (g.title, g.dataset)]
        seeds = max([SEEDS_NEEDED, *(len(other.seeds) for other in measured)])
        commands += missing(line.where, kin, [Selector.of(line.a), Selector.of(line.b)], seeds)
    if lacking:
        words.append(f"{len(lacking)} of {len(lines)} comparisons lack runs")
    if measured:
        inside = [line for line in measured if (_lean(claim, line) or 0.0) > 0]
        words.append(f"{len(inside)} of {len(measured)} lean to the claim")
        everywhere = claim.holds == "everywhere"
        ones = [line for line in measured if (line in inside) != everywhere]  # each of them alone would be enough
        least = min((line for line in ones if line.needed), key=lambda line: line.needed or 0, default=None)
        chosen = ([least] if least else []) if ones else measured
        verb = "refute" if everywhere == bool(ones) else "confirm"
        if chosen and all(line.needed for line in chosen):
            most = max(line.needed or 0 for line in chosen)
            if ones or not lacking:
                words.append(f"if the differences stay as observed, {most} seeds {verb} it")
            commands += [c for line in chosen for c in more(*_pair(line, known), line.needed or 0)]
        else:
            words.append(f"to {verb} it would take more than {MOST} seeds, if the differences stay as observed")
    return "; ".join(words), tuple(dict.fromkeys(commands))
