"""Many machines: shards of one plan, and the union of the folders that they leave."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.storage.merge import COMPARED, difference
from tests.support.command import SMALL, Bench, Plugin

QUICK = ("run", "-d", "sim-news", *SMALL, "--epochs", 1, "--workers", 1)
POPULARITY = (*QUICK, "-m", "popularity")
SEEDS = 5

Records = Callable[[Path], dict[str, Any]]


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def of_seed(results: Path, seed: int) -> Path:
    (path,) = (p for p in results.glob("runs/*/*/*.json") if json.loads(p.read_text())["spec"]["seed"] == seed)
    return path


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture(scope="module")
def whole(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five runs of one method; not to be changed."""
    results = tmp_path_factory.mktemp("whole") / "results"
    bench(*POPULARITY, "--seeds", SEEDS, "--results", results)
    return results


@pytest.fixture
def one(whole: Path, tmp_path: Path) -> Path:
    """A folder with the run of seed 0 alone, and its predictions."""
    path = of_seed(whole, 0).relative_to(whole)
    for file in (path, Path("predictions", f"{path.stem}.npz")):
        (tmp_path / "one" / file).parent.mkdir(parents=True)
        shutil.copy(whole / file, tmp_path / "one" / file)
    return tmp_path / "one"


@pytest.fixture
def both(one: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two folders that have the same run."""
    return one, Path(shutil.copytree(one, tmp_path / "target"))


# Shards


def test_shards_cover_all_runs_and_none_twice(bench: Bench, whole: Path, records: Records, tmp_path: Path) -> None:
    seeds, folders = [], [tmp_path / str(i) for i in (1, 2, 3)]
    for i, folder in enumerate(folders, 1):
        words = (*POPULARITY, "--seeds", SEEDS, "--shard", f"{i}/3", "--results", folder)
        seeds.append([r["spec"]["seed"] for r in json.loads(bench(*words, "--json").stdout)])
    assert seeds == [[0, 3], [1, 4], [2]]
    assert bench("merge", *folders, "--results", tmp_path / "all").stdout == "5 new\n"
    assert records(tmp_path / "all") == records(whole)
    arrays = [{k: v for k, v in tree(results).items() if k.endswith(".npz")} for results in (tmp_path / "all", whole)]
    assert arrays[0] == arrays[1] and len(arrays[0]) == SEEDS
    assert bench(*POPULARITY, "--seeds", SEEDS, "--results", tmp_path / "all").stderr.splitlines()[-1] == "5 stored"


def test_a_run_named_twice_is_in_one_shard(bench: Bench, tmp_path: Path) -> None:
    words = (*POPULARITY, "-m", "popularity", "--seeds", 3, "--results", tmp_path, "--json", "--shard")
    parts = [[r["spec"]["seed"] for r in json.loads(bench(*words, f"{i}/2").stdout)] for i in (1, 2)]
    assert parts == [[0, 2], [1]]


def test_a_shard_of_a_suite(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mini.yaml").write_text(
        "methods: [popularity, { method: popularity, settings: { shrinkage: 1.0 } }]\ndatasets: { sim-news: }\n"
    )
    monkeypatch.setattr("bench.suites.sweep.FOLDER", tmp_path)
    words = ("run", "--suite", "mini", *SMALL, "--workers", 1, "--results", tmp_path / "r", "--json", "--shard")
    parts = [json.loads(bench(*words, f"{i}/3").stdout) for i in (1, 2, 3)]
    assert [[r["spec"]["config"]["shrinkage"] for r in part] for part in parts] == [[10.0], [1.0], []]
    assert bench(*words, "3/3").stderr == "no run in this shard\n"


def test_a_shard_answers_for_its_own_runs(bench: Bench, plugin: Plugin, tmp_path: Path) -> None:
    bad = plugin("bad", "def forward(self, batch):\n    raise RuntimeError('no')")
    words = (*POPULARITY, "-m", "bad", "--plugin", bad, "--results", tmp_path / "results", "--shard")
    assert "bad" in bench(*words, "2/2", code=1).stderr
    done = bench(*words, "1/2")
    assert "popularity" in done.stdout and "bad" not in done.stdout + done.stderr


@pytest.mark.parametrize("shard", ["0/3", "4/3", "0/0", "3", "a/b", "-1/2", "1/2/3", "1.0/2", " 1/2", "", "1/"])
def test_what_is_no_shard_is_refused(refused: Callable[..., str], tmp_path: Path, shard: str) -> None:
    message = refused(*POPULARITY, "--shard", shard, "--results", tmp_path / "results")
    assert message.startswith(f"--shard {shard}: give I/N with 1 <= I <= N")
    assert not (tmp_path / "results").exists()


# Merging


def test_what_is_compared_is_what_must_not_depend_on_the_machine(whole: Path, records: Records) -> None:
    """The same entries as the tests of reproducibility compare; key and spec are equal by the file's name."""
    assert {*COMPARED, "key", "spec"} == {*next(iter(records(whole).values()))}


def test_merging_again_changes_nothing(bench: Bench, whole: Path, one: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    assert bench("merge", one, whole, "--results", target).stdout == "5 new, 1 same\n"
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in target.rglob("*") if p.is_file()}
    assert tree(target) == tree(whole)
    assert bench("merge", whole, one, "--results", target).stdout == "6 same\n"
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in target.rglob("*") if p.is_file()} == before


def test_other_costs_and_machines_are_no_conflict(bench: Bench, both: tuple[Path, Path]) -> None:
    one, target = both
    change(of_seed(one, 0), time={}, env={"device": "abacus"}, cost={"fit_s": 1e9}, code={})
    before = tree(target)
    assert bench("merge", one, "--results", target).stdout == "1 same\n"
    assert tree(target) == before


def test_a_conflict_is_shown_and_the_rest_merged(
    bench: Bench, whole: Path, both: tuple[Path, Path], tmp_path: Path
) -> None:
    _, target = both
    place = of_seed(target, 0)
    metrics = json.loads(place.read_text())["metrics"]
    value = metrics["test"]["click"]["auc"]
    metrics["test"]["click"]["auc"] = 0.25
    metrics["test"]["interest"]["top1"] = 0.25  # a later difference
    change(place, metrics=metrics)
    kept = place.read_bytes()

    *lines, last = bench("merge", whole, "--results", target, code=1).stdout.splitlines()
    assert lines == [
        f"conflict: {of_seed(whole, 0)}: metrics.test.click.auc is {value}, but 0.25 in {place}, which stays"
    ]
    assert last == "1 conflict, 4 new"
    assert place.read_bytes() == kept and len(tree(target)) == len(tree(whole))
    found = json.loads(bench("merge", whole, "--results", target, "--json", code=1).stdout)
    assert Counter(f["what"] for f in found) == {"same": 4, "conflict": 1}


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"status": "diverged"}, ("status", '"ok"', '"diverged"')),
        ({"data": {"sha256": "0"}}, ("data.sha256", None, '"0"')),
        ({"curve": [1, 2]}, ("curve", None, "[1,2]")),
        ({"best_epoch": {"click": 3}}, ("best_epoch.click", "missing", "3")),
        ({"tasks": []}, ("tasks", None, "[]")),
        ({"time": None, "gates": None}, None),
    ],
)
def test_the_first_difference_is_named(whole: Path, changes: dict[str, Any], shown: tuple[str, ...] | None) -> None:
    record = json.loads(of_seed(whole, 0).read_text())
    found = difference(record, {**record, **changes})
    if shown is None:
        assert found is None
        return
    assert found is not None and found[0] == shown[0] and found[2] == shown[2] and shown[1] in (None, found[1])


@pytest.mark.parametrize("status", ["failed", "oom"])
def test_a_failure_gives_way_to_a_result(bench: Bench, both: tuple[Path, Path], status: str) -> None:
    one, target = both
    good = tree(one)
    place = of_seed(target, 0)
    change(place, status=status, error="no room", metrics=None)
    shutil.rmtree(target / "predictions")
    failure = tree(target)

    *lines, last = bench("merge", target, "--results", one).stdout.splitlines()  # a failure takes no result's place
    assert lines == [f"left: {place}: {status}: no room; {of_seed(one, 0)} stays"] and last == "1 left"
    assert tree(one) == good and tree(target) == failure

    copy = shutil.copytree(target, target.with_name("copy"))
    assert bench("merge", copy, "--results", target).stdout == "1 same\n"
    change(of_seed(copy, 0), error="no room either")
    assert bench("merge", copy, "--results", target).stdout.endswith("\n1 left\n") and tree(target) == failure

    *lines, last = bench("merge", one, "--results", target).stdout.splitlines()
    assert lines == [f"replaced: {of_seed(one, 0)}: {place} was {status}: no room"] and last == "1 replaced"
    assert tree(target) == good


def test_divergence_is_a_result(bench: Bench, both: tuple[Path, Path]) -> None:
    one, target = both
    change(of_seed(target, 0), status="diverged", error="loss is nan", metrics=None)
    kept = tree(target)
    assert 'status is "ok", but "diverged" in' in bench("merge", one, "--results", target, code=1).stdout
    assert tree(target) == kept


def broken(path: Path, how: str) -> Path:
    """Damages a results folder around one record; returns the file that must be named."""
    results, text = path.parents[3], path.read_text()
    if how == "cut":
        path.write_text(text[:100])
    elif how == "no text":
        path.write_bytes(b"\xff\xfe")
    elif how == "of another spec":
        path.write_text(text.replace('"seed": 0', '"seed": 7'))
    elif how == "of another name":
        path = path.rename(path.with_name("0123456789abcdef.json"))
    elif how == "in another folder":
        elsewhere = path.parents[1] / "mmoe" / path.name
        elsewhere.parent.mkdir()
        path = path.rename(elsewhere)
    elif how == "too high":
        path = path.rename(path.parents[1] / path.name)
    elif how == "no record":
        path = path.rename(path.with_suffix(".txt"))
    elif how == "not finite":
        change(path, metrics={"test": {"click": {"auc": float("nan")}}})
    elif how == "not whole":
        path.write_text(json.dumps({k: v for k, v in json.loads(text).items() if k != "metrics"}))
    else:
        (arrays,) = results.glob("predictions/*.npz")
        content = bytearray(arrays.read_bytes())
        if how == "predictions cut":
            content = content[:-100]
        else:
            content[len(content) // 2] ^= 255
        arrays.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "how",
    ["cut", "no text", "of another spec", "of another name", "in another folder", "too high", "no record",
     "not finite", "not whole", "predictions cut", "predictions damaged"],
)  # fmt: skip
def test_a_broken_file_is_named_and_the_rest_merged(
    bench: Bench, whole: Path, one: Path, tmp_path: Path, how: str
) -> None:
    path = broken(of_seed(one, 0), how)
    (one / "runs" / ".probe").touch()  # of a run at work: nothing to speak of
    (path.parent / ".tmp-1").touch()
    *lines, last = bench("merge", one, whole, "--results", tmp_path / "target", code=1).stdout.splitlines()
    (line,) = lines
    assert line.startswith(f"unreadable: {path}: ") and last == "5 new, 1 unreadable"
    assert tree(tmp_path / "target") == tree(whole)


def test_a_broken_record_of_the_target_stays(bench: Bench, both: tuple[Path, Path]) -> None:
    one, target = both
    place = of_seed(target, 0)
    place.write_text("{")
    kept = tree(target)
    assert f"{place} cannot be read as a record" in bench("merge", one, "--results", target, code=1).stdout
    assert tree(target) == kept


def test_a_record_leads_out_of_no_folder(bench: Bench, one: Path, tmp_path: Path) -> None:
    """Not even one with a valid key of its own."""
    from bench.spec import digest

    path = of_seed(one, 0)
    spec = {**json.loads(path.read_text())["spec"], "method": "../../../../escaped"}
    change(path, spec=spec, key=digest(spec))
    path.rename(path.with_name(f"{digest(spec)}.json"))
    bench("merge", one, "--results", tmp_path / "deep" / "target", code=1)
    assert not list(tmp_path.rglob("escaped*")) and not list((tmp_path / "deep").rglob("*.json"))


def test_wrong_folders_are_refused_before_anything_is_merged(
    refused: Callable[..., str], bench: Bench, whole: Path, tmp_path: Path
) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    assert "no such folder" in refused("merge", whole, tmp_path / "none", "--results", target)
    assert "no such folder" in refused("merge", whole, of_seed(whole, 0), "--results", target)
    assert "has no folder 'runs' or 'studies'" in refused("merge", whole, whole / "runs", "--results", target)
    assert not target.exists()
    link.symlink_to(whole)
    before = tree(whole)
    for same in (whole, whole / "runs" / "..", link):
        assert "is the results folder itself" in refused("merge", same, "--results", whole)
    assert tree(whole) == before
    (tmp_path / "file").touch()
    refused("merge", whole, "--results", tmp_path / "file" / "below")
    assert "Missing argument" in bench("merge", code=2).stderr


def test_studies_are_merged_too(bench: Bench, tmp_path: Path) -> None:
    words = ("tune", "-d", "sim-news", *SMALL, "-m", "popularity", "--epochs", 1, "--results")
    short, long, target = tmp_path / "short", tmp_path / "long", tmp_path / "target"
    bench(*words, short, "--trials", 2)
    bench(*words, long, "--trials", 4)
    for source, said in ((short, "1 new"), (short, "1 same"), (long, "1 replaced"), (short, "1 same")):
        assert said in bench("merge", source, "--results", target).stdout
    assert tree(target) == tree(long)
    bench(*words, target, "--trials", 5)  # the log came with it
    (path,) = short.glob("studies/*/*/*.json")
    outcome = json.loads(path.read_text())
    outcome["trials"][1]["value"] = 0.5
    path.write_text(json.dumps(outcome))
    before = tree(target)
    assert "trials[1].value is 0.5, but " in bench("merge", short, "--results", target, code=1).stdout
    for text in ("{", "[]", json.dumps({**outcome, "study": {}})):
        path.write_text(text)
        assert "1 unreadable" in bench("merge", short, "--results", target, code=1).stdout
    assert tree(target) == before
