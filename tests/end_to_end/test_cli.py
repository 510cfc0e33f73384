"""The command, end to end: lists, help, skeletons, data, leaderboard, stale records, progress."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from bench import cli, registry
from bench.cli._skeleton import TARGETS
from bench.cli.list import LISTED
from bench.spec import config
from bench.suites.sweep import paths
from tests.support.command import SMALL, Bench, Plugin, Start

QUICK = ("-d", "sim-news", *SMALL, "--epochs", 1, "--workers", 1)
RUN = ("run", "-d", "sim-news", "-m")


def commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command's words."""
    yield words
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name)


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def ran(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with three methods and two seeds; not to be changed."""
    results = tmp_path_factory.mktemp("ran") / "results"
    methods = ("-m", "single_task", "-m", "shared_bottom", "-m", "popularity")
    bench("run", *QUICK, *methods, "--seeds", 2, "--results", results)
    return results


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project, to be changed."""
    skip = shutil.ignore_patterns("__pycache__")
    for part in ("bench", "baselines", "methods"):
        shutil.copytree(registry.ROOT / part, tmp_path / "checkout" / part, ignore=skip)
    return tmp_path / "checkout"


# Lists and help


@pytest.mark.parametrize("kind", LISTED)
def test_a_list_holds_every_file(bench: Bench, kind: str) -> None:
    rows = json.loads(bench("list", kind, "--json").stdout)
    folders = {
        "suites": "bench/suites/*.yaml",
        "papers": "bench/papers/*.yaml",
        "balancers": "baselines/balancers/*.py",
    }
    pattern = folders.get(kind) or ("bench/datasets/*.py" if kind == "datasets" else f"{kind}/*.py")
    stems = sorted(p.stem for p in registry.ROOT.glob(pattern) if not p.stem.startswith("_"))
    if kind == "datasets":  # a family is one file with several names
        known = registry.entries(kind)
        assert sorted({known[r["name"]].path.stem for r in rows}) == stems
        assert {"kuairand-pure", "kuairand-1k", "sim-news"} <= set(known) and "kuairand" not in known
    else:
        assert [r["name"] for r in rows] == stems
    assert all(r["about"] and not r["about"].startswith("broken") for r in rows if kind != "papers")
    shown = bench("list", kind).stdout
    assert all(f"  {r['name']} " in shown and r["about"] in shown for r in rows)
    assert rows or shown == "  none yet\n"


def test_without_a_kind_everything_is_listed(bench: Bench) -> None:
    every = json.loads(bench("list", "--json").stdout)
    assert list(every) == list(LISTED)
    shown = bench("list").stdout
    assert [line for line in shown.splitlines() if not line.startswith(" ")] == list(LISTED)
    assert all(row["name"] in shown for rows in every.values() for row in rows)


def test_an_unknown_kind_shows_the_known_ones(bench: Bench) -> None:
    assert "'methods', 'baselines'" in bench("list", "method", code=2).stderr


@pytest.mark.parametrize("words", list(commands(cli.main)), ids=lambda words: " ".join(words) or "bench")
def test_every_command_has_help(bench: Bench, words: tuple[str, ...]) -> None:
    shown = bench(*words, "--help").stdout
    assert shown.startswith("Usage: ") and shown == bench(*words, "-h").stdout
    about = shown.split("\n\n")[1].strip()
    assert about and not about.startswith("Options")


def test_help_of_run_tells_defaults_and_choices(bench: Bench) -> None:
    shown = " ".join(bench("run", "--help").stdout.split())
    for words in ("default 20, or the suite's", "[auto|cpu|cuda]", "default: results", "--plugin", "lr=0.003"):
        assert words in shown


def test_version(bench: Bench) -> None:
    assert re.fullmatch(r"bench, version \d+\.\d+\.\d+\n", bench("--version").stdout)


def test_what_only_lists_imports_no_torch() -> None:
    """Listing, help, misspelt names and the leaderboard answer at once."""
    code = """
import sys
from bench.cli import main
slow = ("torch", "transformers", "peft", "optuna", "sklearn", "scipy", "polars", "matplotlib")
for words in (["--help"], ["list"], ["list", "--json"], ["run", "--help"], ["board", "--help"],
              ["run", "-d", "sim-news", "-m", "mmeo"],
              ["run", "--suite", "quik"]):
    try:
        main(words)
    except SystemExit as end:
        print(end.code)
print([m for m in slow if m in sys.modules])
try:
    main(["board", "--results", "nowhere"])  # it computes intervals
except SystemExit as end:
    print(end.code)
print([m for m in slow if m in sys.modules and m != "scipy"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=registry.ROOT, check=True)
    lines = done.stdout.splitlines()
    assert [line for line in lines if line in ("0", "1", "2")] == ["0", "0", "0", "0", "0", "2", "2", "2"]
    assert [line for line in lines if line.startswith("[")][-2:] == ["[]", "[]"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("lisst",), "unknown command 'lisst'; did you mean 'list'?"),
        (("data", "inffo"), "unknown command 'inffo'; did you mean 'info'?"),
        ((*RUN, "mmeo"), "unknown method 'mmeo'; did you mean 'mmoe'?"),
        (("run", "-d", "sim-newz", "-m", "mmoe"), "unknown dataset 'sim-newz'; did you mean 'sim-news'?"),
        (("run", "--suite", "quik"), "unknown suite 'quik'; did you mean 'quick'?"),
        ((*RUN, "mmoe", "-s", "exprts=3"), "unknown setting 'exprts'; did you mean 'experts'?"),
        ((*RUN, "mmoe", "-s", "balancer=unifrm"), "unknown balancer 'unifrm'; did you mean 'uniform'?"),
        ((*RUN, "frozen", "-s", "trunk=mmeo"), "unknown method 'mmeo'; did you mean 'mmoe'?"),
        ((*RUN, "mmoe", "--data", "user=9"), "unknown setting 'user'; did you mean 'users'?"),
        ((*RUN, "zzz"), "unknown method 'zzz'; known: "),
        (("data", "info", "movielens-100"), "unknown dataset 'movielens-100'; did you mean 'movielens-100k'?"),
        (("check", "mmeo"), "unknown method, balancer or data set 'mmeo'; did you mean 'mmoe'?"),
    ],
)  # fmt: skip
def test_a_misspelt_name_suggests_the_nearest(
    refused: Callable[..., str], tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    if words[0] == "run":
        words = (*words, "--results", str(tmp_path / "results"))
    assert refused(*words).startswith(message)
    assert not (tmp_path / "results").exists()


def test_a_misspelt_option_suggests_the_nearest(bench: Bench) -> None:
    assert re.search("No such option.*--seed\\b.*--seeds", bench("run", "--seed", 3, code=2).stderr)


def test_a_broken_file_is_named_and_alone(
    checkout: Path, bench: Bench, refused: Callable[..., str], plugin: Plugin, tmp_path: Path
) -> None:
    (checkout / "methods" / "unclosed.py").write_text('"""Broken."""\nx = (\n')
    (checkout / "methods" / "binary.py").write_bytes(b"\x00\xff\n")
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", "list", "methods", "--json"],
        capture_output=True, text=True, cwd=checkout, check=True,
    )  # fmt: skip
    about = {row["name"]: row["about"] for row in json.loads(done.stdout)}
    assert about["unclosed"].startswith("broken: ") and "line 2" in about["unclosed"]
    assert about["binary"].startswith("broken: ")
    assert {k: v for k, v in about.items() if k not in ("unclosed", "binary")} == {
        row["name"]: row["about"] for row in json.loads(bench("list", "methods", "--json").stdout)
    }

    broken, good = plugin("broken", head="import no_such_package"), plugin("good")
    both = ("--plugin", broken, "--plugin", good, "--results", tmp_path / "results")
    message = refused("run", *QUICK, "-m", "broken", *both)
    assert str(broken) in message and "no_such_package" in message
    bench("run", *QUICK, "-m", "good", *both)


def test_two_plugins_of_one_name_are_refused(refused: Callable[..., str], plugin: Plugin, tmp_path: Path) -> None:
    first, second, taken = plugin("idea"), tmp_path / "idea.py", plugin("mmoe")
    shutil.copy(first, second)
    assert "same name" in refused("run", *QUICK, "-m", "idea", "--plugin", first, "--plugin", second)
    assert "already taken" in refused("run", *QUICK, "-m", "mmoe", "--plugin", taken)
    assert "no such Python file" in refused("run", *QUICK, "-m", "idea", "--plugin", tmp_path / "none.py")


def test_say_what_to_run(refused: Callable[..., str]) -> None:
    assert "say what to run" in refused("run")
    assert "say what to run" in refused("run", "-d", "sim-news")
    assert "either --suite or" in refused("run", "--suite", "quick", "-m", "mmoe")


def test_every_suite_names_what_exists(bench: Bench) -> None:
    from bench.suites.sweep import load

    for name in paths():
        suite = load(name)
        for dataset, setup in suite.datasets.items():
            registry.find("dataset", dataset)
            resolved = [config.resolve(e.method, {**setup.settings, **e.settings}) for e in setup.entries]
            different = {json.dumps([e.method, r]) for e, r in zip(setup.entries, resolved, strict=True)}
            assert len(different) == len(setup.entries), f"{name} names a run twice"


def test_suites_leave_no_baseline_and_no_balancer_out() -> None:
    from bench.suites.sweep import load

    assert set(load("architectures").methods) == set(registry.entries("baselines"))
    for setup in load("balancers").datasets.values():
        assert {e.settings["balancer"] for e in setup.entries if e.settings} == set(registry.entries("balancers"))
        assert {e.method for e in setup.entries} == {"shared_bottom", "single_task"}


def test_suites_share_data_sets_budgets_and_settings() -> None:
    from bench.suites.sweep import load

    suites = [load(name).datasets.items() for name in ("quick", "architectures", "balancers", "mlm")]
    quick, *others = [{name: (setup.budget, setup.settings) for name, setup in suite} for suite in suites]
    assert others == [quick] * 3


# Skeletons


def test_a_new_method_runs_as_it_is(bench: Bench, tmp_path: Path) -> None:
    shown = bench("new", "method", "own_test_idea", "--to", tmp_path / "own").stdout
    path = tmp_path / "own" / "own_test_idea.py"
    run = f"bench run -d sim-news -m own_test_idea --plugin {path}"
    assert shown == f"{path}\nnext: change it, then `bench check own_test_idea --plugin {path}`\nand `{run}`\n"
    lines = path.read_text().splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 120
    assert [p.name for p in path.parent.iterdir()] == ["own_test_idea.py"]

    checked = bench("check", "own_test_idea", "--plugin", path).stdout.splitlines()
    assert len(checked) > 20 and all(line.startswith("    ok  ") for line in checked)

    words = ("-d", "sim-news", *SMALL, "-m", "own_test_idea", "--seeds", 2, "--epochs", 1, "--workers", 1)
    done = bench("run", *words, "--plugin", path, "--results", tmp_path / "results", "--json")
    assert [r["status"] for r in json.loads(done.stdout)] == ["ok", "ok"]


def test_new_files_in_the_checkout_are_all_it_takes(checkout: Path, tmp_path: Path, start: Start) -> None:
    """A new method and a new data set, written, listed and run; nothing else in the checkout changes."""
    before = tree(checkout)
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}

    def here(*words: object) -> str:
        process = start(*words, cwd=checkout, env=environment)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        return out

    assert f"{checkout / 'methods' / 'own_test_idea.py'}\nnext: change it, then `bench check own_test_idea`" in here(
        "new", "method", "own-test-idea"
    )
    assert "`bench check own-test-data --from FOLDER`" in here("new", "dataset", "own_test_data")
    listed = json.loads(here("list", "--json"))
    assert "own_test_idea" in [row["name"] for row in listed["methods"]]
    assert "own-test-data" in [row["name"] for row in listed["datasets"]]

    rng = np.random.default_rng(0)
    shown = [(t, f"u{t % 12}", i, rng.random() < 0.3) for t in range(300) for i in rng.choice(30, 4, replace=False)]
    rows = [f"{t},{user},i{i},Title {i},{int(clicked)}" for t, user, i, clicked in shown]
    (tmp_path / "events.csv").write_text("\n".join(["time,user,item,title,clicked", *rows, ""]))
    words = (
        "-d",
        "own-test-data",
        "-m",
        "own_test_idea",
        "--from",
        tmp_path,
        "--results",
        tmp_path / "results",
        "--workers",
        1,
    )
    (record,) = json.loads(here("run", *words, "--epochs", 1, "--json"))
    assert (record["status"], record["data"]["rows"]) == ("ok", {"train": 960, "valid": 120, "test": 120})
    added = {"methods/own_test_idea.py", "bench/datasets/own_test_data.py"}
    for check in (["check"], ["format", "--check"]):
        given = ["--no-cache", "--config", registry.ROOT / "pyproject.toml", *added]
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, *given], cwd=checkout, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout
    assert {k: v for k, v in tree(checkout).items() if k not in added} == before


def test_elsewhere_new_files_are_plugins(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A balancer and a data set of one's own, written to the current folder; the commands that are told work."""
    monkeypatch.chdir(tmp_path)
    plugins = ("--plugin", "own_test_weights.py", "--plugin", "own_test_data.py")
    assert bench("new", "balancer", "own-test-weights").stdout == (
        "own_test_weights.py\nnext: change it, then `bench check own_test_weights --plugin own_test_weights.py`\n"
        "and `bench run -d sim-news -m shared_bottom -s balancer=own_test_weights --plugin own_test_weights.py`\n"
    )
    assert bench("new", "dataset", "own-test-data").stdout == (
        "own_test_data.py\nnext: change it, then `bench check own-test-data --from FOLDER --plugin own_test_data.py`\n"
        "and `bench run -d own-test-data -m shared_bottom --from FOLDER --plugin own_test_data.py`\n"
    )
    bench("new", "method", "own_test_idea")
    scope: dict[str, Any] = {"__name__": "own_test_data"}
    exec(compile((tmp_path / "own_test_data.py").read_text(), "own_test_data.py", "exec"), scope)
    (tmp_path / "raw").mkdir()
    scope["sample"](tmp_path / "raw")

    for name, more in (("own_test_weights", ()), ("own-test-data", ("--from", "raw"))):
        checked = bench("check", name, *plugins, *more).stdout.splitlines()
        assert len(checked) > 4 and all(line.startswith("    ok  ") for line in checked), checked
    assert "own-test-data (news)" in bench("data", "info", "own-test-data", "--from", "raw", *plugins).stdout
    words = (
        "-d",
        "own-test-data",
        "-m",
        "own_test_idea",
        "-s",
        "balancer=own_test_weights",
        "--from",
        "raw",
        "--epochs",
        1,
    )
    done = bench("run", *words, *plugins, "--plugin", "own_test_idea.py", "--seeds", 2, "--workers", 2, "--json")
    assert [r["status"] for r in json.loads(done.stdout)] == ["ok", "ok"]


def test_a_plugin_that_defines_nothing_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "nothing.py"
    path.write_text("class Other:\n    pass\n")
    said = refused("run", *QUICK, "-m", "single_task", "--plugin", path)
    assert said == f"plugin {path}: must define one subclass of Method, Balancer, Dataset of bench.api"


@pytest.mark.parametrize("name", ["methods", "baselines"])
def test_somebody_elses_package_is_refused(tmp_path: Path, name: str) -> None:
    """In the current folder it comes first, as after `python -m`."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    own = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(registry.ROOT)])}
    command = [sys.executable, "-c", "from bench import registry; registry.load_balancer('static')"]
    done = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True, check=False)
    wanted = f"{tmp_path / name} is imported in place of {registry.ROOT / name}: rename it, or take it off the path"
    assert done.stderr.splitlines()[-1] == f"bench.errors.BenchError: {wanted}"


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("method", "9x", "use lower-case letters"),
        ("method", "My_Idea", "use lower-case letters"),
        ("method", "my idea", "use lower-case letters"),
        ("method", "../idea", "use lower-case letters"),
        ("method", "_idea", "use lower-case letters"),
        ("method", "class", "use lower-case letters"),
        ("method", "", "use lower-case letters"),
        ("method", "mmoe", "exists already"),
        ("method", "single-task", "exists already"),
        ("method", "frozen", "exists already"),
        ("dataset", "sim-news", "exists already"),
        ("dataset", "sim_news", "exists already"),
        ("dataset", "1st", "use lower-case letters"),
    ],
)
def test_bad_and_taken_names_are_refused(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str, message: str
) -> None:
    monkeypatch.setitem(TARGETS, kind, tmp_path / "own")
    assert message in refused("new", kind, name)
    assert not (tmp_path / "own").exists()


def test_a_file_is_never_written_over(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.py"
    path.write_text("mine")
    for kind in TARGETS:
        monkeypatch.setitem(TARGETS, kind, tmp_path)
        assert "exists already" in refused("new", kind, "mine")
    assert path.read_text() == "mine"
    assert "exists already" in refused("new", "method", "mine", "--to", tmp_path)
    assert "cannot write" in refused("new", "method", "mine", "--to", path / "below")


# Data


def test_data_is_prepared_once(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    folder = Path(bench("data", "prepare", "sim-shop", *SMALL).stdout.strip())
    assert folder.is_relative_to(tmp_path / "cache") and (folder / "meta.json").is_file()
    made = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert Path(bench("data", "prepare", "sim-shop", *SMALL).stdout.strip()) == folder
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == made
    assert Path(bench("data", "prepare", "sim-shop", *SMALL, "--data", "seed=1").stdout.strip()) != folder
    assert len(list(folder.parent.iterdir())) == 2  # no temporary folder stays


def test_data_info(bench: Bench) -> None:
    shown = bench("data", "info", "sim-news", *SMALL).stdout
    found = json.loads(bench("data", "info", "sim-news", *SMALL, "--json").stdout)
    assert (found["name"], found["knobs"]["users"], found["rows"]) == ("sim-news", 60, 2000)
    assert {name: part["rows"] for name, part in found["parts"].items()} == {"train": 1600, "valid": 200, "test": 200}
    click_rate = found["parts"]["train"]["labels"]["click"]
    assert click_rate["defined"] == 1600 and 0 < click_rate["mean"] < 1
    for words in (
        f"{found['rows']:,}",
        found["licence"],
        found["sha256"],
        found["folder"],
        f"mean {click_rate['mean']:.4f}",
    ):
        assert words in shown


def test_tampered_data_are_found_out(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    checks = json.loads(bench("data", "verify", "sim-video", *SMALL, "--json").stdout)
    assert len(checks) >= 7 and all(c["ok"] and not c["problem"] for c in checks)
    shown = bench("data", "verify", "sim-video", *SMALL).stdout.splitlines()
    assert shown == [f"    ok  {c['check']}" for c in checks]
    assert len(bench("check", "sim-video").stdout.splitlines()) == len(checks)  # the full size; the same checks

    path = (
        Path(bench("data", "prepare", "sim-video", *SMALL).stdout.strip()) / "arrays" / "train" / "label" / "like.npy"
    )
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + b"\0\0\0\x41")  # the last label becomes 8
    found = json.loads(bench("data", "verify", "sim-video", *SMALL, "--json", code=1).stdout)
    assert [c["check"] for c in found if not c["ok"]] == ["stored arrays have the recorded hash"]
    assert (
        "FAILED  stored arrays have the recorded hash: " in bench("data", "verify", "sim-video", *SMALL, code=1).stdout
    )
    path.write_bytes(whole)
    bench("data", "verify", "sim-video", *SMALL)


# Leaderboard and stale records


def test_the_leaderboard_is_printed_written_and_checked(
    bench: Bench, refused: Callable[..., str], ran: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    shutil.copytree(ran, results)
    page = results / "LEADERBOARD.md"
    assert "is not what the records give" in refused("board", "--check", "--results", results)
    assert not page.exists()

    shown = bench("board", "--results", results).stdout
    made = json.loads(bench("board", "--json", "--results", results).stdout)
    (table,) = made["tables"]
    assert {row["label"] for row in table["rows"]} == {"oracle", "chance", "single_task", "shared_bottom", "popularity"}
    for row in table["rows"]:
        assert row["label"] in shown and row["label"] in page.read_text()
    assert {
        key for row in table["rows"] if row["kind"] in ("competitor", "reference") for key in row["keys"].values()
    } == {p.stem for p in results.glob("runs/*/*/*.json")}
    bench("board", "--check", "--results", results)

    page.write_text(page.read_text().replace("single_task", "my_method", 1))
    assert f"run `bench board --results {results}`" in refused("board", "--check", "--results", results)
    assert "my_method" in page.read_text()  # a check writes nothing
    bench("board", "--results", results)
    bench("board", "--check", "--results", results)
    page.write_bytes(b"\xff\xfe")
    refused("board", "--check", "--results", results)


def test_run_prints_what_it_ran(bench: Bench, ran: Path) -> None:
    words = ("-m", "popularity", "--seeds", 2, "--results", ran)
    records = json.loads(bench("run", *QUICK, *words, "--json").stdout)
    assert [(r["spec"]["method"], r["spec"]["seed"]) for r in records] == [("popularity", 0), ("popularity", 1)]
    shown = bench("run", *QUICK, *words).stdout
    assert "popularity" in shown and "shared_bottom" not in shown


def test_a_suite_can_be_cut_short(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite gives methods, seeds, budget and settings; options override."""
    (tmp_path / "mini.yaml").write_text(
        "about: small\nmethods: [popularity, shared_bottom]\nseeds: 2\n"
        "datasets: { sim-news: { budget: { epochs: 3, patience: 1 }, settings: { batch_size: 512 } } }\n"
    )
    monkeypatch.setattr("bench.suites.sweep.FOLDER", tmp_path)
    words = ("run", "--suite", "mini", *SMALL, "--workers", 1, "--results", tmp_path / "results", "--json")
    records = json.loads(bench(*words, "--epochs", 1).stdout)
    assert [(r["spec"]["method"], r["spec"]["seed"]) for r in records] == [
        ("popularity", 0), ("popularity", 1), ("shared_bottom", 0), ("shared_bottom", 1)
    ]  # fmt: skip
    assert {(r["spec"]["config"]["batch_size"], *r["spec"]["budget"].values()) for r in records} == {(512, 1, 1)}
    (record,) = json.loads(bench(*words, "--seeds", 1, "--patience", 2, "-s", "batch_size=256").stdout)[1:]
    assert (record["spec"]["config"]["batch_size"], record["spec"]["budget"]) == (256, {"epochs": 3, "patience": 2})


def test_a_data_set_of_a_suite_has_methods_of_its_own(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.suites.sweep import Entry, load

    text = "about: small\nmethods: [popularity]\nseeds: 2\ndatasets:\n  sim-shop:\n  sim-news:\n    methods: "
    monkeypatch.setattr("bench.suites.sweep.FOLDER", tmp_path)
    (tmp_path / "mini.yaml").write_text(text + "[mmoe, { method: ple, settings: { lr: 1 } }]\n")
    shop, news = load("mini").datasets.values()
    assert shop.entries == [Entry("popularity")]
    assert news.entries == [Entry("popularity"), Entry("mmoe"), Entry("ple", {"lr": 1})]
    assert load("mini").methods == ["popularity", "mmoe", "ple"]
    assert refused("run", "--suite", "mini", "-s", "lr=1", "--results", tmp_path / "r").startswith("-s lr: the entries")
    (tmp_path / "mini.yaml").write_text(text + "[3]\n")
    assert "settings, got 3" in refused("run", "--suite", "mini", "--results", tmp_path / "r")


def test_entries_of_a_suite_have_settings_of_their_own(
    bench: Bench, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mini.yaml").write_text(
        "about: small\nseeds: 1\nmethods: [single_task, { method: shared_bottom },\n"
        "  { method: shared_bottom, settings: { balancer: static, balancer.weights: { click: 2 } } },\n"
        "  { method: shared_bottom, settings: { batch_size: 64 } }]\n"
        "datasets: { sim-news: { budget: { epochs: 1, patience: 1 }, settings: { batch_size: 512 } } }\n"
    )
    monkeypatch.setattr("bench.suites.sweep.FOLDER", tmp_path)
    words = ("run", "--suite", "mini", *SMALL, "--workers", 1, "--results", tmp_path / "results")
    done = bench(*words, "--json")
    records = json.loads(done.stdout)
    chosen = ("batch_size", "balancer", "balancer.weights")
    assert [[r["spec"]["config"].get(k) for k in chosen] for r in records] == [
        [512, "uniform", None], [512, "uniform", None], [512, "static", {"click": 2}], [64, "uniform", None]
    ]  # fmt: skip
    table = json.loads(bench("board", "--results", tmp_path / "results", "--json").stdout)["tables"][0]
    labels = {row["label"] for row in table["rows"]} - {"oracle", "chance"}
    same = "shared_bottom (balancer=uniform, batch_size="
    assert labels == {"single_task", "shared_bottom (balancer=static, batch_size=512)", f"{same}512)", f"{same}64)"}
    assert all(f"sim-news {label} seed 0" in done.stderr for label in labels)  # nothing passes without a line
    assert refused(*words, "-s", "balancer=uniform").startswith("-s balancer: the entries of this suite differ in")
    bench(*words, "-s", "lr=0.01")


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("[3]", "methods: expected a name, or a method with settings, got 3"),
        ("[{ method: mmoe, setting: {} }]", "unknown key 'setting'; did you mean 'settings'?"),
        ("[{ settings: { lr: 1 } }]", "give a name"),
        ("[{ method: mmoe, settings: 3 }]", "settings: expected a mapping such as KEY: VALUE, got 3"),
        ("[{ method: mmeo }]", "unknown method 'mmeo'; did you mean 'mmoe'?"),
        ("[{ method: mmoe, settings: { exprts: 3 } }]", "unknown setting 'exprts'; did you mean 'experts'?"),
        ("[{ method: mmoe, settings: { balancer: unifrm } }]", "unknown balancer 'unifrm'"),
    ],
)
def test_a_wrong_entry_of_a_suite_is_named(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, methods: str, message: str
) -> None:
    (tmp_path / "mini.yaml").write_text(f"methods: {methods}\ndatasets: {{ sim-news: }}\n")
    monkeypatch.setattr("bench.suites.sweep.FOLDER", tmp_path)
    said = refused("run", "--suite", "mini", "--results", tmp_path / "results")
    assert message in said and said.startswith(f"{tmp_path / 'mini.yaml'} line 1")
    assert not (tmp_path / "results").exists()


def test_stale_records_are_listed(bench: Bench, plugin: Plugin, tmp_path: Path) -> None:
    results = tmp_path / "results"
    idea = plugin("idea", "version = 1")
    bench("run", *QUICK, "-m", "idea", "-m", "popularity", "--plugin", idea, "--results", results)

    def said(changed: int, unaudited: int = 0) -> str:
        return f"{changed} changed, {unaudited} not audited: their digest is of another scheme\n"

    words = ("check", "--plugin", idea, "--results", results)
    assert bench(*words).stdout == said(0)
    plugin("idea", "version = 1  # only a comment has changed")
    assert bench(*words).stdout == said(0)

    plugin("idea", "version = 1\nother = 'code'")
    stale, count = bench(*words, code=1).stdout.splitlines(keepends=True)
    assert re.fullmatch(r"\S+/runs/sim-news/idea/[0-9a-f]{16}\.json: idea version 1 had other code\n", stale)
    assert count == said(1)
    again = bench("run", *QUICK, "-m", "idea", "--plugin", idea, "--results", results).stderr
    assert "the code of idea has changed since: bump its version" in again
    assert bench("check", "--results", results).stdout == said(0)  # without the plugin nothing can be compared
    plugin("idea", "version = 2")
    assert bench(*words).stdout == said(0)

    (path,) = results.glob("runs/sim-news/popularity/*.json")
    record = json.loads(path.read_text())
    record["code"]["method_digest"] = "0" * 16
    path.write_text(json.dumps(record))
    assert bench(*words, code=1).stdout == f"{path}: popularity version 1 had other code\n{said(1)}"
    del record["code"]["digest_scheme"]  # as in records from before there were schemes
    path.write_text(json.dumps(record))
    assert bench(*words).stdout == said(0, 1)


# Progress


def test_without_a_terminal_progress_is_plain_lines(bench: Bench, tmp_path: Path) -> None:
    words = ("run", *QUICK, "-m", "popularity", "--seeds", 10, "--results", tmp_path)
    lines = bench(*words).stderr.splitlines()
    assert lines[0] == "preparing sim-news" and lines[-1] == "10 ok"
    assert lines[1:-1] == [f"[{n + 1:>2}/10] sim-news popularity seed {n}: ok, 0.0 s" for n in range(10)]
    lines = bench(*words).stderr.splitlines()
    assert lines[0] == "[ 1/10] sim-news popularity seed 0: already stored (ok)" and lines[-1] == "10 stored"


def test_on_a_terminal_there_is_a_bar(
    bench: Bench, plugin: Plugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real pseudo-terminal; the bar goes to standard error and leaves only the ended jobs behind."""
    bad = plugin("bad", "def forward(self, batch):\n    raise RuntimeError('[red]no markup[/]')")
    master, slave = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    chunks: list[bytes] = []

    def drain() -> None:
        try:
            while chunk := os.read(master, 65536):
                chunks.append(chunk)
        except OSError:  # Linux says so when the other end is closed
            pass

    reader = threading.Thread(target=drain)
    reader.start()
    words = [
        "run",
        *QUICK,
        "-m",
        "shared_bottom",
        "-m",
        "bad",
        "--epochs",
        20,
        "--plugin",
        bad,
        "--results",
        tmp_path / "r",
    ]
    with os.fdopen(slave, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        with pytest.raises(SystemExit) as end:
            cli.main([str(w) for w in words], standalone_mode=False)
    reader.join()
    os.close(master)
    shown = b"".join(chunks).decode()
    assert end.value.code == 1
    assert "\x1b[" in shown and "━" in shown and "0/2" in shown  # a bar that redraws itself
    assert "epoch " in shown and "skill" in shown
    assert "sim-news shared_bottom seed 0: ok," in shown
    assert "sim-news bad seed 0: failed: RuntimeError: [red]no markup[/]" in shown
    assert "1 ok, 1 failed" in shown or "1 failed, 1 ok" in shown
