"""Answers to claims for the console, in Markdown and in JSON."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from tabulate import tabulate

from bench.claims.verify import ALPHA, Finding, Line
from bench.leaderboard.render.comparison import show_p
from bench.markup import escape, wrap

HEADERS = ["data set", "A", "B", "measure", "A - B", "seeds", "p it holds", "p it does not", "settings"]


def to_console(findings: Sequence[Finding], width: int | None = None) -> str:
    """The answers in one table, then the numbers behind each."""
    blocks = [str(tabulate(_summary(findings), ["claim", "answer", "p", "why"], "simple", disable_numparse=True))]
    for finding in findings:
        body = [[textwrap.fill(cell, 36, break_on_hyphens=False) for cell in _cells(line)] for line in finding.lines]
        grid = str(tabulate(body, HEADERS, "simple", disable_numparse=True))
        text = wrap(_about(finding), width)
        blocks.append("\n".join([text, textwrap.indent(grid, "  ")]))
        if finding.commands:
            blocks[-1] += "\n" + "\n".join(f"  {command}" for command in finding.commands)
    return "\n\n".join([*blocks, wrap(_legend(findings), width)]) + "\n"


def to_markdown(findings: Sequence[Finding]) -> str:
    """GitHub Markdown: the answers in one table, a section for each claim, how to read it."""
    summary = [[escape(cell) for cell in row] for row in _summary(findings)]
    blocks = ["# Claims", _github(summary, ["claim", "answer", "p", "why"])]
    for finding in findings:
        body = [[escape(cell) for cell in _cells(line)] for line in finding.lines]
        title, *text = _about(finding)
        blocks += [f"## {escape(title)}", "\n".join(f"- {escape(line)}" for line in text), _github(body, HEADERS)]
        if finding.commands:
            blocks.append("\n".join(["```sh", *finding.commands, "```"]))
    blocks += ["## How to read it", "\n".join(f"- {escape(line)}" for line in _legend(findings))]
    return "\n\n".join(blocks) + "\n"


def to_json(findings: Sequence[Finding]) -> str:
    """All of it, with full precision; rows as they are named."""
    found = [asdict(finding) for finding in findings]
    for entry, finding in zip(found, findings, strict=True):
        entry["claim"]["pairs"] = [[str(a), str(b)] for a, b in finding.claim.pairs]
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _github(body: list[list[str]], headers: list[str]) -> str:
    return str(tabulate(body, headers, "github", disable_numparse=True))


def _summary(findings: Sequence[Finding]) -> list[list[str]]:
    return [[f.claim.name, f.answer, show_p(f.p), f.reason] for f in findings]


def _about(finding: Finding) -> list[str]:
    claim = finding.claim
    tested = {
        "better": f"A is better than B by more than {claim.margin:g} of skill",
        "not worse": f"A is not worse than B by {claim.margin:g} of skill or more",
        "equivalent": f"A and B differ by less than {claim.margin:g} of skill",
    }[claim.test]
    where = {"test": "the test part"}.get(claim.part, f"the slice {claim.part} of the test part")
    lines = [
        f"{claim.name}: {finding.answer}",
        f"Claim: {claim.claim} ({claim.source}).",
        f"Test: {tested}, {claim.holds}, on {where}. Refuted by: {claim.refuted}.",
        *([f"Note: {claim.note}"] if claim.note else []),
        f"Answer: {finding.answer}, p {show_p(finding.p)}: {finding.reason}.",
    ]
    kinds = Counter(line.tuning for line in finding.lines if not line.missing)
    if set(kinds) == {"defaults"}:
        lines.append("All rows have default settings: a difference may come from better defaults.")
    return lines


def _cells(line: Line) -> list[str]:
    if line.difference is None:
        return [line.where, line.a, line.b, line.measure, f"missing: {line.missing}", "", "", "", ""]
    half = "" if line.half_width is None else f" ± {line.half_width:.4f}"
    needed = f" ({line.needed} to settle)" if line.needed and line.needed > len(line.seeds) else ""
    return [
        line.where, line.a, line.b, line.measure, f"{line.difference:+z.4f}{half}", f"{len(line.seeds)}{needed}",
        show_p(line.p_for), show_p(line.p_against), line.tuning,
    ]  # fmt: skip


def _legend(findings: Sequence[Finding]) -> list[str]:
    return [
        "A - B: mean over common seeds of the difference in skill, (value - chance) / (perfect - chance), with the "
        "half-width of its 95 % Student t interval.",
        "p it holds, p it does not: one-sided paired t tests of the line against the margin, not corrected.",
        f"p of a claim: what holds everywhere has the largest p of its lines, what holds somewhere the smallest times "
        f"their number; then Holm over the {len(findings)} claims. Below {ALPHA:g} the claim is confirmed or refuted.",
        "to settle: seeds with which the line alone would be decided, with a chance of .8, if the observed difference "
        "and spread are the true ones.",
        "A and B share data, protocol and budget (epochs, patience). Seeds vary the training alone; the test part is "
        "one and the same. The answers are about these data sets, budgets and settings, not about the papers' own.",
    ]
