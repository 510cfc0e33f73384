"""What is done of a plan, and of a folder of records."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import registry
from tests.support.command import SMALL, Bench, Plugin

PLAN = ("-d", "sim-news", *SMALL, "--epochs", 1)


def table(shown: str) -> list[list[str]]:
    """The cells of each row below the header."""
    return [line.split() for line in shown.splitlines()[2:]]


def test_a_plan_is_followed_to_its_end(bench: Bench, tmp_path: Path) -> None:
    words = (*PLAN, "-m", "popularity", "--results", tmp_path / "results")
    status = ("status", *words, "--seeds", 3)
    assert table(bench(*status, code=1).stdout) == [
        ["sim-news", "popularity", *"00003"],
        ["total", *"00003"],
    ]
    assert not (tmp_path / "results").exists()  # it only looks
    bench("run", *words, "--seeds", 2, "--workers", 1)
    shown = bench(*status, code=1).stdout
    assert shown.splitlines()[0] == "data set    method        done    failed    declined    running    missing"
    assert table(shown) == [["sim-news", "popularity", *"20001"], ["total", *"20001"]]
    runs = json.loads(bench(*status, "--json", code=1).stdout)
    assert [(r["run"], r["state"]) for r in runs] == [
        ("sim-news popularity seed 0", "done"),
        ("sim-news popularity seed 1", "done"),
        ("sim-news popularity seed 2", "missing"),
    ]
    assert {r["key"] for r in runs if r["state"] == "done"} == {p.stem for p in tmp_path.rglob("*.json")}
    bench("run", *words, "--seeds", 3, "--shard", "3/3", "--workers", 1)
    assert table(bench(*status).stdout)[-1] == ["total", *"30000"]
    bench(*status, "-s", "shrinkage=1.0", code=1)  # another plan


def test_a_suite(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mini.yaml").write_text("seeds: 2\nmethods: [popularity, mf]\ndatasets: { sim-news: }\n")
    monkeypatch.setattr("bench.suites.sweep.FOLDER", tmp_path)
    bench("run", *PLAN[:-2], "-m", "popularity", "--results", tmp_path / "results", "--workers", 1)
    words = ("status", "--suite", "mini", *SMALL, "--results", tmp_path / "results")
    assert table(bench(*words, code=1).stdout) == [
        ["sim-news", "popularity", *"10001"],
        ["sim-news", "mf", *"00002"],
        ["total", *"10003"],
    ]


def test_failures_have_reasons_and_declining_is_none(bench: Bench, plugin: Plugin, tmp_path: Path) -> None:
    bad = plugin("bad", "def forward(self, batch):\n    raise RuntimeError('no idea')")
    words = (*PLAN, "--plugin", bad, "--results", tmp_path / "results")
    methods = ("-m", "popularity", "-m", "esmm", "-m", "bad")
    bench("run", *words, *methods, "--workers", 1, code=1)
    shown = bench("status", *words, *methods, code=1).stdout.splitlines()
    assert table("\n".join(shown[:-1])) == [
        ["sim-news", "popularity", *"10000"],
        ["sim-news", "esmm", *"00100"],
        ["sim-news", "bad", *"01000"],
        ["total", *"11100"],
    ]
    assert shown[-1].startswith("sim-news bad seed 0: failed: RuntimeError: no idea (bad.py:")
    bench("status", *words, *methods[:4])

    every = bench("status", "--results", tmp_path / "results").stdout  # without a plan there is none to fall short of
    assert table(every)[-2] == ["total", *"11100"] and "no idea" in every


def test_a_folder_without_records(bench: Bench, refused: Callable[..., str], tmp_path: Path) -> None:
    assert bench("status", "--results", tmp_path).stdout == f"no records in {tmp_path}\n"
    assert json.loads(bench("status", "--results", tmp_path, "--json").stdout) == []
    assert "say what to run" in refused("status", "--seeds", 3, "--results", tmp_path)
    assert "did you mean 'mmoe'?" in refused("status", "-d", "sim-news", "-m", "mmeo", "--results", tmp_path)


def test_a_broken_record_is_named(refused: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "runs" / "sim-news" / "mmoe" / "0123456789abcdef.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert str(path) in refused("status", "--results", tmp_path)


def test_looking_and_merging_import_no_torch(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    code = f"""
import sys
from bench.cli import main
for words in (["status", "--results", "results/reference"], ["merge", {str(tmp_path)!r}, "--results", "{tmp_path}/all"],
              ["run", "-d", "sim-news", "-m", "mmoe", "--shard", "3/2"], ["status", "--suite", "quik"]):
    try:
        main(words)
    except SystemExit as end:
        print("ended", end.code)
print([m for m in ("torch", "polars", "transformers", "optuna") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=registry.ROOT, check=True)
    lines: list[Any] = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("ended")] == ["ended 0", "ended 0", "ended 2", "ended 2"]
    assert lines[-1] == "[]"
