"""Figures for papers, drawn by matplotlib. The same numbers give the same bytes."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from bench.errors import extra
from bench.leaderboard.figures.shapes import Figure, Grid, Panel, Ranking

with extra("figures"):
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import SymLogNorm
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

Format = Literal["svg", "png"]

# Okabe and Ito's colours, which colour-blind readers can tell apart, and dashes for the lines after the first eight.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
DASHES = ("-", "--", ":", "-.")
GREY = "#777777"
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "bench",  # names inside the file
    "font.family": ["DejaVu Sans"],  # comes with matplotlib
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "savefig.dpi": 150,
    "text.parse_math": False,  # a dollar in a name is a dollar
}


def draw(figure: Figure, form: Format) -> bytes:
    """A figure as the bytes of an SVG or PNG file, without a date or anything of the machine."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # the user's own style does not matter
        matplotlib.rcParams.update(STYLE)
        canvas = _canvas(figure)
        FigureCanvasAgg(canvas)
        file, unsigned = io.BytesIO(), {"svg": ("Date", "Creator"), "png": ("Software",)}[form]
        canvas.savefig(file, format=form, metadata=dict.fromkeys(unsigned), bbox_inches="tight")
    return file.getvalue()


def _canvas(figure: Figure) -> Canvas:
    canvas = Canvas(layout="constrained")
    width = 7.0
    if figure.grid is not None:
        width = 2.6 + 0.75 * len(figure.grid.columns)
        _grid(canvas, figure.grid, width)
    elif figure.ranking is not None:
        _ranking(canvas, figure.ranking, width)
    else:
        _panels(canvas, figure, width)
    canvas.suptitle(textwrap.fill(figure.title, round(12 * width)), fontsize=10)
    below = sum(0.05 + 0.15 * math.ceil(len(legend.texts) / 2) for legend in canvas.legends) + 0.1  # inches
    canvas.text(
        0.02,
        -below / canvas.get_figheight(),
        textwrap.fill(figure.caption, round(17 * width)),
        fontsize=7,
        color="#444444",
        va="top",
    )
    return canvas


def _panels(canvas: Canvas, figure: Figure, width: float) -> None:
    scatter = any(panel.points for panel in figure.panels)
    across = min(2 if scatter else 3, len(figure.panels))
    down = math.ceil(len(figure.panels) / across)
    canvas.set_size_inches(width, (2.0 if across == 3 else 3.4) * down + 0.9)
    draw_one: Callable[[Axes, Panel], None] = _scatter if scatter else _lines(figure.shown)
    axes: Sequence[Axes] = list(canvas.subplots(down, across, squeeze=False, sharey=scatter).flat)
    for i, (ax, panel) in enumerate(zip(axes, figure.panels, strict=False)):
        ax.set(title=panel.title, xlabel=panel.x_label, ylabel="" if scatter and i else panel.y_label)
        ax.grid(True)
        draw_one(ax, panel)
    for ax in axes[len(figure.panels) :]:
        ax.set_axis_off()
    named = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    canvas.legend(named.values(), named, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, fontsize=7)


def _scatter(ax: Axes, panel: Panel) -> None:
    """The competitors' range of skill; a reference below it would leave no room for them."""
    rivals = [p for p in panel.points if p.kind == "competitor"]
    low = min(p.skill - (p.half_width or 0) for p in rivals)
    seen = [p for p in panel.points if p.skill >= low]
    for kind, colour, marker in (("competitor", COLOURS[0], "o"), ("reference", GREY, "s")):
        points = [p for p in seen if p.kind == kind]
        error: Any = [p.half_width or 0.0 for p in points]
        x, y = [p.cost for p in points], [p.skill for p in points]
        ax.errorbar(x, y, yerr=error, fmt="none", ecolor=colour, elinewidth=0.5, alpha=0.35)
        ax.plot(x, y, marker, color=colour, markersize=3.5, markeredgecolor="white", markeredgewidth=0.4, label=kind)
    front = sorted((p for p in seen if p.front), key=lambda p: (p.cost, p.skill))
    ax.plot([p.cost for p in front], [p.skill for p in front], color=COLOURS[1], linewidth=1, label="Pareto front")
    for i, p in enumerate(front, 1):
        ax.annotate(str(i), (p.cost, p.skill), (-3, 2), textcoords="offset points", ha="right", color=COLOURS[1])
    key = "\n".join(textwrap.fill(f"{i} {p.label}", 50, subsequent_indent="   ") for i, p in enumerate(front, 1))
    ax.text(0, -0.17, key, transform=ax.transAxes, va="top", fontsize=6.5, color=COLOURS[1])
    ax.set_xscale("log")
    costs = [p.cost for p in seen]
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(costs) < 200 * min(costs) else (1,)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _rounded(x)))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _rounded(number: float) -> str:
    """A tick of a logarithmic axis: 0.5, 20, 200k, 1M."""
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:g}{sign}"
    return f"{number:g}"


def _lines(shown: Sequence[str]) -> Callable[[Axes, Panel], None]:
    def lines(ax: Axes, panel: Panel) -> None:
        steps = "steps-post" if not any(line.low for line in panel.lines) else "default"
        for line in panel.lines:
            if line.label not in shown:
                continue
            i = shown.index(line.label)
            colour, dash = COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]
            ax.plot(line.x, line.y, dash, color=colour, label=line.label, drawstyle=steps)
            if line.low:
                ax.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))

    return lines


def _grid(canvas: Canvas, grid: Grid, width: float) -> None:
    canvas.set_size_inches(width, 1.6 + 0.19 * len(grid.rows))
    values = np.array([[np.nan if v is None else v for v in row] for row in grid.values])
    known = np.abs(values[np.isfinite(values)])
    reach = max(float(known.max()) if known.size else 0.0, 10.0)
    norm = SymLogNorm(1, vmin=-reach, vmax=reach)  # so that one large loss does not pale all others
    ax = canvas.subplots()
    mesh = ax.pcolormesh(values, cmap="RdBu", norm=norm, edgecolors="white", linewidth=0.5)
    ax.set_xticks(np.arange(len(grid.columns)) + 0.5, grid.columns, rotation=30, ha="left", rotation_mode="anchor")
    ax.xaxis.tick_top()
    ax.set_yticks(np.arange(len(grid.rows)) + 0.5, grid.rows, fontsize=7)
    ax.invert_yaxis()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.axvline(len(grid.columns) - 1, color="white", linewidth=3)
    for i, row in enumerate(grid.values):
        for j, value in enumerate(row):
            text = "–" if value is None else f"{value:+z.1f}{'*' if grid.stars[i][j] else ''}"
            dark = value is not None and abs(float(norm(value)) - 0.5) > 0.28
            ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=6.5, color="white" if dark else "black")
    powers = [10.0**power for power in range(math.floor(math.log10(reach)) + 1)]
    ticks = [*(-power for power in reversed(powers)), 0.0, *powers]
    bar = canvas.colorbar(mesh, ax=ax, shrink=min(1.0, 2.5 / (0.19 * len(grid.rows))), pad=0.02, ticks=ticks)
    bar.ax.set_yticklabels([f"{tick:+g}" if tick else "0" for tick in ticks])
    bar.set_label("gain, %")


def _ranking(canvas: Canvas, ranking: Ranking, width: float) -> None:
    """Names on both sides of an axis of ranks, the better half on the left."""
    count = len(ranking.labels)
    half, levels = math.ceil(count / 2), len(ranking.groups)
    step, bar = 0.17, 0.1  # inches
    base = 0.35 + bar * levels
    height = base + step * half + 0.2
    canvas.set_size_inches(width, height + 0.9)
    canvas.set_layout_engine("none")
    ax = canvas.add_axes((0, 0, 1, 0.93))
    low, high = math.floor(ranking.ranks[0]), math.ceil(ranking.ranks[-1])
    margin = 0.55 * (high - low)
    ax.set(xlim=(low - margin, high + margin), ylim=(height, -0.7))
    ax.set_axis_off()
    ax.plot([low, high], [0, 0], color="black", linewidth=1)
    for tick in MaxNLocator(8, integer=True).tick_values(low, high):
        if low <= tick <= high:
            ax.plot([tick, tick], [0, -0.06], color="black", linewidth=0.8)
            ax.text(tick, -0.1, f"{tick:g}", ha="center", va="bottom")
    ax.plot([low, low + ranking.critical], [-0.45, -0.45], color=COLOURS[1], linewidth=2)
    ax.text(low, -0.5, f"critical difference {ranking.critical:.2f}", ha="left", va="bottom", fontsize=7)
    for level, (first, last) in enumerate(ranking.groups):
        at = 0.15 + bar * level
        ax.plot([ranking.ranks[first], ranking.ranks[last]], [at, at], color=GREY, linewidth=2, alpha=0.8)
    for i, (label, rank) in enumerate(zip(ranking.labels, ranking.ranks, strict=True)):
        left = i < half
        at = base + step * (i if left else count - 1 - i)
        edge = low - 0.02 * (high - low) if left else high + 0.02 * (high - low)
        ax.plot([rank, rank, edge], [0, at, at], color="black", linewidth=0.4, alpha=0.7)
        text = f"{label}  {rank:.1f}" if left else f"{rank:.1f}  {label}"
        ax.text(edge, at, text, ha="right" if left else "left", va="center", fontsize=6.5)
