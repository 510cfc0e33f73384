"""LaTeX that compiles, CSV that is no formula, and the command that makes them."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.leaderboard.board import board
from bench.leaderboard.render.csv import HEADER, harmless, to_csv
from bench.leaderboard.render.latex import escape, to_latex
from bench.leaderboard.tables import Board
from tests.support.synthetic import made, write

HOSTILE = r"""a_b & 50% #1 $x$ {y} \input{z} ^~ <script> "q" 'r' `s` | [t] -- *u* é ß 漢 Δ ≥ ½ \end{tabular}"""
WRAPPER = r"""\documentclass{article}
\usepackage[utf8]{inputenc} \usepackage[T1]{fontenc} \usepackage{textcomp,booktabs,graphicx}
\begin{document} \input{board.tex} \end{document}
"""


def example(method: str = "mmoe") -> Board:
    gaps = {"single_task": 0.0, method: 0.1, "ple": 0.0}
    records = [made(m, s, gap, dataset=d) for d in ("one", "two") for m, gap in gaps.items() for s in range(3)]
    failed = made("esmm", 0, dataset="one") | {"status": "failed", "error": HOSTILE, "metrics": None, "cost": {}}
    return board([*records, failed])


def test_latex_is_one_booktabs_table_for_each_table() -> None:
    text = to_latex(example(HOSTILE))
    count = {word: text.count(word) for word in (r"\begin{table}", r"\toprule", r"\midrule", r"\bottomrule")}
    assert set(count.values()) == {2 * 4 + 1}  # main, over tasks, two slices; overall
    assert r"\hline" not in text and r"\textbf{" in text and r"\textit{chance}" in text
    assert text.count(r"\begin{") == text.count(r"\end{")  # none of the text's own


def test_latex_shows_text_as_it_is() -> None:
    assert escape("a_b 5% $x$ \\cmd{y}") == r"a\_b 5\% \$x\$ \textbackslash{}cmd\{y\}"
    assert escape("é ½ 漢 ½↑") == r"e ? ? ?$\uparrow$"
    assert escape(HOSTILE).isascii()


@pytest.mark.slow
def test_latex_compiles(tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex: apt-get install texlive-latex-base texlive-latex-recommended")
    (tmp_path / "board.tex").write_text(to_latex(example(HOSTILE)), "utf-8")
    (tmp_path / "doc.tex").write_text(WRAPPER, "utf-8")
    words = ("pdflatex", "-interaction=nonstopmode", "-halt-on-error", "doc.tex")
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "doc.pdf").stat().st_size > 10_000


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_csv_has_no_formulas(start: str) -> None:
    method = f'{start}cmd|"x",1\n2'
    built = example(method)
    lines = list(csv.DictReader(io.StringIO(to_csv(built))))
    assert tuple(lines[0]) == HEADER
    (line,) = [x for x in lines if x["table"] == "one" and x["method"] == f"'{method}" and x["column"] == "mean skill"]
    (row,) = [row for row in built.tables[0].rows if row.label == method]
    (shown,) = [c for c, h in zip(row.cells, built.tables[0].headers, strict=True) if h.name == "mean skill"]
    assert float(line["value"]) == shown.value and line["star"] == str(int(shown.star)) and line["seeds"] == "3"
    assert not [x for x in lines for key in HEADER[:6] if x[key].startswith(start)]


def test_csv_leaves_numbers_alone() -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(example()))))
    worst = [x for x in lines if x["column"] == "worst task" and x["method"] == "ple"]
    assert all(x["text"].startswith("'-.") and float(x["value"]) < 0 for x in worst) and worst
    assert [x["text"] for x in lines if x["kind"] == "failed"] == [HOSTILE]
    assert harmless("3-4") == "3-4"


# the command


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for method, gap in {"single_task": 0.0, "mmoe": 0.1}.items():
        for seed in range(3):
            write(tmp_path / "results", made(method, seed, gap))
    return tmp_path / "results"


def test_formats_and_output(bench: Callable[..., Any], results: Path, tmp_path: Path) -> None:
    for form, start in {"markdown": "# Leaderboard", "latex": r"\begin{table}", "csv": "dataset,", "json": "{"}.items():
        shown = bench("board", "--results", results, "--format", form).stdout
        assert shown.startswith(start)
        bench("board", "--results", results, "--format", form, "--output", tmp_path / form)
        assert (tmp_path / form).read_text("utf-8") == shown
    assert bench("board", "--results", results, "--json").stdout == shown
    assert json.loads(shown)["tables"][0]["title"] == "toy"
    assert not (results / "LEADERBOARD.md").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["csv", "json", "latex", "markdown", "results"]


def test_a_part_is_never_written_as_the_leaderboard(
    bench: Callable[..., Any], refused: Callable[..., str], results: Path
) -> None:
    bench("board", "--results", results)
    whole = (results / "LEADERBOARD.md").read_bytes()
    shown = bench("board", "--results", results, "-m", "mmo*", "--task", "click", "--budget", "epochs=20").stdout
    assert "Only method mmo*; budget epochs=20; task click" in shown
    assert (results / "LEADERBOARD.md").read_bytes() == whole
    assert "there are data sets toy; methods mmoe, single_task;" in refused("board", "--results", results, "-m", "nope")
    assert "give KEY=NUMBER" in refused("board", "--results", results, "--budget", "epochs=many")
    assert "give no filter" in refused("board", "--results", results, "--check", "-d", "toy")
