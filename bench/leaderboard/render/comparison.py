"""A head-to-head comparison for the console and in JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

from bench.leaderboard.compare import Contrast, HeadToHead
from bench.leaderboard.terms import MEAN
from bench.markup import DASH, grid, plus_minus, show_p, wrap
from bench.statistics.bootstrap import Interval


def to_json(comparison: HeadToHead) -> str:
    """All of it, with full precision."""
    return json.dumps(asdict(comparison), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_console(comparison: HeadToHead, width: int | None = None) -> str:
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
        blocks += [f"{title}, seeds {seeds}", grid(headers, body)]
    blocks.append(wrap([*comparison.notes, *_reasons(comparison)], width))
    return "\n\n".join([*blocks, wrap(_legend(comparison), width)]) + "\n"


def _cells(line: Contrast) -> list[str]:
    return [
        f"{line.measure} {'↑' if line.larger else '↓'}", f"{line.a:z.4f}", f"{line.b:z.4f}",
        f"{line.difference.mean:+z.4f}{plus_minus(line.difference.half_width)}",
        show_p(line.p), show_p(line.signed_rank), DASH if line.margin is None else f"{line.margin:.4f}",
        show_p(line.equivalence_p), line.verdict,
    ]  # fmt: skip


def _interval(found: Interval | None) -> str:
    if found is None or found.low is None or found.high is None:
        return DASH
    return f"{found.low:+z.4f} .. {found.high:+z.4f}"


def _reasons(comparison: HeadToHead) -> list[str]:
    refused = dict.fromkeys(f"No signed-rank p: {line.refused}." for line in comparison.lines if line.refused)
    lacking = {line.group: line.no_users for line in comparison.lines if line.no_users and line.measure != MEAN}
    return [*refused, *(f"{group}: no interval over users: {why}." for group, why in lacking.items())]


def _legend(comparison: HeadToHead) -> list[str]:
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
