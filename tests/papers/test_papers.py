"""Paper tables: their files, the published protocol beside the clean one, verdicts, and all of them end to end."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import registry
from bench.data.load import load
from bench.data.prepare import configured, prepare
from bench.data.tensors import Split
from bench.errors import BenchError
from bench.execution import run
from bench.papers import plan, show, verdict
from bench.papers.plan import Job
from bench.papers.table import NO_METHOD, paths
from bench.papers.table import load as table_of
from bench.spec import CLEAN, PAPER
from bench.storage.records import Store
from bench.suites.specify import specify
from bench.training import session
from bench.training.contract import SMALL, tiny_language_model
from bench.training.loop import fit
from bench.training.session import TrainingView
from tests.support.command import Bench
from tests.support.files import WRITTEN, write

CPU = torch.device("cpu")
NAMES = sorted(paths())
SAMPLES = registry.ROOT.parent / "shared/samples"

TABLE = """
title: A table
source: { who: we, where: here, version: now }
data: Small.
protocol: { selection: test, split: none, runs: 2, notes: [Careless.] }
unknown: [The weather.]
differs: [The time.]
seeds: 2
budget: { epochs: 2, patience: 2 }
settings: { lr: 0.003, batch_size: 64 }
datasets:
  synthetic: { dataset: mmoe-synthetic, knobs: { rows: 200, dim: 4 }, rows: [200, 200] }
tolerances:
  rmse: { within: 0.1, why: a guess }
columns:
  - { name: both, data: synthetic, task: [y1, y2], metric: rmse, tolerance: rmse }
  - { name: excess, data: synthetic, task: y1, metric: excess_mse, tolerance: rmse }
  - { name: other, data: synthetic, task: y1, metric: mae, not_comparable: theirs is a median }
  - { name: none, not_comparable: no such thing }
rows:
  - { name: SB, method: shared_bottom, settings: { width: 16 }, figures: [1.0, null, 0.8, 3.0] }
  - { name: Mixture, method: mmoe, figures: [1.0, 0.5, 0.8, 3.0] }
  - { name: Oracle, note: it knows all, figures: [0.1, null, null, null] }
claims:
  - text: SB is worse
    above: 0
    terms: [{ row: SB, column: both, weight: 1 }, { row: Mixture, column: both, weight: -1 }]
"""
Write = Callable[[str], Path]


@pytest.fixture
def table(tmp_path: Path) -> Write:
    def made(text: str) -> Path:
        path = tmp_path / "table.yaml"
        path.write_text(text, "utf-8")
        return path

    return made


# The files


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_method_task_and_data_set_of_a_table_exists(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.text.models.identity", lambda lm: lm)
    paper = table_of(name)
    jobs = plan.jobs(paper, paper.chosen(()), 1)
    assert {job.row.name for job in jobs} == {row.name for row in paper.rows if row.method} and jobs
    for job in jobs:
        dataset, _ = configured(paper.parts[job.data].dataset, paper.parts[job.data].knobs)
        known = {task.name: {*task.metrics, *verdict.DERIVED} for task in dataset.tasks}
        for column in (c for c in paper.columns if c.data == job.data):
            assert all(column.metric in known[task] for task in column.tasks)
    assert paper.cells or paper.claims


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title: A table\n", "", " line 2: 'title' is missing"),
        ("seeds: 2", "sedes: 2", " line 8: unknown key 'sedes'; did you mean 'seeds'?"),
        ("seeds: 2", "seeds: 0", " line 8: seeds: expected a whole number, at least 1, got 0"),
        ("selection: test", "selection: tets", " line 5: unknown selection 'tets'; did you mean 'test'?"),
        ("who: we, ", "", " line 3: 'who' is missing"),
        ("runs: 2", "runs: many", ' line 5: runs: expected a whole number, at least 1, got "many"'),
        ("rows: [200, 200]", "rows: [200]", " line 12: rows: expected the fewest and the most"),
        ("rows: [200, 200]", "rows: [300, 200]", " line 12: rows: expected the fewest and the most"),
        ("within: 0.1", "within: 0", " line 14: within: expected a number above 0, got 0"),
        (", why: a guess", "", " line 14: 'why' is missing"),
        ("data: synthetic, task: [y1", "data: synthetik, task: [y1",
         " line 16: unknown data 'synthetik'; did you mean 'synthetic'?"),
        ("rmse, tolerance: rmse }\n  - { name: excess", "rmse, tolerance: rsme }\n  - { name: excess",
         " line 16: unknown tolerance 'rsme'; did you mean 'rmse'?"),
        ("task: y1, metric: mae,", "task: y1,", " line 18: 'metric' is missing"),
        ("name: none, not_comparable: no such thing", "name: none",
         " line 19: column 'none': give data, task and metric, or not_comparable"),
        ("name: excess", "name: both", " line 16: 'both' is there twice"),
        ("name: Mixture", "name: sb", " line 21: 'sb' is there twice"),
        ("name: Mixture", "name: 'A, B'", " line 22: row 'A, B': a name holds no comma"),
        ("[1.0, null, 0.8, 3.0]", "[1.0, null, 0.8]", " line 21: row 'SB': expected 4 figures, one for each column"),
        ("[1.0, null, 0.8, 3.0]", "[1.0, null, high, 3.0]", ' line 21: figures: expected a number, got "high"'),
        ("rmse, tolerance: rmse }\n  - { name: excess", "rmse }\n  - { name: excess",
         " line 21: row 'SB': column 'both' has a figure, and no tolerance to judge it by"),
        ("row: SB, column", "row: BS, column", " line 27: unknown row 'BS'; did you mean 'SB'?"),
        ("above: 0", "above: much", ' line 26: above: expected a number, got "much"'),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_table_is_named(table: Write, old: str, new: str, message: str) -> None:
    assert TABLE.count(old) >= 1
    path = table(TABLE.replace(old, new, 1))
    with pytest.raises(BenchError, match=f"^{re.escape(f'{path}{message}')}"):
        table_of(str(path))


def test_the_documentation_shows_a_table_that_loads(table: Write) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (registry.ROOT / "docs" / "papers.md").read_text("utf-8"), re.DOTALL)
    paper = table_of(str(table(text)))
    assert plan.jobs(paper, paper.rows) and paper.claims


def test_unknown_tables_rows_and_methods_are_named(bench: Bench, table: Write) -> None:
    assert (
        "unknown paper table 'mtreclib'; did you mean 'mtreclib-aliexpress'?"
        in bench("reproduce", "mtreclib", code=2).stderr
    )
    path = table(TABLE.replace("method: mmoe", "method: mmeo"))
    assert f"{path} line 22: unknown method 'mmeo'; did you mean 'mmoe'?" in bench("reproduce", path, code=2).stderr
    assert "unknown row of table 'sb2'; did you mean 'sb'?" in bench("reproduce", path, "--rows", "sb2", code=2).stderr


def test_list_says_what_a_table_holds(bench: Bench) -> None:
    rows = {row["name"]: row for row in json.loads(bench("list", "papers", "--json").stdout)}
    assert set(rows) == set(NAMES)
    found = rows["mtreclib-aliexpress"]
    assert (found["cells"], found["rows"], found["here"], len(found["datasets"])) == (7 * 16, 7, 7, 4)
    assert "aliexpress-us; 112 figures in 7 rows, 7 of them with a method here" in bench("list", "papers").stdout


def test_tables_are_read_and_shown_without_torch() -> None:
    code = (
        "import sys, bench.papers.plan, bench.papers.show, bench.papers.verdict\n"
        "for n in bench.papers.table.paths(): bench.papers.table.load(n)\n"
        "assert not {'torch', 'transformers', 'polars'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# The protocol


def test_only_the_paper_protocol_selects_on_the_test_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """What training is given under each, and that nothing given under the clean one leads to a test part."""
    data = load(prepare("sim-news", SMALL))
    given: list[TrainingView] = []
    parts: list[tuple[Split, Split]] = []
    trained = session.trained

    def spy(spec: Any, seen: TrainingView, *args: Any, **more: Any) -> Any:
        given.append(seen)
        return trained(spec, seen, *args, **more)

    def fitting(method: Any, train: Split, valid: Split, recipe: Any, **more: Any) -> Any:
        parts.append((train, valid))
        return fit(method, train, valid, recipe, **more)

    monkeypatch.setattr("bench.execution.run.trained", spy)
    monkeypatch.setattr("bench.training.session.fit", fitting)
    spec = specify("sim-news", "shared_bottom", knobs=SMALL, budget={"epochs": 2, "patience": 1})
    records = {p: run.run(replace(spec, protocol=p), data, device=CPU)[0] for p in (CLEAN, PAPER)}
    assert [seen.valid.name for seen in given] == ["valid", "test"]
    assert [(train.name, valid.name) for train, valid in parts] == [("train", "valid"), ("train", "test")]
    assert set(vars(given[0])) == {"schema", "train", "valid", "meta"}
    assert (records[CLEAN]["role"], records[PAPER]["role"]) == ("final", "paper")
    assert records[CLEAN]["key"] == spec.key != records[PAPER]["key"]
    primary = {t["name"]: t["metric"] for t in records[PAPER]["tasks"]}
    kept = records[PAPER]["curve"][next(iter(records[PAPER]["best_epoch"].values())) - 1]["valid"]
    found = records[PAPER]["metrics"]["test"]
    assert kept == {name: found[name][metric] for name, metric in primary.items()}
    assert records[CLEAN]["curve"][0]["valid"] != records[PAPER]["curve"][0]["valid"]
    assert records[CLEAN]["curve"][0]["loss"] == records[PAPER]["curve"][0]["loss"]


def test_a_data_set_can_be_cut_to_some_of_its_tasks(tmp_path: Path) -> None:
    raw = write("aliexpress-nl", tmp_path)
    cut = load(prepare("aliexpress-nl", {"tasks": ["ctcvr", "click"]}, raw))
    assert [t.name for t in cut.schema.tasks] == ["click", "ctcvr"] == list(cut.test.labels)
    assert cut.folder == prepare("aliexpress-nl", {"tasks": ["click", "ctcvr"]}, raw)
    whole = load(prepare("aliexpress-nl", None, raw))
    assert len(whole.schema.tasks) == 5 and torch.equal(whole.test.pair_num, cut.test.pair_num)
    with pytest.raises(BenchError, match="unknown task 'clck'; did you mean 'click'"):
        prepare("aliexpress-nl", {"tasks": ["clck"]}, raw)
    with pytest.raises(BenchError, match="knob 'tasks' must be a list of names"):
        prepare("aliexpress-nl", {"tasks": "click"}, raw)


def test_simulated_data_may_be_drawn_anew_for_each_run(table: Write) -> None:
    once, anew = (table_of(str(table(TABLE.replace("rows: [200, 200]", new)))) for new in (
        "rows: [200, 200]", "rows: [200, 200], redraw: seed"))  # fmt: skip
    drawn = [
        [(spec.seed, spec.dataset_config["seed"]) for spec in plan.jobs(paper, paper.rows)[0].specs[PAPER]]
        for paper in (once, anew)
    ]
    assert drawn == [[(0, 0), (1, 0)], [(0, 0), (1, 1)]]


# Verdicts, on made-up records


def record(spec: Any, value: float, rows: int = 200, status: str = "ok") -> dict[str, Any]:
    metrics = {name: {"rmse": value, "mae": value} for name in ("y1", "y2")}
    return {
        "spec": spec.to_dict(), "status": status, "error": "it fell over", "data": {"rows": {"train": rows}},
        "metrics": {"test": metrics} if status == "ok" else None,
        "references": {"oracle": {"test": {name: {"rmse": 0.1} for name in metrics}}},
    }  # fmt: skip


class World:
    """A table with records of our own making."""

    def __init__(self, path: Path) -> None:
        self.paper = table_of(str(path))
        self.jobs = plan.jobs(self.paper, self.paper.rows)
        self.records: dict[str, dict[str, Any]] = {}

    def put(self, row: str, protocol: str, *values: float, **more: Any) -> None:
        (job,) = [job for job in self.jobs if job.row.name == row]
        for spec, value in zip(job.specs[protocol], values, strict=False):
            self.records[spec.key] = record(spec, value, **more)

    def report(self, **missing: str) -> verdict.Report:
        return verdict.compare(self.paper, self.paper.rows, self.jobs, self.records, missing)

    def cell(self, row: str, column: str, **missing: str) -> verdict.JudgedFigure:
        (found,) = [c for c in self.report(**missing).cells if (c.row, c.column) == (row, column)]
        return found


@pytest.fixture
def world(table: Write) -> World:
    return World(table(TABLE))


def test_a_difference_is_judged_by_the_tolerance(world: World) -> None:
    world.put("SB", PAPER, 1.05, 1.15)  # a mean of exactly 1.1, at the edge
    world.put("Mixture", PAPER, 1.1, 1.12)
    sb, mixture = world.cell("SB", "both"), world.cell("Mixture", "both")
    assert (sb.verdict, mixture.verdict) == (verdict.WITHIN, verdict.OUTSIDE)
    assert sb.reproduced is not None and sb.reproduced.seeds == {0: 1.05, 1: 1.15}
    assert sb.difference == pytest.approx(0.1) and sb.clean is None and sb.bias is None
    excess = world.cell("Mixture", "excess")
    assert excess.difference == pytest.approx((1.1**2 + 1.12**2) / 2 - 0.01 - 0.5)
    other = world.cell("SB", "other")
    assert (other.verdict, other.why[0]) == (verdict.NOT_COMPARABLE, "other metric") and other.reproduced is not None


def test_bias_is_that_of_common_seeds(world: World) -> None:
    world.put("SB", PAPER, 0.9, 0.5)
    world.put("SB", CLEAN, 1.1)
    found = world.cell("SB", "both")
    assert found.bias == pytest.approx(-0.2) and found.clean is not None and found.clean.seeds == {0: 1.1}


def test_what_cannot_be_compared_says_why(world: World) -> None:
    assert world.cell("SB", "both").why[0] == "not run"
    assert world.cell("SB", "both", synthetic="get it").why == ("no data", "get it")
    assert world.cell("SB", "none").why == ("no such figure here", "no such thing")
    assert world.cell("Oracle", "both").why == (NO_METHOD, "it knows all")
    world.put("SB", PAPER, 1.0, 1.0, rows=199)
    assert world.cell("SB", "both").why[0] == world.cell("SB", "other").why[0] == "fixture"
    assert world.cell("SB", "both").why[1] == "mmoe-synthetic has 199 rows here; the published set has 200"
    world.put("SB", PAPER, 1.0, 1.0)
    world.put("SB", CLEAN, 1.0, status="diverged")
    found = world.cell("SB", "both")
    assert (found.verdict, found.why[0]) == (
        verdict.NOT_COMPARABLE,
        "diverged",
    ) and "seed 0: it fell over" in found.why[1]


def test_a_table_selected_on_validation_has_no_second_protocol(table: Write) -> None:
    world = World(table(TABLE.replace("selection: test", "selection: validation")))
    assert {protocol for job in world.jobs for protocol in job.specs} == {CLEAN}
    world.put("SB", CLEAN, 1.05, 1.0)
    found = world.cell("SB", "both")
    assert found.verdict == verdict.WITHIN and found.reproduced == found.clean and found.bias is None


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ((1.2, 1.3), (1.0, 1.1), verdict.CONFIRMED),
        ((1.0, 1.1), (1.2, 1.3), verdict.REFUTED),
        ((1.0, 1.1), (1.0, 1.1), verdict.REFUTED),
        ((1.2, 1.0), (1.0, 1.1), verdict.UNDECIDED),
        ((1.2,), (1.0,), verdict.UNDECIDED),
        ((), (1.0,), verdict.NOT_COMPARABLE),
    ],
)
def test_claims(world: World, ours: tuple[float, ...], theirs: tuple[float, ...], expected: str) -> None:
    world.put("SB", PAPER, *ours)
    world.put("Mixture", PAPER, *theirs)
    (found,) = world.report().findings
    assert found.verdict == expected


def test_reports_can_be_read(world: World) -> None:
    world.put("SB", PAPER, 1.05, 1.15)
    report = world.report()
    console, markdown, data = show.to_console(report), show.to_markdown(report), json.loads(show.to_json(report))
    for text in ("A fault", "Careless.", "The weather.", "The time.", "Tolerance 0.1: a guess", "it knows all"):
        assert text.lower() in console.lower() and text.lower() in markdown.lower(), text
    assert re.search(r"SB +both +1\.0 +1\.1 ± 0\.6 \(2\) +\+0\.1 +within tolerance", console)
    assert "| SB      | both     | 1.0         |" in markdown
    assert data["cells"][0]["reproduced"]["seeds"] == {"0": 1.05, "1": 1.15}
    assert all(len(line) <= 240 for line in console.splitlines())


def test_cost_is_rows_times_epochs_at_the_measured_speed(world: World) -> None:
    (job,) = [job for job in world.jobs if job.row.name == "SB"]
    assert plan.cost(world.paper, job, []) == plan.Cost(4, 200 * 2 * 4, None, "")
    here, there = ({"status": "ok", "cost": {"rows_per_s": speed}, "spec": spec} for speed, spec in (
        (100, {"method": "shared_bottom", "dataset": "mmoe-synthetic"}),
        (900, {"method": "shared_bottom", "dataset": "sim-news"}),
    ))  # fmt: skip
    other = {"status": "ok", "cost": {"rows_per_s": 1}, "spec": {"method": "mmoe", "dataset": "mmoe-synthetic"}}
    assert plan.cost(world.paper, job, [here, there, other]).seconds == 16
    found = plan.cost(world.paper, job, [there, other])
    assert (
        found.seconds == pytest.approx(1600 / 900) and found.like == "900 rows/s, 1 record of shared_bottom on sim-news"
    )


# The command


def test_a_plan_runs_nothing(bench: Bench, table: Write, tmp_path: Path) -> None:
    words = ("reproduce", table(TABLE), "--dry-run", "--results", tmp_path / "results")
    text = bench(*words).stdout
    for part in ("The weather.", "The time.", "8 runs", "paper + clean", "width=16", "no such method here: Oracle",
                 "not comparable: none: no such thing", "mmoe-synthetic: simulated, nothing to get"):  # fmt: skip
        assert part in text, part
    found = json.loads(bench(*words, "--rows", "sb", "--seeds", 3, "--json").stdout)
    assert [(r["row"], {p: len(keys) for p, keys in r["keys"].items()}) for r in found["runs"]] == [
        ("SB", {PAPER: 3, CLEAN: 3})
    ]
    assert not (tmp_path / "results").exists()


def test_a_table_is_reproduced_once_and_off_the_leaderboard(bench: Bench, table: Write, tmp_path: Path) -> None:
    results = tmp_path / "results"
    words = ("reproduce", table(TABLE), "--workers", 1, "--results", results)
    first = bench(*words)
    assert "[8/8]" in first.stderr
    records = list(Store(results).records())
    assert sorted(r["role"] for r in records) == ["final"] * 4 + ["paper"] * 4
    again = bench(*words)
    assert again.stdout == first.stdout and again.stderr == ""
    assert json.loads((results / "papers" / "table.json").read_text("utf-8")) == json.loads(
        bench(*words, "--json").stdout
    )
    assert (results / "papers" / "table.md").read_text("utf-8").startswith("# A table\n")
    board = json.loads(bench("board", "--results", results, "--json").stdout)
    keys = {key for made in board["tables"] for row in made["rows"] for key in row["keys"].values()}
    assert keys == {r["key"] for r in records if r["role"] == "final"}


def test_without_data_it_says_what_is_needed(bench: Bench, tmp_path: Path) -> None:
    said = bench("reproduce", "mtreclib-aliexpress", "--rows", "mmoe", "--results", tmp_path / "results", code=2).stderr
    for country in ("nl", "es", "fr", "us"):
        files = f"{country}_item_test.csv, aliexpress_{country.upper()}_datasets/{country}_item_train.csv"
        assert f"aliexpress-{country}: it needs aliexpress_{country.upper()}_datasets/{files}" in said
        assert f"get aliexpress_{country.upper()}_datasets.zip from https://tianchi.aliyun.com/dataset/74690" in said
    empty = tmp_path / "empty"
    empty.mkdir()
    said = bench("reproduce", "census-ijanmc", "--from", empty, "--results", tmp_path / "results", code=2).stderr
    assert (
        f"census-income: {empty} lacks census-income.data, census-income.test" in said
        and "it needs census-income.data" in said
    )


# Every table on files in the published formats. Of long tables some rows: the others differ from these in numbers.
ROWS = {
    "ali-ccp": "torcheasyrec mmoe,aitm paper",
    "mtreclib-aliexpress": "mmoe,metaheac",
    "noah-aliexpress": "esmm,ple+nashmtl",
}


def small(name: str, folder: Path) -> Path:
    """The table with small models, one epoch, and a tiny language model in the place of others."""
    text = paths()[name].read_text("utf-8")
    lm = json.dumps(tiny_language_model())
    for pattern, new in (
        (r"budget: \{.*\}", "budget: { epochs: 1, patience: 1 }"), (r"\bwidth: \d+", "width: 16"),
        (r"embedding: \d+", "embedding: 4"), (r"tower: \d+", "tower: 8"), (r"lm: \"[^\"]*\"", f"lm: {lm}"),
        (r"layers: \d+", "layers: 1"), (r"knobs: \{ correlation", "knobs: { rows: 600, dim: 4, correlation"),
    ):  # fmt: skip
        text = re.sub(pattern, new, text)
    path = folder / f"{name}.yaml"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize("name", NAMES)
def test_every_table_on_a_fixture(bench: Bench, name: str, tmp_path: Path) -> None:
    """From files in the published format to a report in which nothing is taken for a comparison."""
    paper, raw = table_of(name), tmp_path / "raw"
    datasets = list(dict.fromkeys(part.dataset for part in paper.parts.values()))
    given = datasets[:1]  # of AliExpress one country: the others are told to be missing
    for dataset in given:
        if dataset in WRITTEN:
            write(dataset, raw / dataset)
    raw.mkdir(exist_ok=True)
    rows = ("--rows", ROWS[name]) if name in ROWS else ()
    words = ("--from", raw, "--seeds", 1, "--workers", 1, "--results", tmp_path / "results")
    found = json.loads(bench("reproduce", small(name, tmp_path), *rows, *words, "--json").stdout)
    several = [*found["cells"], *found["findings"]]
    assert several and all(item["verdict"] in (verdict.NOT_COMPARABLE, "") for item in several)
    reasons = {item["why"][0] for item in several if item["verdict"]}
    assert "fixture" in reasons
    allowed = {"fixture", NO_METHOD, "no such figure here"} | ({"no data"} if len(datasets) > 1 else set())
    assert reasons <= allowed
    statuses = {r["spec"]["method"]: r["status"] for r in Store(tmp_path / "results").records()}
    assert statuses and {m: s for m, s in statuses.items() if s != "ok"} == (
        {"aitm": "declined", "esmm": "declined"} if name == "census-torch-rechub" else {}
    )
    assert any(item.get("reproduced") for item in several)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="needs shared/samples")
def test_a_sample_of_the_real_files_is_a_fixture(bench: Bench, tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "aliexpress-nl"
    raw.mkdir(parents=True)
    for part in ("train", "test"):
        shutil.copy(SAMPLES / f"aliexpress_{part}_sample.csv", raw / f"{part}.csv")
    words = (
        "--rows",
        "shared-bottom",
        "--from",
        raw.parent,
        "--seeds",
        1,
        "--workers",
        1,
        "--results",
        tmp_path / "out",
    )
    found = json.loads(bench("reproduce", small("mtreclib-aliexpress", tmp_path), *words, "--json").stdout)
    first = found["cells"][0]
    assert first["column"] == "NL CTR AUC" and first["why"][0] == "fixture"
    assert first["why"][1].startswith("aliexpress-nl has 120 rows here")


def test_the_committed_table_is_what_its_records_give() -> None:
    """Without a run: after a change of a version, `bench reproduce mmoe-synthetic` has to make them again."""
    store, paper = Store(registry.ROOT / "results" / "reference" / "reproduced"), table_of("mmoe-synthetic")
    jobs = plan.jobs(paper, paper.rows)
    specs = [spec for job in jobs for of in job.specs.values() for spec in of]
    records = {spec.key: store.get(spec.to_dict(), spec.key) for spec in specs}
    assert all(r is not None and r["status"] == "ok" for r in records.values())
    assert {r["key"] for r in store.records()} == set(records)
    report = verdict.compare(paper, paper.rows, jobs, {k: r for k, r in records.items() if r is not None}, {})
    assert show.to_markdown(report) == (store.root / "papers" / "mmoe-synthetic.md").read_text("utf-8")


def test_a_job_without_its_language_model_is_told(table: Write) -> None:
    text = TABLE.replace("method: mmoe, figures", "method: full, settings: { lm: 'hub:nobody/nothing' }, figures")
    paper = table_of(str(table(text)))
    jobs = plan.jobs(paper, paper.rows)
    assert [bool(job.problem) for job in jobs] == [False, True] and jobs[1] == Job(
        paper.rows[1], "synthetic", {}, jobs[1].problem
    )
    cells = verdict.compare(paper, paper.rows, jobs, {}, {}).cells
    assert next(c for c in cells if c.row == "Mixture").why == ("no language model", jobs[1].problem)
