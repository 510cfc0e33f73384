"""Stars, measures over tasks, the overall table and filters of the leaderboard, on records of a known truth."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bench import registry
from bench.errors import BenchError
from bench.leaderboard.board import board, stored
from bench.leaderboard.filters import Filter
from bench.leaderboard.grouping import grouped
from bench.leaderboard.over_datasets import _middles
from bench.leaderboard.tables import Cell, Table
from bench.spec import digest
from bench.statistics.bootstrap import iqm
from bench.statistics.paired import tost
from bench.storage.records import Store
from tests.support.synthetic import made, template, write

SEEDS = range(8)


def equivalent(a: list[float], b: list[float]) -> bool:
    p = tost(a, b, 0.01)
    return p is not None and p < 0.05


def cell(table: Table, label: str, header: str) -> Cell:
    (i,) = [i for i, h in enumerate(table.headers) if str(h).startswith(header)]
    (row,) = [r for r in table.rows if r.label == label]
    return row.cells[i]


def over(table: Table) -> Table:
    assert table.over_tasks is not None
    return table.over_tasks


def several(gaps: dict[str, float], **more: Any) -> list[dict[str, Any]]:
    return [made(method, seed, gap, **more) for method, gap in gaps.items() for seed in SEEDS]


# a gate that can fail


def test_a_broken_method_is_worse_and_a_copy_is_equivalent() -> None:
    """The copy has the baseline's distribution, other noise; ten such copies are there to tempt without Holm."""
    copies = {f"copy_{i}": 0.0 for i in range(10)}
    (table,) = board(several({"single_task": 0.0, "broken": -0.1, **copies}, noise=0.002)).tables
    broken, base = cell(table, "broken", "mean skill"), cell(table, "single_task", "mean skill")
    assert broken.star and broken.difference is not None and broken.difference.mean < -0.05
    for column in map(str, table.headers[1:-1]):
        assert cell(table, "broken", column).star, column
        assert not any(cell(table, copy, column).star for copy in copies), column
    for copy in copies:
        same = cell(table, copy, "mean skill").seeds
        assert equivalent([same[s] for s in SEEDS], [base.seeds[s] for s in SEEDS])
    wrong = [broken.seeds[s] for s in SEEDS], [base.seeds[s] for s in SEEDS]
    assert not equivalent(*wrong)
    assert cell(over(table), "broken", "worse").text == f"{5 * len(SEEDS)}/{5 * len(SEEDS)} (5)"


BROKEN = """
def forward(self, batch):
    return {task: values.roll(len(values) // 2, 0) for task, values in super().forward(batch).items()}
"""


@pytest.mark.slow
def test_a_broken_and_a_copied_method_in_real_runs(
    bench: Callable[..., Any], plugin: Callable[..., Path], tmp_path: Path
) -> None:
    """Shared-bottom under another name, and with the predictions of other rows."""
    data = ("-d", "mmoe-synthetic", "--data", "rows=3000", "--seeds", 6, "--epochs", 4, "-s", "batch_size=256")
    methods = ("-m", "single_task", "-m", "shared_bottom", "-m", "copied", "-m", "broken")
    plugins = ("--plugin", plugin("copied"), "--plugin", plugin("broken", BROKEN))
    bench("run", *data, *methods, *plugins, "--results", tmp_path / "results")
    (table,) = board(Store(tmp_path / "results").results()).tables
    assert cell(table, "broken", "mean skill").star
    difference = cell(table, "broken", "mean skill").difference
    assert difference is not None and difference.mean < 0
    seeds = [cell(table, method, "mean skill").seeds for method in ("copied", "shared_bottom", "broken")]
    copied, original, broken = ([own[seed] for seed in sorted(own)] for own in seeds)
    assert equivalent(copied, original) and not equivalent(broken, original)


def test_stars_are_corrected_over_the_rows_of_a_column() -> None:
    """Raw p between .05 / rows and .05 gets no star among many rows, but one where the row is alone."""
    gaps = {"single_task": 0.0, "weak": 0.012}
    alone = cell(board(several(gaps)).tables[0], "weak", "mean skill")
    many = cell(board(several({**gaps, **{f"other_{i}": 0.0 for i in range(40)}})).tables[0], "weak", "mean skill")
    assert alone.difference == many.difference and alone.difference is not None and alone.difference.p is not None
    assert 0.05 / 41 < alone.difference.p < 0.05
    assert alone.star and not many.star
    assert alone.p == alone.difference.p and many.p is not None and many.p > 0.05


def test_bold_must_beat_every_other_competitor() -> None:
    clear = several({"single_task": 0.0, "a": 0.0, "best": 0.1})
    assert cell(board(clear).tables[0], "best", "mean skill").bold
    once = [made("once", 0, 0.0)]  # one seed: nothing can be shown against it
    assert not cell(board(clear + once).tables[0], "best", "mean skill").bold
    rival = several({"rival": 0.099})
    assert not any(c.bold for r in board(clear + rival).tables[0].rows for c in r.cells)


# over tasks and over data sets


def test_ranks_and_share_of_the_oracle_by_hand() -> None:
    (table,) = board(several({"single_task": 0.0, "good": 0.1, "bad": -0.1}, noise=0.0)).tables
    assert [cell(over(table), m, "mean rank").value for m in ("good", "single_task", "bad")] == [1, 2, 3]
    total, oracle = cell(table, "good", "mean skill").value, cell(table, "oracle", "mean skill").value
    assert total is not None and oracle is not None
    assert cell(over(table), "good", "of oracle").value == pytest.approx(total / oracle)
    assert cell(over(table), "bad", "worst task").value == pytest.approx(
        min(-0.1 / (1 - chance) for chance in _chances()), rel=1e-6
    )


def _chances() -> list[float]:
    """Of each task; an error's as if 1 were perfect, so that - .1 / (1 - chance) is the loss of skill."""
    chance = template()["references"]["chance"]["test"]
    values = {t["name"]: (t["metric"], chance[t["name"]][t["metric"]]) for t in template()["tasks"]}
    return [1 - value if metric == "rmse" else value for metric, value in values.values()]


def test_overall_has_the_rows_of_every_data_set() -> None:
    gaps = {"single_task": 0.0, "good": 0.1, "bad": -0.1}
    records = [*several(gaps, dataset="one"), *several({**gaps, "extra": 0.0}, dataset="two")]
    made_board = board(records)
    (table,) = made_board.overall
    assert [*map(str, table.headers)] == ["method", "one", "two", "IQM of skills", "mean rank"]
    assert [row.label for row in table.rows] == ["good", "single_task", "bad"]
    assert cell(table, "good", "one").star and cell(table, "bad", "two").star
    assert cell(table, "single_task", "one").text == ""
    difference = cell(made_board.tables[0], "good", "mean skill").difference
    assert difference is not None and cell(table, "good", "one").value == difference.mean
    assert [cell(table, m, "mean rank").value for m in ("good", "single_task", "bad")] == [1, 2, 3]
    assert any(note.startswith("1 rows have no mean skill") for note in table.notes)
    low, high = cell(table, "good", "IQM").text.split("[")[1].rstrip("]").split(", ")
    middle = cell(table, "good", "IQM").value
    assert middle is not None and float(low) < middle < float(high)
    assert board(several(gaps, dataset="one")).overall == ()


# filters


FILTERED = [
    *several({"single_task": 0.0, "shared_bottom": 0.1, "mmoe": 0.0}, dataset="one"),
    *several({"single_task": 0.0, "lora": 0.1}, dataset="two", lm="mini"),
    *several({"single_task": 0.0}, dataset="two", budget={"epochs": 1, "patience": 3}),
]


def labels(wanted: Filter) -> list[tuple[str, list[str]]]:
    tables = board(FILTERED, wanted).tables
    return [(t.dataset, sorted(r.label for r in t.rows if r.kind == "competitor")) for t in tables]


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        (Filter(datasets=("o*",)), [("one", ["mmoe", "shared_bottom", "single_task"])]),
        (Filter(methods=("shared_*",)), [("one", ["shared_bottom", "single_task"])]),
        (Filter(family="methods"), [("two", ["lora", "single_task"])]),
        (Filter(text=True), [("two", ["lora", "single_task"])]),
        (Filter(budget={"epochs": 1}), [("two", ["single_task"])]),
        (Filter(text=False, datasets=("two",)), []),
    ],
)
def test_filters(wanted: Filter, shown: list[tuple[str, list[str]]]) -> None:
    if shown:
        assert labels(wanted) == shown
        assert board(FILTERED, wanted).legend[0].startswith(f"Only {wanted}: ")


def test_tasks_are_left_out_everywhere() -> None:
    (table, *_) = board(FILTERED, Filter(tasks=("click", "re*"))).tables
    assert [*map(str, table.headers)] == [
        "method", "click auc ↑", "rec ndcg@10 ↑", "read_time rmse ↓", "mean skill", "seeds",
    ]  # fmt: skip
    whole = board(FILTERED).tables[0]
    assert cell(table, "mmoe", "click") == cell(whole, "mmoe", "click")
    assert cell(table, "mmoe", "mean skill").value != cell(whole, "mmoe", "mean skill").value


def test_a_filter_that_leaves_nothing_says_what_there_is() -> None:
    with pytest.raises(BenchError, match=r"no result fits data set three; there are data sets one, two; methods lora"):
        board(FILTERED, Filter(datasets=("three",)))
    with pytest.raises(BenchError, match=r"protocols clean-1"):
        board(FILTERED, Filter(protocol="paper*"))
    paper = several({"mmoe": 0.0}, protocol="paper-1")
    assert len(board(FILTERED + paper, Filter(protocol="paper*")).tables) == 1


# reading


def test_what_is_read_for_a_leaderboard_gives_the_same_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = made("ple", 3) | {"status": "oom", "error": "too big", "metrics": None, "cost": {}}
    for record in [*FILTERED, failed]:
        write(tmp_path, record)
    whole = board(Store(tmp_path).records())
    assert board(Store(tmp_path).results()) == whole
    assert stored(tmp_path) == whole
    monkeypatch.setattr("bench.leaderboard.board.MANY", 10)  # another process makes half of the tables
    assert stored(tmp_path) == whole
    # Once is enough: from here on it is a thread, which starts sooner.
    monkeypatch.setattr("bench.leaderboard.board.ProcessPoolExecutor", lambda n, _: ThreadPoolExecutor(n))
    only = Filter(methods=("mmoe",), datasets=("one",))
    assert stored(tmp_path, only) == board(FILTERED, only)
    with pytest.raises(BenchError, match="no result fits data set three"):
        stored(tmp_path, Filter(datasets=("three",)))
    (tmp_path / "runs" / "two" / "lora").rename(tmp_path / "runs" / "one" / "moved")  # a table in two halves
    assert stored(tmp_path) == whole


def test_a_changed_record_is_named(tmp_path: Path) -> None:
    record = made("mmoe", 0)
    write(tmp_path, record)
    (path,) = tmp_path.glob("runs/*/*/*.json")
    for change in ({"seed": 1}, {"config": {**record["spec"]["config"], "lr": 0.5}}, {"surplus": 1}):
        path.write_text(json.dumps(record | {"spec": record["spec"] | change}))
        with pytest.raises(BenchError, match=f"{path.name} is no record"):
            list(Store(tmp_path).results())
    for text in ("", "{", "[]", json.dumps({k: v for k, v in record.items() if k != "tasks"})):
        path.write_text(text)
        with pytest.raises(BenchError, match=f"{path.name} cannot be read"):
            list(Store(tmp_path).results())
    odd = record["spec"] | {"dataset": 'a "b" é', "dataset_config": {"x": 1e-05, "y": [1.0, None, "ü"]}}
    path.unlink()
    path.with_stem(digest(odd)).write_text(json.dumps(record | {"spec": odd, "key": digest(odd)}))
    (read,) = Store(tmp_path).results()
    assert read["spec"] == odd


def test_a_record_takes_little_memory() -> None:
    """100,000 of them must stay well below 1 GiB."""
    records = several({f"m{i}": 0.0 for i in range(20)})
    grouped(records[:1])
    tracemalloc.start()
    kept = grouped(records)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept and used / len(records) < 5000


def test_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    write(tmp_path, made("single_task", 0))
    code = f"""
import sys
from bench.cli import main
main(["board", "--results", {str(tmp_path)!r}], standalone_mode=False)
for name in ("latex", "csv", "json"):
    main(["board", "--results", {str(tmp_path)!r}, "--format", name], standalone_mode=False)
print([m for m in ("torch", "transformers", "polars", "bench.api") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=registry.ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_interval_of_the_middle_is_scipys_with_every_stratum_resampled_by_itself() -> None:
    strata = [np.random.default_rng(i).normal(i, 1 + i, size=12) for i in range(6)]
    oracle = scipy_stats.bootstrap(
        strata,
        lambda *parts, axis: iqm(np.stack([part.mean(axis=axis) for part in parts], axis=-1), axis=-1),
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    found = _middles({"row": [values.tolist() for values in strata], "still": [[float(i)] * 4 for i in range(6)]})
    middle, low, high = (float(word.strip("[],")) for word in found["row"].text.split())
    assert middle == pytest.approx(iqm([values.mean() for values in strata]), abs=1e-4)
    assert (low, high) == pytest.approx((oracle.low, oracle.high), abs=0.15)  # Monte Carlo error of a quantile
    assert found["still"].text == "2.5000 [2.5000, 2.5000]"  # however far apart the strata are
