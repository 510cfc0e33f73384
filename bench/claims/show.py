"""Answers to claims for the console, in Markdown and in JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from textwrap import indent

from bench.claims.verify import Evidence, Finding
from bench.markup import bullets, escape, folded, github, grid, plus_minus, show_p, wrap
from bench.statistics.many import ALPHA

SUMMARY = ["claim", "answer", "p", "why"]
HEADERS = ["data set", "A", "B", "measure", "A - B", "seeds", "p it holds", "p it does not", "settings"]


def to_console(findings: Sequence[Finding], width: int | None = None) -> str:
    """The answers in one table, then the numbers behind each."""
    blocks = [grid(SUMMARY, _summary(findings))]
    for finding in findings:
        table = indent(folded(HEADERS, map(_cells, finding.lines), 36), "  ")
        blocks.append("\n".join([wrap(_about(finding), width), table, *(f"  {line}" for line in finding.commands)]))
    return "\n\n".join([*blocks, wrap(_legend(findings), width)]) + "\n"


def to_markdown(findings: Sequence[Finding]) -> str:
    """GitHub Markdown: the answers in one table, a section for each claim, how to read it."""
    blocks = ["# Claims", github(SUMMARY, _summary(findings))]
    for finding in findings:
        title, *text = _about(finding)
        blocks += [f"## {escape(title)}", bullets(text), github(HEADERS, map(_cells, finding.lines))]
        if finding.commands:
            blocks.append("\n".join(["```sh", *finding.commands, "```"]))
    return "\n\n".join([*blocks, "## How to read it", bullets(_legend(findings))]) + "\n"


def to_json(findings: Sequence[Finding]) -> str:
    """All of it, with full precision; rows as they are named."""
    found = [asdict(finding) for finding in findings]
    for entry, finding in zip(found, findings, strict=True):
        entry["claim"]["pairs"] = [[str(a), str(b)] for a, b in finding.claim.pairs]
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


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


def _cells(line: Evidence) -> list[str]:
    if line.difference is None:
        return [line.where, line.a, line.b, line.measure, f"missing: {line.missing}", "", "", "", ""]
    needed = f" ({line.needed} to settle)" if line.needed and line.needed > len(line.seeds) else ""
    difference = f"{line.difference:+z.4f}{plus_minus(line.half_width)}"
    return [
        line.where, line.a, line.b, line.measure, difference, f"{len(line.seeds)}{needed}",
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
