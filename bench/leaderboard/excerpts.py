"""Tables of the leaderboard in a Markdown file such as README.md, each between two comments that say what it shows:

    <!-- table: sim-news; part: cold_item; rows: frozen | single_task | chance; columns: click | mean skill -->
    <!-- /table -->

The first word is the table's title; the others may be left out (docs/leaderboard.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.errors import BenchError, unknown
from bench.leaderboard.render.text import markdown_table
from bench.leaderboard.selection import Selector, one
from bench.leaderboard.tables import Board, Header, Row, Table
from bench.storage.yaml_reader import at

OPEN, CLOSE = re.compile(r"<!-- table: (.+) -->"), "<!-- /table -->"
WORDS = ("part", "rows", "columns")


def filled(path: Path, board: Board) -> str:
    """Returns the text of a file with the tables that its comments ask for in the place of those that stand there.

    Raises BenchError with file and line for a comment that is not understood, asks for what the leaderboard does not
    have, or has no partner; and if the file has none or cannot be read.
    """
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} cannot be read: {error}") from error
    made: list[str] = []
    opened = 0  # the line of a table whose end has not come
    for number, line in enumerate(lines, 1):
        opening, closing = OPEN.fullmatch(line.strip()), line.strip() == CLOSE
        with at(f"{path} line {number}"):
            if (opening and opened) or (closing and not opened):
                raise BenchError(f"comments of tables come in pairs, <!-- table: TITLE --> and then {CLOSE}")
            if opening:
                made += [line, markdown_table(_excerpt(board, opening[1]))]
        opened = number if opening else 0 if closing else opened
        if not opened:
            made.append(line)
    if opened:
        raise BenchError(f"{path} line {opened}: after the table there is no {CLOSE}")
    if CLOSE not in map(str.strip, made):
        raise BenchError(f"{path} has no table to fill; write <!-- table: TITLE --> and {CLOSE} on lines of their own")
    return "\n".join(made)


def _excerpt(board: Board, asked: str) -> Table:
    """The table that a comment asks for: ``TITLE; part: PART; rows: ROW | ROW; columns: NAME | NAME``."""
    title, *fields = (text.strip() for text in asked.split(";"))
    words: dict[str, list[str]] = {}
    for field in fields:
        word, _, names = field.partition(":")
        if word not in WORDS:
            raise unknown("word of a table", word, WORDS)
        words[word] = [name.strip() for name in names.split("|")]
    tables = {table.title: table for table in (*board.tables, *board.overall)}
    if title not in tables:
        raise unknown("table", title, tables)
    table = tables[title]
    for part in words.get("part", []):
        parts = {own.part: own for own in table.parts}
        if part not in parts:
            raise unknown(f"part of {title}", part, parts)
        table = parts[part]
    rows = [_row(name, table) for name in words.get("rows", [])] or table.rows
    return _columns(replace(table, rows=tuple(row for row in table.rows if row in rows)), words.get("columns", []))


def _row(name: str, table: Table) -> Row:
    found = one(Selector.of(name), table.rows, table.title)
    if found is None:
        raise unknown("row", name, [row.label for row in table.rows])
    return found


def _columns(table: Table, names: Sequence[str]) -> Table:
    """The first column and those of these names, which are names of tasks too; all where none is given."""
    known: Sequence[Header] = table.headers[1:]
    for name in names:
        if name not in [header.name for header in known]:
            raise unknown("column", name, [header.name for header in known])
    shown = [0, *(i for i, header in enumerate(known, 1) if not names or header.name in names)]
    rows = tuple(replace(row, cells=tuple(row.cells[i] for i in shown)) for row in table.rows)
    return replace(table, headers=tuple(table.headers[i] for i in shown), rows=rows)
