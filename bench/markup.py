"""Escaping, wrapping, tables and forms of numbers that all reports share."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from tabulate import tabulate

DASH = "–"  # in the place of a value that is undefined


def escape(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*|<\[\]])", r"\\\1", text)


def wrap(lines: Iterable[str], width: int | None = None) -> str:
    """Joins lines, each wrapped to ``width`` characters (120 where none is given) and indented where it goes on."""
    fill = partial(textwrap.fill, width=width or 120, subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(map(fill, lines))


def bullets(lines: Iterable[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {escape(line)}" for line in lines)


def grid(headers: Sequence[str], lines: Sequence[Any], style: str = "simple", align: Sequence[str] = ()) -> str:
    """A table in a style of tabulate; its cells are text and stay as they are. ``align``: left or right by column."""
    return str(tabulate(lines, list(headers), style, disable_numparse=True, colalign=align if lines else ()))


def github(headers: Sequence[str], lines: Iterable[Sequence[str]], align: Sequence[str] = ()) -> str:
    """A Markdown table that shows its cells as they are."""
    return grid([escape(text) for text in headers], [[escape(c) for c in line] for line in lines], "github", align)


def folded(headers: Sequence[str], lines: Iterable[Sequence[str]], width: int) -> str:
    """A table for the console whose cells are wrapped to so many characters."""
    fill = partial(textwrap.fill, width=width, break_on_hyphens=False)
    return grid(headers, [[fill(cell) for cell in line] for line in lines])


def short(text: str) -> str:
    """Formatted numbers without the zeros before their points."""
    return re.sub(r"(?<!\d)0\.", ".", text)


def show_p(p: float | None) -> str:
    """A p-value with three digits; a dash if there is none."""
    return DASH if p is None else "<.001" if p < 0.001 else short(f"{p:.3f}") if p < 0.9995 else "1"


def plus_minus(half_width: float | None, digits: int = 4) -> str:
    """What follows a mean: the half-width of its interval; nothing where there is none."""
    return "" if half_width is None else f" ± {half_width:.{digits}f}"
