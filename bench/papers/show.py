"""A reproduced table, and the plan of one, for the console, in Markdown and in JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench.markup import bullets, escape, folded, github, plus_minus, wrap
from bench.papers.plan import Cost, Job
from bench.papers.table import NO_METHOD, Paper, PublishedRow
from bench.papers.verdict import NOT_COMPARABLE, JudgedFigure, JudgedStatement, Measured, Report
from bench.spec import PAPER, canonical

HEADERS = ("row", "column", "published", "reproduced", "difference", "clean", "bias", "verdict")
CLAIMS = ("claim", "published", "reproduced", "clean", "verdict")
FOLD = 48  # characters of a cell in the console


def to_console(report: Report) -> str:
    """Plain text."""
    blocks = [report.paper.title, wrap(about(report.paper)), folded(HEADERS, _cells(report), FOLD)]
    if report.findings:
        blocks.append(folded(CLAIMS, _claims(report), FOLD))
    return "\n\n".join([*blocks, wrap([*reasons(report), *HOW_TO_READ])]) + "\n"


def to_markdown(report: Report) -> str:
    """GitHub Markdown."""
    blocks = [f"# {escape(report.paper.title)}", bullets(about(report.paper)), github(HEADERS, _cells(report))]
    if report.findings:
        blocks += ["## Claims", github(CLAIMS, _claims(report))]
    return "\n\n".join([*blocks, "## Notes", bullets([*reasons(report), *HOW_TO_READ])]) + "\n"


def to_json(report: Report) -> str:
    """Everything, with the value of every seed."""
    return json.dumps(asdict(report), indent=1, ensure_ascii=False, allow_nan=False)


HOW_TO_READ = (
    "reproduced: mean over seeds in the published protocol, with the half-width of its 95 % Student t interval and the "
    "number of seeds; difference: reproduced - published.",
    "clean: the same settings, selected on validation; bias: reproduced - clean over common seeds, what selection on "
    "the test part gains.",
)


def about(paper: Paper) -> list[str]:
    """Where the figures are from, how they were made, and what is otherwise here."""
    said, protocol = paper.source, paper.protocol
    chosen = {
        "test": "on the test part (a fault, repeated here under paper-1)",
        "validation": "on the validation part, as in the clean protocol",
        "unknown": "not said; taken at its worst, on the test part (paper-1)",
    }
    tolerances = {c.tolerance.why: c.tolerance.within for c in paper.columns if c.tolerance is not None}
    return [
        f"Source: {said['who']}; {said['where']}; {said['version']}.",
        f"Data: {paper.data}",
        f"Published protocol: selection {chosen[protocol.selection]}; {protocol.split}; "
        + (f"mean of {protocol.runs} runs." if protocol.runs else "number of runs unknown."),
        *protocol.notes,
        *(f"Unknown, so our default: {text}" for text in paper.unknown),
        *(f"Otherwise here: {text}" for text in paper.differs),
        *(f"Tolerance {within:g}: {why}" for why, within in tolerances.items()),
        *(f"{row.name}: {row.note}" for row in paper.rows if row.method and row.note),
    ]


def reasons(report: Report) -> list[str]:
    """Why cells were not compared, each reason once, and how many verdicts there are of each kind."""
    several: list[JudgedFigure | JudgedStatement] = [*report.cells, *report.findings]
    said = dict.fromkeys(f"{word}: {sentence}" for item in several for word, sentence in [item.why] if word)
    counts: dict[str, int] = {}
    for item in several:
        if item.verdict:
            counts[item.verdict] = counts.get(item.verdict, 0) + 1
    return [*said, ", ".join(f"{n} {verdict}" for verdict, n in counts.items()) or "no verdict"]


def plan(paper: Paper, rows: Sequence[PublishedRow], planned: Sequence[tuple[Job, Cost]], states: Iterable[str]) -> str:
    """What a reproduction would run and what it would take at most. states: of each data set, whether it can be had."""
    lines = []
    for job, cost in planned:
        protocols = " + ".join("paper" if protocol == PAPER else "clean" for protocol in job.specs)
        dataset, seconds = paper.parts[job.data].dataset, cost.seconds
        time = "unknown" if seconds is None else f"{seconds:,.0f} s"
        knobs = {k: v for k, v in paper.parts[job.data].knobs.items() if k != "tasks"}
        name = f"{dataset} {_settings(knobs)}".strip()
        cells = [job.row.name, job.row.method, name, protocols or "none", str(cost.runs), str(paper.budget["epochs"])]
        lines.append([*cells, f"{cost.rows:,}", time])
    headers = ("row", "method", "data set", "protocols", "runs", "epochs, most", "rows, most", "time, most")
    totals = [cost.seconds for _, cost in planned]
    known = [seconds for seconds in totals if seconds is not None]
    whole = f"{sum(known):,.0f} s"
    if len(known) < len(totals):
        whole = f"unknown ({whole} without the unknown)"
    runs = sum(cost.runs for _, cost in planned)
    own = {job.row.name: job.row.settings for job, _ in planned}
    settings = [f"{name}: {_settings({**paper.settings, **given})}" for name, given in own.items()]
    notes = [
        f"{runs} runs; at most {whole} on one core, the time of a run being rows x epochs / measured rows a second.",
        *dict.fromkeys(f"measured: {cost.like}" for _, cost in planned if cost.like),
        *settings,
        *dict.fromkeys(f"no language model: {job.problem}" for job, _ in planned if job.problem),
        *(f"{NO_METHOD}: {row.name}{f' ({row.note})' if row.note else ''}" for row in rows if not row.method),
        *(f"{NOT_COMPARABLE}: {c.name}: {c.not_comparable}" for c in paper.columns if c.not_comparable),
        *(f"data: {text}" for text in states),
    ]
    return "\n\n".join([paper.title, wrap(about(paper)), folded(headers, lines, FOLD), wrap(notes)]) + "\n"


def plan_json(paper: Paper, planned: Sequence[tuple[Job, Cost]], states: Sequence[str]) -> str:
    """JSON of what a reproduction would run: settings, keys of the runs and cost of each row and data set."""
    runs = [
        {
            "row": job.row.name,
            "method": job.row.method,
            "dataset": paper.parts[job.data].dataset,
            "knobs": paper.parts[job.data].knobs,
            "settings": {**paper.settings, **job.row.settings},
            "budget": paper.budget,
            "keys": {protocol: [spec.key for spec in of] for protocol, of in job.specs.items()},
            "problem": job.problem,
            "cost": asdict(cost),
        }
        for job, cost in planned
    ]
    about = {"name": paper.name, "title": paper.title, "unknown": paper.unknown, "differs": paper.differs}
    return json.dumps({**about, "runs": runs, "data": list(states)}, indent=1, ensure_ascii=False, allow_nan=False)


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={canonical(value)}" for key, value in values.items())


def _cells(report: Report) -> list[list[str]]:
    columns = enumerate(report.paper.columns)
    decimals = {c.name: _decimals(row.figures[i] for row in report.paper.rows) for i, c in columns}
    return [
        [
            cell.row,
            cell.column,
            "" if cell.published is None else f"{cell.published:.{decimals[cell.column]}f}",
            _value(cell.reproduced, decimals[cell.column]),
            _signed(cell.difference, decimals[cell.column]),
            _value(cell.clean, decimals[cell.column]),
            _signed(cell.bias, decimals[cell.column]),
            f"{cell.verdict}: {cell.why[0]}" if cell.why[0] else cell.verdict,
        ]
        for cell in report.cells
    ]


def _claims(report: Report) -> list[list[str]]:
    return [
        [
            found.text,
            f"> {found.above:g}",
            _value(found.reproduced),
            _value(found.clean),
            f"{found.verdict}: {found.why[0]}" if found.why[0] else found.verdict,
        ]
        for found in report.findings
    ]


def _decimals(figures: Iterable[float | None]) -> int:
    """Returns how many decimals a column was published with; 4 where it was not."""
    known = [len(f"{figure:.7f}".rstrip("0").partition(".")[2]) for figure in figures if figure is not None]
    return max(known, default=4)


def _value(found: Measured | None, decimals: int = 4) -> str:
    if found is None:
        return ""
    return f"{found.mean:.{decimals}f}{plus_minus(found.half_width, decimals)} ({len(found.seeds)})"


def _signed(number: float | None, decimals: int) -> str:
    return "" if number is None else f"{number:+z.{decimals}f}"
