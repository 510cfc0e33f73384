"""A leaderboard for the console, in Markdown and in JSON. What it says is decided in ``bench.leaderboard``."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from tabulate import SEPARATING_LINE, tabulate

from bench.leaderboard import COSTS, Board, Cell, Row, Table, short

LABEL_WIDTH = 36  # longer labels are wrapped in the console


def to_console(board: Board, width: int | None = None) -> str:
    """Plain text for a terminal of ``width`` columns (default 200).

    Differences stand beside the values, or under them where a table would be too wide.
    """
    width = width or 200
    tables = [table for main in board.tables for table in (main, *main.slices)]
    grids = [_grid(table, " ") for table in tables]
    if max(len(line) for grid in grids for line in grid.splitlines()) > width:
        grids = [_grid(table, "\n") for table in tables]
    blocks = []
    for table, grid in zip(tables, grids, strict=True):
        blocks += [f"{table.title}\n{_wrap([table.caption], width)}", grid, _wrap(_remarks(table), width)]
    return "\n\n".join(filter(None, [*blocks, _wrap(board.legend, width)])) + "\n"


def _grid(table: Table, between: str) -> str:
    lines: list[Any] = []
    for i, row in enumerate(table.rows):
        if i and row.kind != table.rows[i - 1].kind:
            lines.append(SEPARATING_LINE)
        label = textwrap.fill(row.label, LABEL_WIDTH, break_on_hyphens=False)
        lines.append([label, *(cell.text + _delta(cell, between) for cell in row.cells[1:])])
    return _tabulate(table, lines, table.headers, "simple")


def to_markdown(board: Board) -> str:
    """GitHub Markdown: a section for each table, its slices below it, the legend last."""
    blocks = ["# Leaderboard"]
    for level, table in (pair for main in board.tables for pair in [("##", main), *(("###", s) for s in main.slices)]):
        lines = [[_markdown(cell, row) for cell in row.cells] for row in table.rows]
        grid = _tabulate(table, lines, [escape(header) for header in table.headers], "github")
        remarks = "\n".join(f"- {escape(text)}" for text in _remarks(table))
        blocks += [f"{level} {escape(table.title)}", escape(table.caption), grid, remarks]
    legend = "\n".join(f"- {escape(line)}" for line in board.legend)
    return "\n\n".join(filter(None, [*blocks, "## Legend", legend])) + "\n"


def _markdown(cell: Cell, row: Row) -> str:
    mark = "**" if cell.bold else "*" if cell is row.cells[0] and row.kind != "competitor" else ""
    return f"{mark}{escape(cell.text)}{mark}{escape(_delta(cell, ' '))}"


def to_json(board: Board) -> str:
    """The whole board with full precision: the value of every seed and the keys of the records behind each row."""
    return json.dumps(asdict(board), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _delta(cell: Cell, between: str) -> str:
    if cell.difference is None:
        return ""
    return f"{between}({short(f'{cell.difference.mean:+z.4f}')}{'*' if cell.difference.significant else ''})"


def escape(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*|<\[\]])", r"\\\1", text)


def _remarks(table: Table) -> list[str]:
    reasons = [textwrap.shorten(f.reason, 300, placeholder=" ...") for f in table.failures]
    seeds = [f"seed{'s' if len(f.seeds) > 1 else ''} {', '.join(map(str, f.seeds))}" for f in table.failures]
    failures = zip(table.failures, seeds, reasons, strict=True)
    return [*table.notes, *(f"{f.label}: {f.status} ({which}): {why}" for f, which, why in failures)]


def _tabulate(table: Table, lines: list[Any], headers: Iterable[str], style: str) -> str:
    align = ["right" if header in COSTS else "left" for header in table.headers] if lines else []
    return str(tabulate(lines, list(headers), style, disable_numparse=True, colalign=align))


def _wrap(lines: Iterable[str], width: int) -> str:
    return "\n".join(textwrap.fill(line, width, subsequent_indent="  ", break_on_hyphens=False) for line in lines)
