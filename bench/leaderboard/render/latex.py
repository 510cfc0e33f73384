r"""A leaderboard in LaTeX: one booktabs table for each table, for a document that loads booktabs and textcomp.

\documentclass{article}
\usepackage[utf8]{inputenc} \usepackage[T1]{fontenc} \usepackage{textcomp,booktabs,graphicx}
\begin{document} \input{board.tex} \end{document}
"""

from __future__ import annotations

import re
import unicodedata

from bench.leaderboard.render.text import alignment, delta, remarks, sections
from bench.leaderboard.tables import Board, Cell, Row, Table
from bench.markup import grid

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "'": r"\textquotesingle{}", "`": r"\textasciigrave{}",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "±": r"$\pm$", "–": r"--", "Δ": r"$\Delta$", "α": r"$\alpha$",
    "*": r"\textasteriskcentered{}", "[": "{[}", "]": "{]}", "-": "{-}",
}  # fmt: skip


def to_latex(board: Board) -> str:
    """A ``table`` for each table, scaled to the width of the text, with its notes below; the legend at the end."""
    blocks = [_float(table) for _, table in sections(board)]
    legend = "\n".join(rf"\item {escape(line)}" for line in board.legend)
    return "\n\n".join([*blocks, f"\\begin{{itemize}}\n{legend}\n\\end{{itemize}}"]) + "\n"


def _float(table: Table) -> str:
    lines = [[_text(cell, row) for cell in row.cells] for row in table.rows]
    shown = grid([escape(str(header)) for header in table.headers], lines, "latex_raw", alignment(table))
    for rule in ("toprule", "midrule", "bottomrule"):
        shown = shown.replace("\\hline", f"\\{rule}", 1)
    notes = "\\\\\n".join(escape(line) for line in remarks(table))
    caption = escape(f"{table.title}. {table.caption}".strip())
    below = f"\n\n{{\\footnotesize\\raggedright {notes}\\par}}" if notes else ""
    scaled = f"\\resizebox{{\\textwidth}}{{!}}{{%\n{shown}}}"
    return f"\\begin{{table}}\n\\caption{{{caption}}}\n{scaled}{below}\n\\end{{table}}"


def _text(cell: Cell, row: Row) -> str:
    mark = r"\textbf" if cell.bold else r"\textit" if cell is row.cells[0] and row.kind != "competitor" else ""
    text = escape(cell.text)
    return (f"{mark}{{{text}}}" if mark else text) + escape(delta(cell, " "))


def escape(text: str) -> str:
    """Text that LaTeX shows as it is; of letters that its standard fonts lack, the nearest, or a question mark."""
    plain = " ".join(text.split())
    return re.sub(r"[^\w ,.:;()/+=!?@]|_|[^\x00-\x7f]", lambda found: SPECIAL.get(found[0]) or _near(found[0]), plain)


def _near(letter: str) -> str:
    base = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return base if len(base) == 1 else "?"
