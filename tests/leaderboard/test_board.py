"""Leaderboard: hand-computed cells, faults, golden output, and independence from the order of anything."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import BenchError
from bench.leaderboard.board import board
from bench.leaderboard.render.text import to_console, to_json, to_markdown
from bench.leaderboard.tables import DASH, Cell, Row, Table
from bench.spec.names import run_names

Record = dict[str, Any]
T2 = 4.302653  # t(.975) at 2 degrees of freedom, from the tables

CLICK = {"name": "click", "kind": "binary", "role": "ctr", "space": "all rows", "metric": "auc"}
WATCH = {"name": "watch", "kind": "regression", "role": "", "space": "all rows", "metric": "rmse"}


def measured(click: float | None, watch: float | None) -> dict[str, Any]:
    return {"click": {"auc": click, "gauc": 0.123}, "watch": {"rmse": watch}}


def record(method: str, seed: int, click: float | None = None, watch: float | None = None, **changes: Any) -> Record:
    """A final record; ``changes`` override spec entries, or top-level entries of the same name."""
    spec = {
        "dataset": "toy", "dataset_version": 1, "dataset_config": {}, "method": method, "method_version": 1,
        "parts": {"balancer": 1}, "config": {"lr": 0.002, "balancer": "uniform"}, "lm": None, "seed": seed,
        "protocol": "clean-1", "budget": {"epochs": 20, "patience": 3},
    }  # fmt: skip
    made: Record = {
        "schema": 1, "role": "final", "status": "ok", "error": None, "reference": False, "tasks": [CLICK, WATCH],
        "metrics": {"valid": measured(0.9, 0.9), "test": measured(click, watch), "slices": {}},
        "references": {"chance": {"test": measured(0.5, 2.0), "slices": {}}},
        "cost": {"fit_s": 10.0 + seed * seed, "trained": 12345, "params": 99999},
        "data": {"sha256": "0123456789abcdef", "rows": {"train": 8000, "valid": 1000, "test": 1500}},
        "env": {"device": "cpu"},
    }  # fmt: skip
    for name, value in changes.items():
        (spec if name in spec else made)[name] = value
    if made["status"] != "ok":
        made |= {"metrics": None, "references": None, "cost": None}
    made["spec"] = spec
    made["key"] = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
    return made


def runs(method: str, clicks: list[float], watches: list[float] | None = None, **changes: Any) -> list[Record]:
    pairs = zip(clicks, watches or [1.0] * len(clicks), strict=True)
    return [record(method, seed, click, watch, **changes) for seed, (click, watch) in enumerate(pairs)]


SINGLE = runs("single_task", [0.60, 0.61, 0.62], [1.0, 1.1, 1.2])
MMOE = runs("mmoe", [0.70, 0.72, 0.74], [0.9, 0.9, 0.9])


def only(records: list[Record]) -> Table:
    (table,) = board(records).tables
    return table


def row(table: Table, label: str) -> Row:
    (found,) = [r for r in table.rows if r.label == label]
    return found


def over(table: Table) -> Table:
    assert table.over_tasks is not None
    return table.over_tasks


def names(table: Table) -> list[str]:
    return [str(header) for header in table.headers]


def cell(table: Table, label: str, header: str) -> Cell:
    (i,) = [i for i, h in enumerate(table.headers) if str(h).startswith(header)]
    return row(table, label).cells[i]


def with_slices(records: list[Record], click: float | None, watch: float | None, rows: int = 77) -> list[Record]:
    made = copy.deepcopy(records)
    for r in made:
        r["metrics"]["slices"]["cold_item"] = {"rows": rows, "metrics": measured(click, watch)}
    return made


# values


def test_cells_by_hand() -> None:
    table = only(SINGLE + MMOE)
    click = cell(table, "mmoe", "click")
    assert click.value == pytest.approx(0.72)
    assert click.half_width == pytest.approx(T2 * 0.02 / math.sqrt(3), rel=1e-6)
    assert click.text == "0.7200 ± .0497"
    assert click.seeds == {0: 0.70, 1: 0.72, 2: 0.74}
    # differences .10, .11, .12: mean .11, s = .01
    assert click.difference is not None
    assert click.difference.mean == pytest.approx(0.11)
    assert click.difference.half_width == pytest.approx(T2 * 0.01 / math.sqrt(3), rel=1e-6)
    watch = cell(table, "mmoe", "watch")
    assert watch.text == "0.9000 ± .0000"
    assert watch.difference is not None
    assert watch.difference.mean == pytest.approx(-0.2)
    assert abs(watch.difference.mean) < (watch.difference.half_width or 0)  # s = .1: half-width .248
    assert cell(table, "single_task", "click").difference is None


def test_mean_skill_by_hand() -> None:
    # per seed: (click - .5) / .5 and (2 - watch) / 2; seed 0 of mmoe: (.4 + .55) / 2
    skill = cell(only(SINGLE + MMOE), "mmoe", "mean skill")
    assert skill.seeds == {0: pytest.approx(0.475), 1: pytest.approx(0.495), 2: pytest.approx(0.515)}
    assert skill.value == pytest.approx(0.495)
    assert skill.half_width == pytest.approx(T2 * 0.02 / math.sqrt(3), rel=1e-6)
    # single_task: .35, .335, .32; differences .125, .16, .195
    assert skill.difference is not None
    assert skill.difference.mean == pytest.approx(0.16)


def test_costs_and_headers() -> None:
    table = only(SINGLE + MMOE)
    assert names(table) == ["method", "click auc ↑", "watch rmse ↓", "mean skill", "seeds"]
    assert row(table, "mmoe").cells[-1].text == "3"
    assert names(over(table)) == ["method", "Δm %", "worst task", "worse", "mean rank", "fit s", "trained"]
    assert [c.text for c in row(over(table), "mmoe").cells[-2:]] == ["11.7", "12,345"]


def test_tuned_rows_say_what_their_settings_cost() -> None:
    """They have the name of their method, not a list of all settings found; the untuned ones keep their names."""
    cost = {"fit_s": 11.7, "trained": 12345, "tuning_trials": 20, "tuning_s": 1234.5}
    found = runs("mmoe", [0.8, 0.8, 0.8], [0.9, 0.9, 0.9], cost=cost)
    for r in found:
        r["spec"]["config"] = {**r["spec"]["config"], "width": 32, "lr": 0.01}
    shown = board(SINGLE + MMOE + found)
    (table,) = shown.tables
    assert names(over(table))[-4:] == ["fit s", "trained", "trials", "tuning s"]
    assert [r.label for r in table.rows if r.kind == "competitor"] == ["mmoe, tuned", "mmoe", "single_task"]
    assert [c.text for c in row(over(table), "mmoe, tuned").cells[-2:]] == ["20", "1,234"]
    assert [c.text for c in row(over(table), "mmoe").cells[-2:]] == ["–", "–"]
    assert any(line.startswith("tuned: ") for line in shown.legend)
    assert not any(line.startswith("tuned: ") for line in board(SINGLE).legend)


def test_large_costs_have_thousands_separators() -> None:
    table = only(runs("mmoe", [0.7], cost={"fit_s": 4321.06, "trained": 1234567}))
    assert [c.text for c in row(over(table), "mmoe").cells[-2:]] == ["4,321.1", "1,234,567"]


def test_differences_use_common_seeds_only() -> None:
    table = only(SINGLE[1:] + MMOE[:2])
    difference = cell(table, "mmoe", "click").difference
    assert difference is not None
    assert (difference.mean, difference.half_width) == (pytest.approx(0.11), None)  # seed 1 alone
    assert "(+.1100)" in to_console(board(SINGLE[1:] + MMOE[:2]))
    assert cell(only(SINGLE[:1] + MMOE[1:]), "mmoe", "click").difference is None


def test_undefined_values_are_never_imputed() -> None:
    partly = [record("mmoe", 0, 0.70, None), record("mmoe", 1, 0.72, 0.9), record("ple", 0, None, 0.9)]
    table = only(SINGLE + partly)
    assert cell(table, "mmoe", "watch").seeds == {1: 0.9}
    assert cell(table, "mmoe", "mean skill").seeds.keys() == {1}
    assert cell(table, "ple", "click") == cell(table, "ple", "mean skill") == Cell(DASH)
    assert [r.label for r in table.rows] == ["mmoe", "single_task", "ple", "chance"]


def test_a_task_without_chance_value_leaves_the_mean_skill_with_a_note() -> None:
    records = [record("mmoe", 0, 0.75, None, references={"chance": {"test": measured(0.5, None)}})]
    table = only(records)
    assert cell(table, "mmoe", "mean skill").value == 0.5
    assert any("leaves out watch" in note for note in table.notes)
    assert cell(table, "chance", "watch").text == DASH


# rows


def test_order_and_kinds_of_rows() -> None:
    chance = {"test": measured(0.5, 2.0)}
    oracle = {"test": measured(0.9, 0.1)}
    references = {"chance": chance, "oracle": oracle}
    records = SINGLE + MMOE + runs("popularity", [0.99], reference=True, references=references)
    table = only(records)
    assert [(r.label, r.kind) for r in table.rows] == [
        ("oracle", "oracle"), ("mmoe", "competitor"), ("single_task", "competitor"), ("popularity", "reference"),
        ("chance", "chance"),
    ]  # fmt: skip
    assert cell(table, "oracle", "mean skill").value == pytest.approx((0.8 + 0.95) / 2)
    assert cell(table, "chance", "mean skill").value == 0.0
    assert row(table, "oracle").cells[-1].text == ""
    assert not {"oracle", "chance"} & {r.label for r in over(table).rows}
    assert cell(table, "oracle", "click").difference is None


def test_best_competitor_is_bold_only_where_it_beats_the_second() -> None:
    # click: mmoe leads by .10 .. .12; watch: single_task leads by noise; popularity is no competitor
    close = runs("ple", [0.69, 0.72, 0.75], [1.4, 0.9, 1.0])
    lead = only(SINGLE + MMOE + runs("popularity", [0.99] * 3, reference=True))
    assert [r.label for r in lead.rows if r.cells[1].bold] == ["mmoe"]
    assert not any(r.cells[2].bold for r in lead.rows)
    assert not any(r.cells[1].bold for r in only(SINGLE + MMOE + close).rows)
    assert not any(c.bold for r in only(MMOE).rows for c in r.cells)


def test_smaller_is_better_for_errors() -> None:
    table = only(runs("single_task", [0.6] * 3, [1.0, 1.1, 1.2]) + runs("mmoe", [0.6] * 3, [0.9, 1.01, 1.1]))
    assert [r.label for r in table.rows if r.cells[2].bold] == ["mmoe"]


def test_labels_name_only_what_distinguishes() -> None:
    def lora(trunk: str, lr: float, lm: str = "mini") -> list[Record]:
        own = {f"trunk.{trunk}_width": 8}
        return runs("lora", [0.7], config={"lr": lr, "balancer": "uniform", "trunk": trunk, **own}, lm=lm)

    def labels(*some: list[Record]) -> set[str]:
        return {r.label for r in only(sum(some, [])).rows} - {"chance"}

    assert labels(MMOE, lora("ple", 0.1)) == {"mmoe", "lora"}
    assert labels(lora("ple", 0.1), lora("ple", 0.01)) == {"lora (lr=0.1)", "lora (lr=0.01)"}
    assert labels(lora("ple", 0.1), lora("mmoe", 0.1)) == {"lora (trunk=ple)", "lora (trunk=mmoe)"}
    assert labels(lora("ple", 0.1), lora("ple", 0.1, "bert")) == {"lora (lm=mini)", "lora (lm=bert)"}
    extra = runs("mmoe", [0.7], config={"lr": 0.002, "balancer": "uniform", "gate": None})
    assert labels(MMOE, extra) == {"mmoe", "mmoe (gate=none)"}
    assert labels(MMOE, runs("mmoe", [0.7], method_version=2)) == {"mmoe (version=1)", "mmoe (version=2)"}
    parts = runs("mmoe", [0.7], parts={"balancer": 2})
    assert labels(MMOE, parts) == {"mmoe (balancer version=1)", "mmoe (balancer version=2)"}


def test_what_follows_from_a_component_is_not_in_the_label() -> None:
    """Rows that differ in the balancer are named by it alone; the same balancer with other settings by those too."""

    def under(balancer: str, version: int = 1, **own: float) -> list[Record]:
        made = {"lr": 0.002, "batch_size": 512, "balancer": balancer, **{f"balancer.{k}": v for k, v in own.items()}}
        return runs("shared_bottom", [0.7], config=made, parts={"balancer": version})

    def labels(*some: list[Record]) -> set[str]:
        return {r.label for r in only(sum(some, SINGLE)).rows} - {"chance", "single_task"}

    dwa, rlw = under("dwa", temperature=2.0), under("rlw", version=3, temperature=1.0)
    assert labels(dwa, rlw, under("uniform")) == {f"shared_bottom (balancer={b})" for b in ("dwa", "rlw", "uniform")}
    assert labels(dwa, rlw, under("dwa", temperature=4.0)) == {
        "shared_bottom (balancer=rlw)",
        "shared_bottom (balancer=dwa, balancer.temperature=2.0)",
        "shared_bottom (balancer=dwa, balancer.temperature=4.0)",
    }
    assert labels(dwa, under("dwa", version=2, temperature=2.0)) == {
        "shared_bottom (balancer version=1)", "shared_bottom (balancer version=2)"
    }  # fmt: skip
    assert labels(dwa) == {"shared_bottom"}
    assert run_names([r["spec"] for r in (*dwa, *rlw, *SINGLE[:1])]) == [
        "toy shared_bottom (balancer=dwa) seed 0", "toy shared_bottom (balancer=rlw) seed 0", "toy single_task seed 0"
    ]  # fmt: skip


def test_records_from_before_gates_were_recorded_stay_readable() -> None:
    new = copy.deepcopy(MMOE)
    for r in new:
        r["gates"] = {"gates.click": {"usage": [0.9, 0.1], "dead": 0.0}}
    assert only(SINGLE + new) == only(SINGLE + MMOE)


def test_several_baselines_the_best_one_is_compared_with_and_named() -> None:
    better = runs("single_task", [0.65, 0.66, 0.67], [1.0, 1.1, 1.2], config={"lr": 0.01, "balancer": "uniform"})
    table = only(SINGLE + MMOE + better)
    assert table.notes == ("Differences are to the best of the single_task rows, single_task (lr=0.01).",)
    difference = cell(table, "mmoe", "click").difference
    assert difference is not None
    assert difference.mean == pytest.approx(0.06)
    assert cell(table, "single_task (lr=0.002)", "click").difference is not None


def test_without_single_task_there_are_no_differences() -> None:
    table = only(MMOE)
    assert all(c.difference is None for r in table.rows for c in r.cells)
    assert table.notes == ("No differences: there is no result of single_task.",)
    assert "| mmoe" in to_markdown(board(MMOE))


# runs without a result


def test_partly_failed_and_declined_rows() -> None:
    failed = [record("ple", 2, status="oom", error="CUDA out\nof memory"), *runs("ple", [0.7, 0.71])]
    declined = [record("esmm", seed, status="declined", error="needs a conversion task") for seed in (1, 0)]
    odd = [record("esmm", 2, status="failed")]
    table = only(SINGLE + failed + declined + odd)
    assert cell(table, "ple", "seeds").text == "2/3"
    assert "esmm" not in [r.label for r in table.rows]
    assert [(f.label, f.status, f.seeds) for f in table.failures] == [
        ("esmm", "declined", (0, 1)), ("esmm", "failed", (2,)), ("ple", "oom", (2,)),
    ]  # fmt: skip
    text = to_console(board(SINGLE + failed + declined + odd))
    assert "esmm: declined (seeds 0, 1): needs a conversion task" in text
    assert "esmm: failed (seed 2): no reason given" in text
    assert "ple: oom (seed 2): CUDA out of memory" in text


def test_a_table_in_which_nothing_ran() -> None:
    records = [record("mmoe", 0, status="failed", error="boom", tasks=[], data=None)]
    table = only(records)
    assert (table.rows, table.notes) == ((), ("No run gave a result.",))
    for text in (to_console(board(records)), to_markdown(board(records))):
        assert "mmoe: failed (seed 0): boom" in text


def test_long_reasons_are_shortened_in_text_and_whole_in_json() -> None:
    built = board([record("mmoe", 0, status="failed", error="why " * 500)])
    assert max(map(len, to_console(built).splitlines())) <= 200
    assert "why " * 500 in to_json(built)


# tables


def test_data_and_budgets_are_never_mixed() -> None:
    other = runs("mmoe", [0.9], data={"sha256": "fedcba98", "rows": {"test": 9}})
    short = runs("mmoe", [0.8], budget={"epochs": 1})
    tables = board(SINGLE + MMOE + other + short).tables
    assert len(tables) == 3
    assert sorted(len(t.rows) for t in tables) == [2, 2, 3]
    assert all("One of 3 tables that differ in budget and data: not comparable." in t.caption for t in tables)
    assert sorted(t.caption.split("; ")[4][:13] for t in tables) == ["data 01234567", "data 01234567", "data fedcba98"]


def test_configurations_of_a_data_set_have_their_own_title() -> None:
    few = with_slices(runs("mmoe", [0.7], dataset_config={"users": 50, "noise": 0.5}), 0.6, 1.0)
    many = runs("mmoe", [0.7], dataset_config={"users": 90, "noise": 0.5})
    tables = board(few + many).tables
    assert [t.title for t in tables] == ["toy (users=50)", "toy (users=90)"]
    assert tables[0].slices[0].title == "toy (users=50): cold items"
    assert "settings noise 0.5, users 50;" in tables[0].caption
    assert not any("One of" in t.caption for t in tables)
    assert only(few).title == "toy"


def test_caption() -> None:
    table = only(SINGLE + runs("lora", [0.7], lm="mini@1"))
    assert table.caption == (
        "Protocol clean-1; rows 8,000 train, 1,000 valid, 1,500 test; seeds 3; budget epochs 20, patience 3; "
        "data 01234567; language model mini@1; device cpu."
    )


def test_only_final_clean_records_count() -> None:
    trial = runs("mmoe", [0.99], role="trial")
    paper = runs("mmoe", [0.98], protocol="paper-1")
    assert only(SINGLE + trial + paper) == only(SINGLE)
    with pytest.raises(BenchError, match=r"clean protocol \(paper-1 only\); run `bench run --suite quick` first"):
        board(trial + paper)
    with pytest.raises(BenchError, match="no final records"):
        board([])


def test_slices() -> None:
    records = with_slices(SINGLE, 0.55, None) + with_slices(MMOE, 0.65, None)
    for r in records:
        r["references"]["chance"]["slices"]["cold_item"] = {"rows": 77, "metrics": measured(0.5, None)}
    (cold,) = only(records).slices
    assert (cold.title, cold.caption) == ("toy: cold items", "77 test rows whose item was never seen in training.")
    assert names(cold) == ["method", "click auc ↑"]  # watch has no value at all
    assert [r.label for r in cold.rows] == ["mmoe", "single_task", "chance"]
    assert cold.rows[0].cells[1].text == "0.6500 ± .0000"
    assert cold.rows[0].cells[1].difference is not None
    assert cold.rows[0].cells[1].difference.mean == pytest.approx(0.1)


def test_slices_without_values_or_yardsticks() -> None:
    assert only(with_slices(MMOE, None, None, rows=0)).slices == ()
    (cold,) = only(with_slices(MMOE, 0.6, 1.0) + SINGLE).slices
    assert [(r.label, r.cells[1].text) for r in cold.rows] == [("mmoe", "0.6000 ± .0000"), ("single_task", DASH)]


def test_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(BenchError, match="unknown metric 'auk'; did you mean 'auc'"):
        board(runs("mmoe", [0.7], tasks=[{**CLICK, "metric": "auk"}]))


def test_records_of_one_run_must_agree() -> None:
    again = copy.deepcopy(MMOE)
    again[0]["cost"]["fit_s"] = 99.0
    assert only(MMOE + copy.deepcopy(MMOE)) == only(MMOE)
    assert only(MMOE + again) == only(again + MMOE)
    again[0]["metrics"]["test"]["click"]["auc"] = 0.1
    with pytest.raises(BenchError, match=f"{again[0]['key']} disagree"):
        board(MMOE + again)


# output


def realistic() -> list[Record]:
    failed = [record("ple", 3, status="diverged", error="loss is NaN at epoch 2")]
    more = runs("mmoe", [0.71, 0.73, 0.74], config={"lr": 0.01, "balancer": "uniform"})
    return [*with_slices(SINGLE + MMOE, 0.55, 1.5), *runs("ple", [0.7] * 3), *failed, *more]


def reordered(value: Any, rng: random.Random) -> Any:
    """The same JSON value with its objects' keys in another order."""
    if isinstance(value, dict):
        return {k: reordered(value[k], rng) for k in rng.sample(sorted(value), len(value))}
    return [reordered(v, rng) for v in value] if isinstance(value, list) else value


@given(seed=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_order_does_not_matter(seed: int) -> None:
    records, rng = realistic(), random.Random(seed)
    whole, shuffled = board(records), board(iter(reordered(r, rng) for r in rng.sample(records, len(records))))
    for render in (to_console, to_markdown, to_json):
        assert render(shuffled) == render(whole)


def test_json_traces_every_number() -> None:
    records = realistic()
    (table,) = json.loads(to_json(board(records)))["tables"]
    (mmoe,) = [r for r in table["rows"] if r["label"] == "mmoe (lr=0.002)"]
    assert mmoe["keys"] == {str(r["spec"]["seed"]): r["key"] for r in MMOE}
    assert mmoe["cells"][1]["seeds"] == {"0": 0.70, "1": 0.72, "2": 0.74}
    assert mmoe["cells"][1]["difference"]["mean"] == pytest.approx(0.11)
    keys = {k for r in table["rows"] for k in r["keys"].values()} | {k for f in table["failures"] for k in f["keys"]}
    assert keys == {r["key"] for r in records}


def test_narrow_consoles_put_differences_below() -> None:
    wide, narrow = to_console(board(SINGLE + MMOE)), to_console(board(SINGLE + MMOE), 85)
    assert "0.7200 ± .0497 (+.1100*)" in wide
    assert "0.7200 ± .0497 (" not in narrow
    assert "(+.1100*)" in narrow
    assert max(map(len, narrow.splitlines())) <= 85


def test_markdown_escapes_what_would_break_a_table() -> None:
    records = [*runs("a|b", [0.7]), record("c", 0, status="failed", error="x | `y` <z> *w*")]
    text = to_markdown(board(records))
    assert "a\\|b" in text
    assert r"c: failed (seed 0): x \| \`y\` \<z> \*w\*" in text
    grid = [line for line in text.partition("###")[0].splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in grid} == {6}


GOLDEN_CONSOLE = """\
toy
Protocol clean-1; rows 8,000 train, 1,000 valid, 1,500 test; seeds 3; budget epochs
  20, patience 3; data 01234567; device cpu.

method       click           watch           mean              seeds
             auc ↑           rmse ↓          skill
-----------  --------------  --------------  --------------  -------
mmoe         0.7200 ± .0497  0.9000 ± .0000  0.4950 ± .0497        3
             (+.1100*)       (-.2000)        (+.1600*)
single_task  0.6100 ± .0248  1.1000 ± .2484  0.3350 ± .0373        3
-----------  --------------  --------------  --------------  -------
chance       0.5000          2.0000          0.0000

toy: over tasks, and costs

method       Δm %            worst task    worse    mean rank      fit s    trained
-----------  --------------  ------------  -------  -----------  -------  ---------
mmoe         +17.87 ± 11.00  +.1000 watch  0/6      1.0             11.7     12,345
single_task                                         2.0             11.7     12,345

"""


def test_golden_console() -> None:
    assert to_console(board(SINGLE + MMOE), 85).startswith(GOLDEN_CONSOLE)


GOLDEN_MARKDOWN = """\
# Leaderboard

## toy

Protocol clean-1; rows 8,000 train, 1,000 valid, 1,500 test; seeds 3; budget epochs 20, patience 3; data 01234567; \
device cpu.

| method | click auc ↑ | watch rmse ↓ | mean skill | seeds |
|---|---|---|---|---|
| mmoe | **0.7200 ± .0497** (+.1100\\*) | 0.9000 ± .0000 (-.2000) | **0.4950 ± .0497** (+.1600\\*) | 3 |
| single_task | 0.6100 ± .0248 | 1.1000 ± .2484 | 0.3350 ± .0373 | 3 |
| *chance* | 0.5000 | 2.0000 | 0.0000 | |

- esmm: declined (seed 0): no conversion

### toy: over tasks, and costs

| method | Δm % | worst task | worse | mean rank | fit s | trained |
|---|---|---|---|---|---|---|
| mmoe | +17.87 ± 11.00 | +.1000 watch | 0/6 | 1.0 | 11.7 | 12,345 |
| single_task | | | | 2.0 | 11.7 | 12,345 |

## Legend

- value ± half-width: mean over seeds and its 95 % Student t interval; ↑ larger is better, ↓ smaller is better, \
– undefined.
- (+.0123): mean difference to single_task over the seeds that both have, in units of the metric; a star: p \\< .05 in \
a paired t test, after Holm's correction over the rows of the column.
- bold (not in the console): the competitor that is better than every other, each with p \\< .05 in a paired t test, \
after Holm's correction over them.
- mean skill: mean over tasks of (value - chance) / (perfect - chance); 0 is chance, 1 is perfect.
- oracle: predicts the true probabilities and means of simulated data, the best that any method could do. chance: \
the best constant prediction. Rows set apart or in italics are yardsticks, not competitors. seeds: 2/3 means that 2 of \
3 seeds gave a result.
- Δm %: mean over tasks of the change of the metric relative to single_task in percent, a fall of an error counting as \
a gain; mean over common seeds and its 95 % interval.
- worst task: the task with the lowest mean difference to single_task, in skill.
- worse: on how many pairs of task and seed the row is worse than single_task; in brackets, on how many tasks with a \
star.
- mean rank: over tasks, among the competitors with a value for each; 1 is best.
- fit s: mean seconds to fit; trained: parameters trained.
- A two-sided signed-rank test over n seeds cannot go below p = 2 / 2^n: with fewer than 6 seeds it never gets below \
.05, with 6 it can. The rows here have at most 3.
"""


def test_golden_markdown() -> None:
    records = SINGLE + MMOE + [record("esmm", 0, status="declined", error="no conversion")]
    unpadded = re.sub(" +", " ", re.sub("-{3,}", "---", to_markdown(board(records))))
    assert unpadded == GOLDEN_MARKDOWN
