"""A leaderboard for the console, in Markdown and in JSON. What it says is decided in ``bench.leaderboard.board``."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from tabulate import SEPARATING_LINE

from bench.leaderboard.tables import Board, Cell, Row, Table
from bench.markup import bullets, escape, grid, short, wrap

LABEL_WIDTH = 36  # longer labels are wrapped in the console


def to_console(board: Board, width: int | None = None) -> str:
    """Plain text for a terminal of ``width`` columns (default 200).

    Where a table would be too wide, differences stand under the values, then intervals too.
    """
    width = width or 200
    blocks = []
    for _, table in sections(board):
        for lines in (1, 2, 3):
            shown = _grid(table, lines)
            if max(map(len, shown.splitlines())) <= width:
                break
        title = "\n".join(filter(None, [table.title, wrap([table.caption], width)]))
        blocks += [title, shown, wrap(remarks(table), width)]
    return "\n\n".join(filter(None, [*blocks, wrap(board.legend, width)])) + "\n"


def sections(board: Board) -> Iterator[tuple[int, Table]]:
    """All tables in the order in which they are shown, each with its level: 1, or 2 for the parts of another."""
    for main in board.tables:
        yield 1, main
        yield from ((2, part) for part in main.parts)
    yield from ((1, table) for table in board.overall)


def _grid(table: Table, height: int) -> str:
    """A table whose cells have so many lines: value, interval and difference."""
    lines: list[Any] = []
    before, between = "\n± " if height > 2 else " ± ", "\n" if height > 1 else " "
    for i, row in enumerate(table.rows):
        if i and row.kind != table.rows[i - 1].kind:
            lines.append(SEPARATING_LINE)
        label = textwrap.fill(row.label, LABEL_WIDTH, break_on_hyphens=False)
        lines.append([label, *(_stacked(cell, before, between) for cell in row.cells[1:])])
    headers = [f"{h.name}{between}{h.measure}" if h.metric else h.name.replace(" ", between, 1) for h in table.headers]
    return grid(headers, lines, "simple", alignment(table))


def _stacked(cell: Cell, before: str, between: str) -> str:
    return cell.text.replace(" ± ", before) + delta(cell, between)


def to_markdown(board: Board) -> str:
    """GitHub Markdown: a section for each table, its parts below it, the legend last."""
    blocks = ["# Leaderboard"]
    for level, table in sections(board):
        title = f"#{'#' * level} {escape(table.title)}"
        blocks += [title, escape(table.caption), markdown_table(table), bullets(remarks(table))]
    return "\n\n".join(filter(None, [*blocks, "## Legend", bullets(board.legend)])) + "\n"


def markdown_table(table: Table) -> str:
    """A table in GitHub Markdown, without title, caption and notes."""
    lines = [[_markdown(cell, row) for cell in row.cells] for row in table.rows]
    return grid([escape(str(header)) for header in table.headers], lines, "github", alignment(table))


def _markdown(cell: Cell, row: Row) -> str:
    mark = "**" if cell.bold else "*" if cell is row.cells[0] and row.kind != "competitor" else ""
    return f"{mark}{escape(cell.text)}{mark}{escape(delta(cell, ' '))}"


def to_json(board: Board) -> str:
    """The whole board with full precision: the value of every seed and the keys of the records behind each row."""
    return json.dumps(asdict(board), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def delta(cell: Cell, between: str) -> str:
    """The difference of a cell to the baseline in brackets, with its star; the star alone where the cell is one."""
    star = "*" if cell.star else ""
    return star if cell.difference is None else f"{between}({short(f'{cell.difference.mean:+z.4f}')}{star})"


def remarks(table: Table) -> list[str]:
    """Notes, and the runs without a result with shortened reasons."""
    reasons = [textwrap.shorten(f.reason, 300, placeholder=" ...") for f in table.failures]
    seeds = [f"seed{'s' if len(f.seeds) > 1 else ''} {', '.join(map(str, f.seeds))}" for f in table.failures]
    failures = zip(table.failures, seeds, reasons, strict=True)
    return [*table.notes, *(f"{f.label}: {f.status} ({which}): {why}" for f, which, why in failures)]


def alignment(table: Table) -> list[str]:
    """On which side the cells of each column stand."""
    return ["right" if header.plain else "left" for header in table.headers]
