"""A leaderboard as comma-separated values in long form: a line for each table, row and column, numbers in full."""

from __future__ import annotations

import csv
import io

from bench.leaderboard.render.text import sections
from bench.leaderboard.tables import Board, Cell

HEADER = (
    "dataset", "table", "method", "kind", "column", "text", "value", "half_width", "seeds", "difference", "p", "star",
    "best",
)  # fmt: skip


def to_csv(board: Board) -> str:
    """Undefined numbers are empty. p is that of the difference, after Holm's correction; star and best are 0 or 1.

    A spreadsheet reads a text that starts with = + - @, a tab or a line end as a formula: it gets an apostrophe before.
    """
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(HEADER)
    for _, table in sections(board):
        for row in table.rows:
            for header, cell in list(zip(table.headers, row.cells, strict=True))[1:]:
                words = [table.dataset, table.title, row.label, str(row.kind), str(header), cell.text]
                lines.writerow([*map(harmless, words), *_numbers(cell)])
        for failure in table.failures:
            words = [table.dataset, table.title, failure.label, failure.status, "", failure.reason]
            lines.writerow([*map(harmless, words), "", "", len(failure.seeds), "", "", "", ""])
    return out.getvalue()


def _numbers(cell: Cell) -> tuple[float | str, ...]:
    difference = cell.difference.mean if cell.difference else None
    numbers = (cell.value, cell.half_width, len(cell.seeds) or None, difference, cell.p)
    return *("" if number is None else number for number in numbers), int(cell.star), int(cell.bold)


def harmless(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text
