"""Figures: what they show against hand-computed numbers, and that they are drawn alike every time."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import registry
from bench.leaderboard.board import board
from bench.leaderboard.figures.contents import figures, slugs
from bench.leaderboard.figures.draw import draw
from bench.leaderboard.figures.shapes import Figure
from bench.spec import digest

Record = dict[str, Any]
HOSTILE = "$\\frac{<b>&$"
drawn = cache(draw)  # figures of the same numbers are drawn once for all tests


def record(
    method: str, seed: int, click: float, watch: float, dataset: str = "toy", watched: str = "watch", **changes: Any
) -> Record:
    spec = {
        "dataset": dataset, "dataset_version": 1, "dataset_config": {}, "method": method, "method_version": 1,
        "parts": {}, "config": {"lr": 0.002}, "lm": None, "seed": seed, "protocol": "clean-1", "budget": {"epochs": 3},
    }  # fmt: skip
    values = {"click": {"auc": click}, watched: {"rmse": watch}}
    return {
        "schema": 1, "key": digest(spec), "spec": spec, "role": "final", "status": "ok", "error": None,
        "reference": method == "popularity",
        "tasks": [{"name": "click", "metric": "auc"}, {"name": watched, "metric": "rmse"}],
        "metrics": {"valid": values, "test": values, "slices": {}},
        "references": {"chance": {"test": {"click": {"auc": 0.5}, watched: {"rmse": 2.0}}, "slices": {}}},
        "curve": [{"epoch": e, "valid": {"click": click - 0.1 / e, watched: watch}} for e in range(1, 4 + seed)],
        "cost": {"fit_s": 10.0, "trained": 1000, "tuning_trials": 0, "tuning_s": 0.0},
        "data": {"sha256": dataset, "rows": {"train": 80, "valid": 10, "test": 15}}, "env": {"device": "cpu"},
        **changes,
    }  # fmt: skip


def cost(trained: int, fit_s: float = 1.0) -> dict[str, Any]:
    return {"cost": {"fit_s": fit_s, "trained": trained, "tuning_trials": 0, "tuning_s": 0.0}}


def study(method: str, trials: list[tuple[float | None, float]], **changes: Any) -> Record:
    spec = record(method, 0, 0.5, 1.0)["spec"]
    told = [{"number": i, "value": value, "seconds": seconds} for i, (value, seconds) in enumerate(trials)]
    return {"key": digest([method, trials]), "study": {"spec": spec, "data": "toy"}, "trials": told, **changes}


SOME = [
    *(record("single_task", seed, click, 1.0, **cost(4000)) for seed, click in enumerate([0.60, 0.64])),
    *(record("mmoe", seed, click, 0.8, **cost(2000)) for seed, click in enumerate([0.66, 0.672])),
    *(record("ple", seed, click, 1.2, **cost(3000)) for seed, click in enumerate([0.60, 0.64])),
    *(record(HOSTILE, seed, click, 1.1, **cost(1000)) for seed, click in enumerate([0.54, 0.64])),
    *(record("popularity", seed, 0.52, 1.9, **cost(0)) for seed in range(2)),
]


def of(kind: str, records: list[Record], studies: list[Record] = []) -> Figure:  # noqa: B006
    (found,) = [figure for figure in figures(board(records), records, studies)[0] if figure.kind == kind]
    return found


def reasons(records: list[Record], studies: list[Record] = []) -> str:  # noqa: B006
    return "\n".join(figures(board(records), records, studies)[1])


def test_the_front_is_what_no_competitor_beats_at_its_cost() -> None:
    trained, seconds = of("quality", SOME).panels
    found = {p.label: (p.cost, round(p.skill, 4), p.front) for p in trained.points}
    # skill: the mean of (auc - .5) / .5 and (2 - rmse) / 2
    assert found == {
        "mmoe": (2000, 0.466, True),  # mean auc .666: (.332 + .6) / 2
        "single_task": (4000, 0.37, False),
        "ple": (3000, 0.32, False),
        HOSTILE: (1000, 0.315, True),  # worse than others, but the cheapest
    }
    assert {p.label for p in seconds.points} == {*found, "popularity"}  # which trains nothing, but takes time
    assert [p.label for p in seconds.points if p.front] == ["mmoe"]  # all take as long; references are not compared


def test_gains_are_relative_and_errors_count_the_other_way() -> None:
    grid = of("gains", SOME).grid
    assert grid is not None and grid.columns == ("click", "watch", "Δm")
    rows = dict(zip(grid.rows, grid.values, strict=True))
    assert set(rows) == {"mmoe", "ple", HOSTILE}
    assert rows["mmoe"] == pytest.approx((7.5, 20.0, 13.75))  # .66/.60 and .672/.64: 10 and 5 percent
    assert rows["ple"] == pytest.approx((0.0, -20.0, -10.0))
    assert rows[HOSTILE] == pytest.approx((-5.0, -10.0, -7.5))


def test_a_task_may_have_any_name() -> None:
    name, pairs = "watch time ↑ %", (("single_task", 1.0), ("mmoe", 0.8))
    records = [record(m, seed, 0.6, watch, watched=name) for m, watch in pairs for seed in (0, 1)]
    grid = of("gains", records).grid
    assert grid is not None and grid.columns == ("click", name, "Δm")
    assert grid.values[0] == pytest.approx((0.0, 20.0, 10.0))
    found = [(panel.title, panel.y_label) for panel in of("training", records).panels]
    assert found == [("click", "auc, validation"), (name, "rmse, validation")]


def test_gains_are_starred_as_the_table_is() -> None:
    records = [
        *(record("single_task", s, 0.6 + s / 100, 1.0 + s / 50) for s in range(5)),
        *(record("mmoe", s, 0.7 + s / 90, 1.0 + 0.1 * (-1) ** s) for s in range(5)),
    ]
    grid = of("gains", records).grid
    assert grid is not None and grid.stars == ((True, False, False),)
    (table,) = board(records).tables
    assert [cell.star for row in table.rows if row.label == "mmoe" for cell in row.cells[1:3]] == [True, False]


def test_training_curves_end_where_the_first_seed_does() -> None:
    panel, _ = of("training", SOME).panels
    (line,) = [line for line in panel.lines if line.label == "mmoe"]
    assert line.x == (1, 2, 3)  # the other seed has four epochs
    assert line.y == pytest.approx((0.566, 0.616, 0.666 - 0.1 / 3))
    assert line.low[0] == pytest.approx(0.56) and line.high[0] == pytest.approx(0.572)
    assert of("training", SOME).shown[0] == "single_task"


def test_tuning_curves_count_the_seconds_of_all_trials() -> None:
    trials = [(None, 2.0), (0.2, 3.0), (0.1, 5.0), (None, 1.0), (0.4, 4.0)]
    (panel,) = of("tuning", SOME, [study("mmoe", trials)]).panels
    (line,) = panel.lines
    assert (line.label, line.x, line.y) == ("mmoe", (5.0, 10.0, 11.0, 15.0), (0.2, 0.2, 0.2, 0.4))


def test_studies_of_one_method_are_told_apart_and_those_of_other_data_left_out() -> None:
    first, second = study("mmoe", [(0.1, 1.0)]), study("mmoe", [(0.2, 1.0)])
    other = study("mmoe", [(0.3, 1.0)]) | {"study": {**study("mmoe", [])["study"], "data": "else"}}
    (panel,) = of("tuning", SOME, [first, second, other]).panels
    assert [line.label for line in panel.lines] == [f"mmoe ({s['key'][:6]})" for s in (first, second)]


def test_ranks_are_over_data_sets_and_tasks() -> None:
    records = [
        record(method, seed, click, watch, dataset)
        for dataset in ("one", "two")
        for method, click, watch in (("single_task", 0.7, 1.0), ("mmoe", 0.8, 1.1), ("ple", 0.6, 1.2))
        for seed in range(2)
    ]
    ranking = of("ranks", records).ranking
    assert ranking is not None and ranking.labels == ("mmoe", "single_task", "ple")
    assert ranking.ranks == (1.5, 1.5, 3.0)
    # q_.05 of three methods is 2.343 (Demsar 2006, table 5): 2.343 sqrt(3 * 4 / (6 * 4))
    assert ranking.critical == pytest.approx(2.343 * (12 / 24) ** 0.5, abs=1e-3)
    assert ranking.groups == ((0, 2),)


def test_what_cannot_be_drawn_is_named_with_the_reason() -> None:
    alone = [record("mmoe", 0, 0.6, 1.0, curve=[])]
    made, missing = figures(board(alone), alone, [])
    assert made == [] and len(missing) == 5 and all(re.match(r"(toy: )?no ", line) for line in missing)
    assert "it needs a result of single_task" in reasons(alone)
    assert "no run has two epochs" in reasons(alone)
    assert "no study" in reasons(SOME) and "no two data sets" in reasons(SOME)


def test_one_name_for_each_title() -> None:
    assert slugs(["a (b=1)", "A, b 1", "ü", "c"]) == ["a-b-1-1", "a-b-1-2", "table", "c"]


def one_of_each_kind(records: list[Record] = SOME) -> list[Figure]:
    twice = records + [record(r["spec"]["method"], r["spec"]["seed"], 0.6, 1.0, "two") for r in records]
    made, _ = figures(board(twice), twice, [study("mmoe", [(0.2, 3.0), (0.4, 1.0)])])
    return list({figure.kind: figure for figure in reversed(made)}.values())


def test_every_kind_is_drawn_as_a_valid_file() -> None:
    found = one_of_each_kind()
    assert {figure.kind for figure in found} == {"quality", "gains", "training", "tuning", "ranks"}
    assert len(found) == 5
    for figure in found:
        tree = ElementTree.fromstring(drawn(figure, "svg"))
        assert tree.tag.endswith("svg") and drawn(figure, "png").startswith(b"\x89PNG\r\n")


def test_bytes_depend_on_the_numbers_alone(tmp_path: Path) -> None:
    """Not on the order of records, nor on the process, its hash seed, the user's style or the time zone."""
    found = one_of_each_kind()
    other = one_of_each_kind(random.Random(1).sample(SOME, len(SOME)))
    assert not any(b"matplotlib.org" in data or b"<dc:date" in data for data in (drawn(f, "svg") for f in found[:1]))
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nsvg.fonttype: none\naxes.grid: True\n")
    (tmp_path / "figures").write_bytes(pickle.dumps(other))
    program = """import hashlib, pickle, sys
from bench.leaderboard.figures.draw import draw
figures = pickle.load(open(sys.argv[1], "rb"))
print(*[hashlib.sha256(draw(figure, form)).hexdigest() for figure in figures for form in ("svg", "png")])"""
    environment = {"PATH": "", "PYTHONHASHSEED": "2", "PYTHONPATH": ".", "TZ": "Asia/Tokyo"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "figures")], check=True, capture_output=True, text=True,
        cwd=registry.ROOT, env={**environment, "MATPLOTLIBRC": str(tmp_path)},
    )  # fmt: skip
    here = [hashlib.sha256(drawn(figure, form)).hexdigest() for figure in found for form in ("svg", "png")]
    assert done.stdout.split() == here


def test_published_folders_are_checked(
    tmp_path: Path, bench: Callable[..., Any], refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.leaderboard.figures.draw.draw", drawn)
    for made in SOME:
        path = tmp_path / "runs" / "toy" / "m" / f"{made['key']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(made), "utf-8")
    words = ("board", "--results", tmp_path, "--html", tmp_path / "site", "--figures", tmp_path / "figures")
    result = bench(*words)
    assert "not drawn: toy: no tuning curves" in result.stderr
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert names == ["gains-toy.svg", "quality-toy.svg", "training-toy.svg"]
    assert "files checked beside it: 4" in bench(*words, "--check").stdout
    for path, change in (("site/index.html", b"x"), ("figures/gains-toy.svg", b"x"), ("figures/gains-toy.svg", None)):
        kept = (tmp_path / path).read_bytes()
        (tmp_path / path).write_bytes(change) if change else (tmp_path / path).unlink()
        assert f"{path} is not what the records give" in refused(*words, "--check")
        (tmp_path / path).write_bytes(kept)
    (tmp_path / "figures" / "old.svg").write_bytes(b"")
    assert "old.svg is no figure of these records: delete it" in refused(*words, "--check")
    bench("board", "--results", tmp_path, "--figures", tmp_path / "png", "--figure-format", "png")
    assert (tmp_path / "png" / "gains-toy.png").exists()


def test_nothing_here_imports_torch() -> None:
    program = "import sys, bench.leaderboard.publish, bench.leaderboard.page.html, bench.leaderboard.figures.draw; "
    program += "assert not {'torch', 'bench.api'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
