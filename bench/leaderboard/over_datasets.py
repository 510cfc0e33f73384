"""The table over data sets: differences in mean skill, the middle of all skills, and ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from bench.leaderboard.tables import Cell, Header, Row, Table
from bench.leaderboard.terms import BASELINE, MEAN, RANK, YARDSTICKS
from bench.markup import plus_minus, short
from bench.spec.names import named
from bench.statistics.bootstrap import iqm, percentiles
from bench.statistics.ranks import friedman

Strata = list[list[float]]  # skills of the seeds, for each data set and task

IQM = "IQM of skills"  # a column
RESAMPLES = 1000
OVERALL_EXPLAINED = (
    f"Overall: rows with a mean skill on every data set. The column of a data set is the difference in mean skill to "
    f"{BASELINE}, with the star of its own table. IQM of skills: the mean of those of all data sets and tasks without "
    "the upper and the lower quarter, each being a mean over seeds; in brackets its 95 % bootstrap interval, for which "
    "the seeds of each are resampled."
)


@dataclass(frozen=True)
class Part:
    """A table of one data set, and what its rows bring to the table over data sets: skills by label."""

    protocol: str
    table: Table
    skills: Mapping[str, Strata]


def overall(parts: Sequence[Part]) -> Iterator[Table]:
    """A table for each protocol that has several data sets; of the tables of one data set that with the most rows
    counts."""
    protocols: dict[str, dict[str, Part]] = {}
    for part in parts:
        known = protocols.setdefault(part.protocol, {})
        kept = known.setdefault(part.table.dataset, part)
        if len(part.table.rows) > len(kept.table.rows):
            known[part.table.dataset] = part
    several = {protocol: list(known.values()) for protocol, known in protocols.items() if len(known) > 1}
    titles = named("Overall", [{"protocol": protocol} for protocol in several])
    for title, some in zip(titles, several.values(), strict=True):
        yield from _table(title, some)


def _table(title: str, parts: Sequence[Part]) -> Iterator[Table]:
    tables = [part.table for part in parts]
    entries = [{row.label: row for row in table.rows if row.kind not in YARDSTICKS} for table in tables]
    totals = [table.column(MEAN) for table in tables]
    labels = [
        label
        for label in entries[0]
        if all(label in own and total[label].value is not None for own, total in zip(entries, totals, strict=True))
    ]
    if not labels:
        return
    strata = {label: [values for part in parts for values in part.skills[label]] for label in labels}
    kinds = {label: entries[0][label].kind for label in labels}
    middles = _middles(strata)
    ranks, notes = _ranks({label: strata[label] for label in labels if kinds[label] == "competitor"})
    order = sorted(labels, key=lambda label: (kinds[label] != "competitor", -(middles[label].value or 0.0), label))
    left = len({label for own in entries for label in own}) - len(labels)
    if left:
        notes.append(f"{left} rows have no mean skill on some of these data sets and are left out.")

    def row(label: str) -> Row:
        cells = (*(_difference(total[label]) for total in totals), middles[label], ranks.get(label, Cell()))
        return replace(entries[0][label], config={}, keys={}, cells=(Cell(label), *cells))

    yield Table(
        "",
        title,
        f"{len(parts)} data sets, {len(strata[labels[0]])} pairs of data set and task.",
        (Header("method"), *(Header(table.title) for table in tables), Header(IQM), Header(RANK)),
        tuple(map(row, order)),
        tuple(notes),
    )


def _difference(cell: Cell) -> Cell:
    """The difference of a cell to the baseline as a cell of its own."""
    found = cell.difference
    if found is None:
        return Cell("")
    text = short(f"{found.mean:+z.4f}{plus_minus(found.half_width)}")
    return Cell(text, found.mean, found.half_width, p=cell.p, star=cell.star)


def _middles(rows: Mapping[str, Strata]) -> dict[str, Cell]:
    """The IQM over the means of each row's strata, and its percentile interval.

    The draws of a stratum are the same for all rows with so many seeds: as weights of its seeds they make a resampled
    mean a product, so that a board of many seeds stays fast.
    """
    weights: dict[tuple[int, int], NDArray[np.float64]] = {}  # [RESAMPLES, seeds]
    cells = {}
    for label, strata in rows.items():
        means = np.empty((RESAMPLES, len(strata)))
        for i, values in enumerate(strata):
            n = len(values)
            if (i, n) not in weights:
                weights[i, n] = np.random.default_rng((i, n)).multinomial(n, [1 / n] * n, RESAMPLES) / n
            means[:, i] = weights[i, n] @ np.array(values)
        centre = iqm([fmean(values) for values in strata])
        low, high = (short(f"{bound:.4f}") for bound in percentiles(iqm(means, axis=1)))
        several = max(map(len, strata)) > 1
        cells[label] = Cell(f"{centre:z.4f}" + (f" [{low}, {high}]" if several else ""), centre)
    return cells


def _ranks(rivals: Mapping[str, Strata]) -> tuple[dict[str, Cell], list[str]]:
    """Mean ranks of the competitors over the pairs of data set and task, and what they are worth."""
    if len(rivals) < 3:
        return {}, []
    found = friedman([*zip(*([fmean(values) for values in strata] for strata in rivals.values()), strict=True)])
    test = "these are too few to reject" if found.p is None else f"p = {found.p:.2g}"
    note = (
        f"Mean ranks of {len(rivals)} competitors over {found.blocks} pairs of data set and task (Friedman's test: "
        f"{test}). Ranks closer than {found.critical_difference:.1f} are not told apart (Nemenyi's critical difference "
        "at .05). Both assume independent pairs, which the tasks of a data set are not: take it as a picture, and the "
        "stars as the tests."
    )
    return {label: Cell(f"{rank:.1f}", rank) for label, rank in zip(rivals, found.ranks, strict=True)}, [note]
