"""An explanation as Markdown, and as one HTML file with its figures inside. Both say the same numbers."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import extra
from bench.explain.attribute import CHANGED
from bench.markup import escape, github

with extra("explain"):
    import matplotlib
    from matplotlib.figure import Figure as Canvas

TEMPLATE = Path(__file__).with_name("explain.html")
Matrix = Sequence[Sequence[float | None]]


@dataclass
class TextTable:
    """Cells as text; the first column names the row."""

    title: str
    headers: list[str]
    rows: list[list[str]]


@dataclass
class Drawing:
    """A figure and, for those who cannot see it, what it shows."""

    alt: str
    figure: Canvas

    @property
    def source(self) -> str:
        """A data URI of its SVG: nothing is fetched, and the figures' ids, hashes of a fixed salt, cannot clash."""
        file = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "bench", "svg.fonttype": "none"}):
            self.figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
        return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()


@dataclass
class Section:
    """A part of the report: how to read it, tables, figures."""

    title: str
    text: str
    tables: list[TextTable] = field(default_factory=list)
    figures: list[Drawing] = field(default_factory=list)


def to_markdown(found: dict[str, Any]) -> str:
    """GitHub Markdown, tables without figures."""
    title, about, sections = _parts(found)
    blocks = [f"# {escape(title)}", escape(about)]
    for section in sections:
        blocks += [f"## {section.title}", escape(section.text)]
        for table in section.tables:
            align = ["left", *["right"] * (len(table.headers) - 1)]
            blocks += [f"### {escape(table.title)}", github(table.headers, table.rows, align)]
    return "\n\n".join(blocks) + "\n"


def to_html(found: dict[str, Any]) -> str:
    """One page that needs no other file."""
    from jinja2 import Environment, StrictUndefined

    title, about, sections = _parts(found)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text("utf-8"))
    return template.render(title=title, about=about, sections=sections) + "\n"


def _parts(found: dict[str, Any]) -> tuple[str, str, list[Section]]:
    spec, names = found["spec"], [t["name"] for t in found["tasks"]]
    title = f"How the tasks of {spec['method']} work on one another: {spec['dataset']}, seed {spec['seed']}"
    about = (
        f"Run {found['key']}, trained again with measurements that change nothing. Only the training and validation "
        "parts were used. What stands here describes this one model; other seeds may tell otherwise."
    )
    sections = [
        _affinity(found["training"], names),
        _cosines(found["training"], names),
        _gates(found["gates"]),
        _attribution(found["attribution"], names),
        _checks(found["attribution"]),
        _transparent(found["transparent"], names),
        _consistency(found["consistency"]),
    ]
    return title, about, sections


def _affinity(training: dict[str, Any], names: list[str]) -> Section:
    section = Section(
        "Affinity",
        "Z(i, j) = 1 - L_j(after a step along task i's gradient) / L_j(before), for the shared parameters (TAG, Fifty "
        f"et al. 2021): mean over {training['measurements']} training steps and standard error, in thousandths. "
        "Positive: a step for the row's task lowers the loss of the column's. It is noisy and not symmetric; only what "
        "is several standard errors from 0 says anything.",
    )
    affinity = training["affinity"]
    if affinity is None:
        section.text = "Nothing was measured: the method takes no training steps."
        return section
    mean, error = (_array(affinity[key]) * 1000 for key in ("mean", "error"))
    cells = [
        [a, *(f"{_number(m)} ± {_number(e)}" for m, e in zip(*row, strict=True))]
        for a, *row in zip(names, mean, error, strict=True)
    ]
    section.tables = [TextTable("Thousandths of the column's loss", ["step for", *names], cells)]
    section.figures = [_heatmap("Affinity of tasks, thousandths", mean, names, names, signed=True)]
    return section


def _cosines(training: dict[str, Any], names: list[str]) -> Section:
    section = Section(
        "Gradient cosines",
        "Mean cosine between the gradients of two tasks, for each module with shared parameters, and in brackets how "
        "often it is below 0 (conflict).",
    )
    for module, found in training["cosine"].items():
        mean, conflict = _array(found["mean"]), _array(found["conflict"])
        cells = [
            [a, *("" if i == j else f"{_number(mean[i, j])} ({_percent(conflict[i, j])})" for j in range(len(names)))]
            for i, a in enumerate(names)
        ]
        section.tables.append(TextTable(f"Module: {module}", ["", *names], cells))
        section.figures.append(_heatmap(f"Gradient cosines: {module}", mean, names, names, signed=True, most=1.0))
    if not section.tables:
        section.text = "No parameter is shared by two tasks."
    return section


def _gates(gates: dict[str, Any]) -> Section:
    section = Section(
        "Gate utilisation",
        "Each expert's share of a gate's weight over the validation part. Entropy is relative to equal shares: 1 is "
        "equal, 0 one expert alone. A dead expert has less than a tenth of an equal share.",
    )
    if not gates:
        section.text = "The method has no gates."
        return section
    most = max(len(g["usage"]) for g in gates.values())
    shares = np.array([[*g["usage"], *[np.nan] * (most - len(g["usage"]))] for g in gates.values()])
    experts = [f"expert {k + 1}" for k in range(most)]
    cells = [
        [name, *map(_percent, row), _number(g["entropy"]), _percent(g["dead"])]
        for (name, g), row in zip(gates.items(), shares, strict=True)
    ]
    section.tables = [TextTable("Shares", ["gate", *experts, "entropy", "dead"], cells)]
    section.figures = [_heatmap("Experts' shares of each gate", shares, list(gates), experts)]
    return section


def _attribution(attribution: dict[str, Any] | None, names: list[str]) -> Section:
    if attribution is None:
        return Section("Attributions", "The method has no input layer whose inputs can be masked one by one.")
    inputs, tasks = attribution["inputs"], attribution["tasks"]
    share = np.array([tasks[n]["share"] for n in names])
    agreement = np.eye(len(names))
    for pair in attribution["agreement"]:
        i, j = (names.index(n) for n in pair["tasks"])
        agreement[i, j] = agreement[j, i] = np.nan if pair["correlation"] is None else pair["correlation"]
    shares = [[n, *map(_percent, row)] for n, row in zip(names, share, strict=True)]
    correlations = [[n, *map(_number, row)] for n, row in zip(names, agreement, strict=True)]
    return Section(
        "Attributions",
        f"Integrated gradients on {attribution['rows']} validation rows, from inputs that are all missing to those "
        "that are there: each input's share of the attributions' size. Agreement of two tasks: Spearman's correlation "
        "of the sizes in a row, over the inputs that both may see, as a mean over the rows.",
        [
            TextTable("Shares of the inputs", ["task", *inputs], shares),
            TextTable("Agreement", ["", *names], correlations),
        ],
        [
            _heatmap("Inputs' shares of the attributions of each task", share, names, inputs),
            _heatmap("Rank correlation of attributions", agreement, names, names, signed=True, most=1.0),
        ],
    )


def _checks(attribution: dict[str, Any] | None) -> Section:
    if attribution is None:
        return Section("Sanity checks", "None without attributions.")
    rows = []
    for name, task in attribution["tasks"].items():
        removal, random = task["deletion"], task["shuffled"]
        gain = f"{_number(removal['difference'])} ± {_number(removal['error'])}" if removal else ""
        verdicts = [_verdict(removal and removal["passed"]), _verdict(random["passed"])]
        rows.append([name, _percent(task["gap"]), gain, verdicts[0], _number(random["correlation"]), verdicts[1]])
    headers = ["task", "completeness gap", "deletion", "", "shuffled weights", ""]
    return Section(
        "Sanity checks",
        "Completeness gap: how far attributions are from adding up to the output's change. Deletion: masking inputs by "
        "attribution moves the output back further than masking them at random (difference of the curves' mean "
        "heights, relative to the whole change; passed if above 0 by two standard errors). Shuffled weights: rank "
        "correlation with the attributions that the model has with each parameter's values shuffled, signs included "
        f"(passed if below {CHANGED}: they depend on what was learned). Do not read attributions of a task that fails.",
        [TextTable("Checks", headers, rows)],
        [_curves({k: t["deletion"] for k, t in attribution["tasks"].items() if t["deletion"]})],
    )


def _transparent(found: dict[str, Any], names: list[str]) -> Section:
    rows = []
    for name in names:
        one = found[name]
        cells = ("" if n == name else _number(one["coefficients"].get(n)) for n in names)
        rows.append([name, _number(one["measure"]), _number(one["base"]), *cells])
    return Section(
        "One task's output from the others'",
        "A linear model, fitted on the first half of the validation part and measured on the second: R² of log-odds, "
        "values and scores; for classes, how often it finds the likeliest one. Base is what a constant reaches. "
        "Coefficients are of standardised outputs; for classes, the norm of several. A measure near 1: the task's "
        "output adds little to the others'.",
        [TextTable("Linear models", ["task", "measure", "base", *names], rows)],
    )


def _consistency(rules: list[dict[str, Any]]) -> Section:
    section = Section(
        "Consistency",
        "Rules that the training labels keep without exception, and the share of validation rows whose predictions "
        "break them (a product: are off by more than a tenth). Size: mean excess of the rows that break an inequality, "
        "mean distance of all rows from a product.",
    )
    if not rules:
        section.text = "The training labels of the binary tasks keep no rule that predictions could break."
        return section
    cells = [[r["rule"], str(r["rows"]), _percent(r["violations"]), f"{r['size']:.2g}"] for r in rules]
    section.tables = [TextTable("Rules", ["rule", "training rows", "broken", "size"], cells)]
    return section


def _array(matrix: Matrix) -> np.ndarray:
    return np.array(matrix, dtype=np.float64)


def _number(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:z.2f}"


def _percent(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{100 * value:z.1f} %"


def _verdict(passed: bool | None) -> str:
    return "" if passed is None else "passed" if passed else "FAILED"


def _heatmap(
    title: str, values: np.ndarray, rows: list[str], columns: list[str], *, signed: bool = False, most: float = 0.0
) -> Drawing:
    figure, axes = _figure(2.2 + 0.62 * len(columns), 1.7 + 0.36 * len(rows), title)
    off = values[~np.eye(len(rows), dtype=bool)] if signed and rows == columns else values
    top = most or float(np.nanmax(np.abs(off), initial=0.0)) or 1.0
    axes.imshow(values, cmap="RdBu" if signed else "Blues", vmin=-top if signed else 0.0, vmax=top, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    for (i, j), value in np.ndenumerate(values):
        colour = "white" if abs(value) > 0.6 * top else "black"
        axes.text(j, i, _number(value), ha="center", va="center", fontsize=7, color=colour)
    return Drawing(title, figure)


def _curves(tests: dict[str, dict[str, Any]]) -> Drawing:
    title = "Deletion: how far the output goes back (solid: by attribution, dotted: at random)"
    figure, axes = _figure(7.0, 3.6, title)
    for i, (name, test) in enumerate(tests.items()):
        for key, style in (("moved", "-"), ("random", ":")):
            points = [0.0, *test[key]]
            axes.plot(range(len(points)), points, style, color=f"C{i % 10}", label=name if key == "moved" else None)
    axes.set_xlabel("inputs masked", fontsize=8)
    axes.tick_params(labelsize=8)
    if tests:
        axes.legend(fontsize=7)
    return Drawing(title, figure)


def _figure(width: float, height: float, title: str) -> tuple[Canvas, Any]:
    figure = Canvas(figsize=(width, height))
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=9, loc="left")
    return figure, axes
