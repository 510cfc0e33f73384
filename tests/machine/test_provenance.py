"""What a record says of the code that made it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench.machine.provenance import code_version


def test_changed_code_is_told_and_changed_results_are_no_code(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        done = subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    version = code_version.__wrapped__
    assert version(tmp_path) == {"commit": None, "dirty": None}
    git("init")
    code, board = tmp_path / "code.py", tmp_path / "results" / "LEADERBOARD.md"
    board.parent.mkdir()
    for path in (code, board):
        path.write_text("old")
    git("add", ".")
    git("commit", "-m", "one")
    clean = {"commit": git("rev-parse", "HEAD"), "dirty": False}
    assert version(tmp_path) == clean
    board.write_text("new")
    (tmp_path / "untracked.py").touch()
    assert version(tmp_path) == clean
    code.write_text("new")
    assert version(tmp_path) == clean | {"dirty": True}
