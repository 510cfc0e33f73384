"""Escaping and wrapping that all reports share."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from functools import partial


def escape(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*|<\[\]])", r"\\\1", text)


def wrap(lines: Iterable[str], width: int | None) -> str:
    """Joins lines, each wrapped to ``width`` characters (120 where none is given) and indented where it goes on."""
    fill = partial(textwrap.fill, width=width or 120, subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(map(fill, lines))
