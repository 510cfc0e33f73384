"""A leaderboard as one static web page: a folder that any browser opens, without a server or a network.

Everything is in one file: texts reach it as JSON and are only ever set as text, and its policy forbids any script but
its own and any request.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bench import registry
from bench.leaderboard.figures.contents import slugs
from bench.leaderboard.figures.shapes import Figure
from bench.leaderboard.grouping import Record
from bench.leaderboard.render.text import delta, remarks
from bench.leaderboard.tables import Board, Cell, Header, Row, Table
from bench.leaderboard.terms import YARDSTICKS
from bench.spec.command import reproduce_command

TEMPLATES = Path(__file__).parent
FAMILIES = {"baselines": "baseline", "methods": "method"}
DIGITS = 6  # significant digits of numbers that are drawn or sorted; texts are the leaderboard's own


def to_html(board: Board, records: Iterable[Record], figures: Iterable[Figure]) -> str:
    """The page of a board and its figures; ``records``: those behind it, for each row's settings and command."""
    runs = {record["key"]: record for record in records}
    families = {name: FAMILIES[entry.kind] for name, entry in registry.methods().items()}
    tables = (*board.tables, *board.overall)
    names = slugs([table.title for table in tables])
    groups = [{"id": name, **_group(table, runs, families)} for name, table in zip(names, tables, strict=True)]
    known = {row["label"]: row for group in groups for row in group["rows"] if row["keys"]}
    for row in [row for group in groups for row in group["rows"] if row["label"] in known]:
        row |= {name: known[row["label"]][name] for name in ("family", "text")}  # rows over data sets have no runs
    data = {"legend": board.legend, "groups": groups}
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    script = "".join((TEMPLATES / name).read_text("utf-8") for name in ("charts.js", "page.js"))
    style = (TEMPLATES / "page.css").read_text("utf-8")
    return environment.get_template("page.html").render(
        runs=len(runs),
        script=script,
        style=style,
        policy=f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; base-uri 'none'; "
        "form-action 'none'",
        data=embedded(data),
        figures=embedded([{k: v for k, v in asdict(figure).items() if v not in (None, ())} for figure in figures]),
    )


def embedded(value: Any) -> str:
    """JSON for a script block, which no text in it can end; numbers with as many digits as are drawn or sorted by."""
    form = partial(json.dumps, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)
    rounded = json.loads(form(value), parse_float=lambda number: float(f"{float(number):.{DIGITS}g}"))
    return str(form(rounded)).replace("<", "\\u003c")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _group(table: Table, runs: Mapping[str, Record], families: Mapping[str, str]) -> dict[str, Any]:
    """A table, its parts, and what is known of the rows of all."""
    rows = {row.label: row for part in (table, *table.parts) for row in part.rows}
    places = {label: i for i, label in enumerate(rows)}
    return {
        "title": table.title,
        "rows": [_row(row, runs, families) for row in rows.values()],
        "tables": [_table(part, places) for part in (table, *table.parts)],
    }


def _table(table: Table, places: Mapping[str, int]) -> dict[str, Any]:
    return {
        "title": table.title,
        "caption": table.caption,
        "headers": [_header(header, not i) for i, header in enumerate(table.headers)],
        "cells": [[places[row.label], *(_cell(cell) for cell in row.cells[1:])] for row in table.rows],
        "notes": remarks(table),
    }


def _header(header: Header, first: bool) -> dict[str, Any]:
    """What is shown, the task of a task's column, and the order in which it is sorted at first."""
    task = {"task": header.name, "measure": header.measure} if header.metric else {}
    return {"text": str(header), "plain": header.plain, "up": first or header.plain or header.larger is False, **task}


def _cell(cell: Cell) -> list[Any]:
    """Text, number to sort by, difference, whether it is the best, and the value of each seed."""
    return [cell.text, cell.value, delta(cell, ""), int(cell.bold), cell.seeds]


def _row(row: Row, runs: Mapping[str, Record], families: Mapping[str, str]) -> dict[str, Any]:
    known = {"label": row.label, "family": row.kind, "text": False}
    specs = [runs[key]["spec"] for _, key in sorted(row.keys.items()) if key in runs]
    if row.kind in YARDSTICKS or not specs:
        return {**known, "config": {}, "keys": {}, "command": ""}
    return {
        "label": row.label,
        "family": row.kind if row.kind == "reference" else families.get(row.method, "method"),
        "text": bool(specs[0]["lm"]),
        "config": row.config,
        "keys": row.keys,
        "command": reproduce_command(specs[0], 1 + max(row.keys)),
    }
