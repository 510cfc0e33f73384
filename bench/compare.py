"""Two rows head to head: each task and the mean skill, paired over seeds, and over users where predictions are kept."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from tabulate import tabulate

from bench.bootstrap import Interval, user_bootstrap
from bench.columns import MEAN, larger
from bench.errors import BenchError, unknown
from bench.filters import EVERYTHING, Filter
from bench.metrics import METRICS
from bench.rows import Rows, Selector, chance, comparable, skills, slope, trials, values
from bench.runs import Entry, Record, Task
from bench.stats import Difference, holm, paired, signed_rank, tost, unsupported

Verdict = Literal["better", "worse", "equivalent", "undecided"]
ALPHA = 0.05
MARGIN = 0.005  # of skill: a two-hundredth of the way from chance to perfect, .0025 of an AUC
RESAMPLES = 300  # of users; each takes a metric twice for every seed


@dataclass(frozen=True)
class Line:
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
class Comparison:
    """All lines of A against B, by what they share, and what could not be compared."""

    a: str
    b: str
    margin: float
    lines: tuple[Line, ...]
    notes: tuple[str, ...]


def compare(
    records: Iterable[Record],
    a: str,
    b: str,
    *,
    margin: float = MARGIN,
    results: Path | None = None,
    part: Filter = EVERYTHING,
) -> Comparison:
    """Head to head of two rows wherever both are. ``margin``: differences in skill that do not matter. ``results``: the
    folder with the predictions. ``part``: of the records.

    Raises BenchError if a name means no row, several rows, or both the same one, or if the rows share no seed.
    """
    if not margin > 0:
        raise BenchError(f"--margin {margin:g}: give a positive difference in skill, such as {MARGIN}")
    all_groups, wanted = comparable(records, part), (Selector.of(a), Selector.of(b))
    names = [entry.label for group in all_groups for entry in group.entries]
    lines: list[Line] = []
    notes = []
    for selector, text in zip(wanted, (a, b), strict=True):
        if not any(group.find(selector) for group in all_groups):
            raise unknown("row", text, names)
    for group in all_groups:
        rows = [_one(group, selector) for selector in wanted]
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
    return Comparison(a, b, margin, tuple(judged), tuple(notes))


def _one(group: Rows, selector: Selector) -> Entry | None:
    found = group.find(selector)
    if len(found) > 1:
        names = ", ".join(f"'{entry.label}'" for entry in found)
        raise BenchError(f"'{selector}' means several rows of {group.title}: {names}; name one")
    return found[0] if found else None


def _lines(group: Rows, a: Entry, b: Entry, margin: float, results: Path | None) -> Iterable[Line]:
    for task in group.tasks:
        base = chance(a, task)
        scale = abs(slope(task, base)) if base is not None else 0.0
        sides = values(a, task), values(b, task)
        name = f"{task.name} {task.metric}"
        line = _line(group, name, larger(task), sides, margin / scale if scale else None)
        if line is not None:
            found = _users(group, a, b, task, line.seeds, results)
            more = {"no_users": found} if isinstance(found, str) else {"users": found, "no_users": ""}
            yield replace(line, **more)
    line = _line(group, MEAN, True, (skills(a, group.tasks), skills(b, group.tasks)), margin)
    if line is not None:
        yield line


def _line(group: Rows, name: str, up: bool, sides: Sequence[dict[int, float]], margin: float | None) -> Line | None:
    seeds = tuple(sorted(sides[0].keys() & sides[1].keys()))
    if not seeds:
        return None
    a, b = ([side[seed] for seed in seeds] for side in sides)
    difference = paired(a, b)
    return Line(
        group.title, name, up, seeds, mean(a), mean(b), difference, difference.p,
        signed_rank(a, b), unsupported(len(seeds)), margin, tost(a, b, margin).p if margin is not None else None,
    )  # fmt: skip


def _verdict(line: Line, p: float | None, equivalence_p: float | None) -> Verdict:
    """A difference that is shown to be within the margin does not matter, even where it is not zero."""
    if equivalence_p is not None and equivalence_p < ALPHA:
        return "equivalent"
    if p is not None and p < ALPHA:
        return "better" if (line.difference.mean > 0) == line.larger else "worse"
    return "undecided"


def _users(group: Rows, a: Entry, b: Entry, task: Task, seeds: Sequence[int], results: Path | None) -> Interval | str:
    """The interval of A - B over users and seeds, or why there is none."""
    if results is None:
        return "no folder with predictions"
    paths = [[results / "predictions" / f"{row.runs[seed].key}.npz" for seed in seeds] for row in (a, b)]
    absent = [path for side in paths for path in side if not path.exists()]
    if absent:
        return f"{len(absent)} of {2 * len(seeds)} files of predictions are not in {absent[0].parent}"
    test = _test_part(group.dataset, group.about["data"])
    if test is None:
        return f"{group.dataset} with this content is not prepared here; run `bench data prepare {group.dataset}`"
    import numpy as np

    label = test.labels[task.name].numpy()
    groups_, users = test.group, test.user.numpy()[test.group]
    if next(t.scope for t in test.schema.tasks if t.name == task.name) == "user":
        groups_, users = np.arange(test.groups), test.user.numpy()
    use = ~np.isnan(label)
    sides = [[np.load(path)[task.name].astype(np.float64)[use] for path in side] for side in paths]
    fn = METRICS[task.metric].fn
    labels = label[use].astype(np.float64)
    return user_bootstrap(fn, users[use], labels, *sides, groups=groups_[use], resamples=RESAMPLES)


@cache
def _test_part(dataset: str, sha256: str) -> Any:
    """The test part of the prepared data with that content; None if it is not in the cache."""
    from bench.data.cache import root
    from bench.data.prepare import load

    for meta in sorted((root() / "data" / dataset).glob("*/meta.json")):
        if json.loads(meta.read_text("utf-8")).get("sha256") == sha256:
            return load(meta.parent).test
    return None


def to_json(comparison: Comparison) -> str:
    """All of it, with full precision."""
    return json.dumps(asdict(comparison), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_console(comparison: Comparison, width: int | None = None) -> str:
    """A table for each group of rows that can be compared, notes, and how to read it."""
    blocks = [f"A: {comparison.a}\nB: {comparison.b}"]
    for title in dict.fromkeys(line.group for line in comparison.lines):
        lines = [line for line in comparison.lines if line.group == title]
        headers = ["measure", "A", "B", "A - B", "p", "signed-rank p", "margin", "p of equivalence", "A is"]
        body = [_cells(line) for line in lines]
        if any(line.users for line in lines):
            headers.append("interval over users")
            body = [[*cells, _interval(line.users)] for cells, line in zip(body, lines, strict=True)]
        seeds = ", ".join(map(str, sorted({seed for line in lines for seed in line.seeds})))
        blocks += [f"{title}, seeds {seeds}", str(tabulate(body, headers, "simple", disable_numparse=True))]
    blocks.append(_wrap([*comparison.notes, *_reasons(comparison)], width))
    return "\n\n".join([*blocks, _wrap(_legend(comparison), width)]) + "\n"


def _cells(line: Line) -> list[str]:
    half = line.difference.half_width
    return [
        f"{line.measure} {'↑' if line.larger else '↓'}", f"{line.a:z.4f}", f"{line.b:z.4f}",
        f"{line.difference.mean:+z.4f}" + ("" if half is None else f" ± {half:.4f}"),
        show_p(line.p), show_p(line.signed_rank), "–" if line.margin is None else f"{line.margin:.4f}",
        show_p(line.equivalence_p), line.verdict,
    ]  # fmt: skip


def show_p(p: float | None) -> str:
    """A p-value with three digits; a dash if there is none."""
    return "–" if p is None else "<.001" if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 0.9995 else "1"


def _interval(found: Interval | None) -> str:
    if found is None or found.low is None or found.high is None:
        return "–"
    return f"{found.low:+z.4f} .. {found.high:+z.4f}"


def _reasons(comparison: Comparison) -> list[str]:
    refused = dict.fromkeys(f"No signed-rank p: {line.refused}." for line in comparison.lines if line.refused)
    lacking = {line.group: line.no_users for line in comparison.lines if line.no_users and line.measure != MEAN}
    return [*refused, *(f"{group}: no interval over users: {why}." for group, why in lacking.items())]


def _legend(comparison: Comparison) -> list[str]:
    n = len(comparison.lines)
    return [
        "A, B: means over the seeds that both have. A - B: mean of the differences seed by seed, and the half-width of "
        "its 95 % Student t interval.",
        f"p: paired t test, after Holm over all {n} lines. signed-rank p: exact Wilcoxon test of the line alone.",
        f"margin: a difference of {comparison.margin:g} of skill, in units of the measure. p of equivalence: two "
        f"one-sided t tests that the difference is smaller, after Holm over all {n} lines.",
        "A is: equivalent if the difference is shown to be within the margin, else better or worse if it is shown not "
        "to be zero, else undecided: the seeds do not tell.",
    ]


def _wrap(lines: Iterable[str], width: int | None) -> str:
    return "\n".join(textwrap.fill(line, width or 120, subsequent_indent="  ") for line in lines)
