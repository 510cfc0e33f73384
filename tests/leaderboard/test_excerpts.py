"""Tables of the leaderboard in a file of words: what they show, and what is said of comments that ask for nonsense."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.errors import BenchError
from bench.leaderboard.board import board
from bench.leaderboard.excerpts import filled
from bench.leaderboard.render.text import to_markdown
from bench.leaderboard.tables import Board
from tests.support.toy_records import STATIC, runs

RECORDS = [
    *runs("single_task", [0.60, 0.61]), *runs("mmoe", [0.70, 0.72], [0.9, 0.9]), *runs("ple", [0.65, 0.66]),
    *runs("ple", [0.6, 0.7], config=STATIC), *runs("mmoe", [0.8, 0.8], trials=9, config={"batch_size": 512, "lr": 0.1}),
]  # fmt: skip


@pytest.fixture(scope="module")
def built() -> Board:
    return board(RECORDS)


def written(folder: Path, *asked: str) -> Path:
    path = folder / "README.md"
    blocks = [f"<!-- table: {words} -->\nold\n<!-- /table -->" for words in asked]
    path.write_text("\n\n".join(["# Words", *blocks, "More words.\n"]), "utf-8")
    return path


def table(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("|-")]


def test_rows_and_columns_are_those_asked_for_in_the_leaderboards_order(tmp_path: Path, built: Board) -> None:
    asked = "toy; rows: chance | single_task | mmoe, tuned | ple (balancer=static); columns: mean skill | click"
    path = written(tmp_path, asked)
    text = filled(path, built)
    found = table(text)
    assert found[0] == ["method", "click auc ↑", "mean skill"]
    assert [line[0] for line in found[1:]] == ["mmoe, tuned", "ple (balancer=static)", "single_task", "*chance*"]
    assert text.startswith("# Words\n\n<!-- table: toy; rows: chance") and text.endswith("-->\n\nMore words.\n")
    whole = to_markdown(built)
    assert all(cell in whole for line in found for cell in line)
    path.write_text(text, "utf-8")
    assert filled(path, built) == text


def test_a_table_may_be_a_part_and_whole(tmp_path: Path, built: Board) -> None:
    path = written(tmp_path, "toy", "toy; part: cold_item; rows: mmoe")
    first, second, _ = filled(path, built).split("<!-- /table -->")
    assert len(table(first)) == 1 + len(built.tables[0].rows) and table(first)[0][-1] == "seeds"
    assert [line[0] for line in table(second)] == ["method", "mmoe"] and len(table(second)[0]) == 3
    over = table(filled(written(tmp_path, "toy; part: over_tasks; rows: mmoe; columns: worst task"), built))
    assert over[0] == ["method", "worst task"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("tou", "README.md line 3: unknown table 'tou'; did you mean 'toy'?"),
        ("toy; part: cold_itm", "line 3: unknown part of toy 'cold_itm'; did you mean 'cold_item'?"),
        ("toy; rows: mmoe, tunde", "line 3: row 'mmoe, tunde': give METHOD"),
        ("toy; rows: mmeo", "line 3: unknown row 'mmeo'; did you mean 'mmoe'?"),
        ("toy; rows: ple", "line 3: 'ple' means several rows of toy: 'ple (balancer="),
        ("toy; columns: clikc", "line 3: unknown column 'clikc'; did you mean 'click'?"),
        ("toy; row: mmoe", "line 3: unknown word of a table 'row'; did you mean 'rows'?"),
    ],
)
def test_what_is_not_there_is_named_with_its_line(tmp_path: Path, built: Board, asked: str, message: str) -> None:
    with pytest.raises(BenchError) as error:
        filled(written(tmp_path, asked), built)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table: toy -->\nx\n", "README.md line 1: after the table there is no <!-- /table -->"),
        ("x\n<!-- /table -->\n", "README.md line 2: comments of tables come in pairs"),
        ("<!-- table: toy -->\n<!-- table: toy -->\n<!-- /table -->\n", "line 2: comments of tables come in pairs"),
        ("words\n", "README.md has no table to fill"),
    ],
)
def test_comments_come_in_pairs(tmp_path: Path, built: Board, text: str, message: str) -> None:
    (tmp_path / "README.md").write_text(text, "utf-8")
    with pytest.raises(BenchError) as error:
        filled(tmp_path / "README.md", built)
    assert message in str(error.value)


def test_the_command_fills_and_checks(tmp_path: Path, bench: Callable[..., Any], refused: Callable[..., str]) -> None:
    for made in RECORDS:
        path = tmp_path / "runs" / "toy" / made["spec"]["method"] / f"{made['key']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(made), "utf-8")
    readme = written(tmp_path, "toy; rows: single_task")
    words = ("board", "--results", tmp_path, "--readme", readme)
    bench("board", "--results", tmp_path)
    assert "README.md is not what the records give; run `bench board --results" in refused(*words, "--check")
    bench(*words)
    assert "| single_task |" in readme.read_text("utf-8")
    assert "files checked beside it: 1" in bench(*words, "--check").stdout
    assert "give no filter" in refused(*words, "-m", "mmoe")
