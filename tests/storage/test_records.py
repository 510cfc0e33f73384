"""Records in files of their own and in lines of files of many: both read the same."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import registry
from bench.errors import BenchError
from bench.spec import digest
from bench.storage.atomic import sha256_of, write_atomically
from bench.storage.merge import merge
from bench.storage.reading import packed
from bench.storage.records import Store
from tests.support.command import SMALL, Bench
from tests.support.synthetic import made

REFERENCE = registry.ROOT / "results" / "reference"
FIXTURE = registry.ROOT / "tests" / "support" / "fixtures" / "record-schema-1.json"
METHODS, SEEDS = ("mmoe", "ple"), 3
CLEAN, CHANGED, UNKNOWN = ({"code": {"commit": "1", "dirty": dirty}} for dirty in (False, True, None))


def record(seed: int, method: str = "mmoe", dataset: str = "toy", **values: Any) -> dict[str, Any]:
    return made(method, seed, dataset=dataset) | CLEAN | values


@pytest.fixture
def loose(tmp_path: Path) -> Path:
    """Twelve records of two data sets, in files of their own."""
    for dataset in ("toy", "sim"):
        for method in METHODS:
            for seed in range(SEEDS):
                Store(tmp_path / "loose").put(record(seed, method, dataset))
    return tmp_path / "loose"


@pytest.fixture
def published(loose: Path, tmp_path: Path) -> Path:
    """The same records in a file of many a data set."""
    folder = Path(shutil.copytree(loose, tmp_path / "published"))
    assert {done.what for done in merge([], folder, pack=True)} == {"packed"}
    return folder


def lines_of(folder: Path, dataset: str = "toy") -> list[str]:
    return (folder / "runs" / f"{dataset}.jsonl").read_text("utf-8").splitlines(keepends=True)


def write_lines(folder: Path, lines: list[str], dataset: str = "toy") -> None:
    (folder / "runs" / f"{dataset}.jsonl").write_text("".join(lines), "utf-8")


# Both forms


def test_a_file_of_many_reads_like_files_of_one_each(loose: Path, published: Path) -> None:
    one, many = Store(loose), Store(published)
    assert not one.published and many.published and not list(published.glob("runs/*/*/*"))
    assert list(map(json.dumps, many.records())) == list(map(json.dumps, one.records()))  # the order of entries, too
    assert list(many.results()) == list(one.results()) and list(many.results(["sim"])) == list(one.results(["sim"]))
    assert many.sizes() == one.sizes() == {"sim": 6, "toy": 6}
    for found in one.records():
        assert many.get(found["spec"], found["key"]) == many.find(found["key"][:12]) == found
    assert many.get(found["spec"], "0" * 16) is None
    assert [(p.dataset, p.method, p.key) for p in many.places()] == [(p.dataset, p.method, p.key) for p in one.places()]


def test_lines_are_sorted_by_key_and_only_new_ones_change_the_file(published: Path, tmp_path: Path) -> None:
    before = lines_of(published)
    assert [json.loads(line)["key"] for line in before] == sorted(json.loads(line)["key"] for line in before)
    Store(tmp_path / "more").put(record(7))
    assert [done.what for done in merge([tmp_path / "more"], published)] == ["new", "packed"]
    after = lines_of(published)
    assert len(after) == 7 and set(before) < set(after) and after == sorted(after, key=lambda n: json.loads(n)["key"])
    assert [done.what for done in merge([tmp_path / "more"], published)] == ["same"] and lines_of(published) == after


def test_a_new_run_lies_beside_a_file_of_many(loose: Path, published: Path) -> None:
    store, new = Store(published), record(8, "aitm")
    path = store.put(new)
    assert path.exists() and store.get(new["spec"], new["key"]) == new
    assert next(r["key"] for r in store.results(["toy"])) == new["key"] and store.sizes()["toy"] == 7


def test_the_same_run_in_both_forms_counts_once_and_two_that_differ_are_named(loose: Path, published: Path) -> None:
    store, twin = Store(published), record(0)
    path = store.put(twin | {"time": {"start": "later"}})
    assert list(store.records()) == list(Store(loose).records())
    store.put(twin | {"best_epoch": {"click": 99}})
    for read in (
        lambda: list(store.records()),
        lambda: list(store.results()),
        lambda: store.get(twin["spec"], path.stem),
    ):
        with pytest.raises(BenchError, match=rf"{path.name}: best_epoch.click is 99, but .* in .*toy.jsonl line \d"):
            read()
    with pytest.raises(BenchError, match="move one of the two away"):
        merge([loose], published)


def test_one_key_is_read_without_the_others(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, wanted = Store(published), record(1)
    assert store.get(wanted["spec"], wanted["key"]) == wanted
    path, (place,) = published / "runs" / "toy.jsonl", [p for p in store.places(["toy"]) if p.key == wanted["key"]]
    index, state = packed(path), path.stat()
    content = bytearray(path.read_bytes())
    content[: place.start] = b"x" * place.start  # all others could be anything, as long as the file looks the same
    content[place.start + place.size :] = b"x" * (len(content) - place.start - place.size)
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert packed(path) is index and store.get(wanted["spec"], wanted["key"]) == wanted
    os.utime(path, ns=(0, 0))
    with pytest.raises(BenchError, match="line 1 cannot be read"):
        store.get(wanted["spec"], wanted["key"])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda line: line[:200] + "\n", "cannot be read as a record"),
        (lambda line: "<<<<<<< HEAD\n", "cannot be read as a record"),
        (lambda line: "\n", "cannot be read as a record"),
        (lambda line: line.replace('"dataset":"toy"', '"dataset":"sim"'), "is of another data set"),
        (lambda line: line.replace('"seed":', '"seed":1'), "is no record of schema 1 under its own key"),
        (lambda line: line.replace('"schema":1', '"schema":9'), "is no record of schema 1 under its own key"),
        (lambda line: line + line, "has the key of an earlier line"),
    ],
)  # fmt: skip
def test_a_damaged_line_is_named(published: Path, damage: Callable[[str], str], said: str) -> None:
    lines = lines_of(published)
    write_lines(published, [*lines[:2], damage(lines[2]), *lines[3:]])
    line = 4 if "earlier" in said else 3
    for read in (Store(published).records, Store(published).results):
        with pytest.raises(
            BenchError, match=rf"toy\.jsonl line {line} .*{said}.*; restore the file, or delete the line"
        ):
            list(read())
    assert len(list(Store(published).results(["sim"]))) == 6


# Publishing


@pytest.mark.parametrize("values", [CHANGED, UNKNOWN, CLEAN | {"status": "oom", "error": "no room"}])
def test_only_results_of_committed_code_are_published(published: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    before, new = lines_of(published), record(9, **values)
    Store(tmp_path / "more").put(new)
    Store(tmp_path / "more").put(record(10))
    found = {done.what: done.why for done in merge([tmp_path / "more"], published)}
    assert set(found) == {"refused", "new", "packed"} and found["refused"].startswith(f"{new['key']} ")
    assert "run it again" in found["refused"] or "commit it and run again" in found["refused"]
    assert len(lines_of(published)) == len(before) + 1 and Store(published).get(new["spec"], new["key"]) is None
    path = Store(published).put(new)  # made there
    assert [done.what for done in merge([], published, pack=True)] == ["refused"] and path.exists()


def test_published_records_go_back_to_files_of_their_own(loose: Path, published: Path, tmp_path: Path) -> None:
    assert {done.what for done in merge([published], tmp_path / "back")} == {"new"}
    assert list(Store(tmp_path / "back").records()) == list(Store(loose).records())
    assert [p.name for p in sorted(tmp_path.glob("back/runs/*"))] == ["sim", "toy"]
    assert {done.what for done in merge([published, loose], tmp_path / "back")} == {"same"}
    write_lines(published, ["{\n"])
    (found,) = [done for done in merge([published], tmp_path / "back") if done.what != "same"]
    assert found.what == "unreadable" and "toy.jsonl line 1 cannot be read" in found.why
    with pytest.raises(BenchError, match=r"toy\.jsonl line 1 "):
        merge([loose], published)


def test_packing_goes_on_after_an_interruption(loose: Path, published: Path) -> None:
    """Killed between writing the lines and removing the files: both are there."""
    shutil.copytree(loose, published, dirs_exist_ok=True)
    before = lines_of(published)
    assert merge([], published, pack=True) == [] and lines_of(published) == before
    assert not list(published.glob("runs/*/*/*"))


def test_commands_publish_and_count_what_was_made_by_changed_code(
    bench: Bench, refused: Callable[..., str], loose: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    assert bench("merge", loose, "--pack", "--results", target).stdout.splitlines()[-1] == "12 new, 12 packed"
    assert "differs" not in bench("status", "--results", target).stdout
    write_lines(target, [line.replace('"dirty":false', '"dirty":true') for line in lines_of(target)])
    last = bench("status", "--results", target).stdout.splitlines()[-1]
    assert last == "6 of 12 were made by code that differs from its commit"
    Store(loose).put(record(9) | CHANGED)
    assert "refused: " in bench("merge", loose, "--results", target, code=1).stdout


@pytest.mark.parametrize("dirty", [True, None])
def test_a_changed_tree_is_refused_before_the_first_run(
    refused: Callable[..., str], published: Path, monkeypatch: pytest.MonkeyPatch, dirty: bool | None
) -> None:
    monkeypatch.setattr("bench.execution.record.code_version", lambda folder: {"commit": None, "dirty": dirty})
    words = ("-d", "sim-news", *SMALL, "-m", "popularity", "--epochs", 1, "--results", published)
    for command in (("run", *words, "--workers", 1), ("tune", *words, "--trials", 2)):
        message = refused(*command)
        assert f"{published} is published" in message and "commit the changes" in message
    assert Store(published).sizes() == {"sim": 6, "toy": 6}


def test_a_clean_tree_may_run_into_a_published_folder(
    bench: Bench, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.execution.record.code_version", lambda folder: {"commit": "1", "dirty": False})
    words = ("run", "-d", "sim-news", *SMALL, "-m", "popularity", "--epochs", 1, "--results", published, "--workers", 1)
    bench(*words)
    assert {done.what for done in merge([], published, pack=True)} == {"packed"} and len(
        lines_of(published, "sim-news")
    ) == 1
    monkeypatch.setattr("bench.execution.record.code_version", lambda folder: {"commit": "1", "dirty": True})
    assert bench(*words).stderr.splitlines()[-1] == "1 stored"  # nothing is to be run


def test_the_published_records_are_in_files_of_many_and_the_readme_tells_how_many_are_marked() -> None:
    for folder in (REFERENCE, REFERENCE / "reproduced"):
        assert not list(folder.glob("runs/*/*/*.json")) and Store(folder).published
    codes = [found["code"] for found in Store(REFERENCE).records()]
    changed = sum(code["dirty"] is not False for code in codes)
    readme = (registry.ROOT / "results" / "README.md").read_text("utf-8")
    assert f"{changed} of the {len(codes)} published records" in " ".join(readme.split())


# One record


def test_store_keeps_records(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.check_writable()
    records = [record(seed) for seed in range(SEEDS)]
    for found in records:
        assert store.put(found).parent == tmp_path / "runs" / "toy" / "mmoe"
    other = record(SEEDS)
    assert store.get(other["spec"], other["key"]) is None
    assert sorted(r["key"] for r in store.records()) == sorted(r["key"] for r in records)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1, "key": "other"}', '{"schema": 99}'])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    path = Store(tmp_path).put(record(0))
    path.write_text(text)
    with pytest.raises(BenchError, match=path.name):
        list(Store(tmp_path).records())


@pytest.mark.parametrize("path", [FIXTURE], ids=["schema 1"])
def test_a_record_of_every_schema_stays_readable(tmp_path: Path, path: Path) -> None:
    """One frozen record of every schema ever released, in a file of its own and in a line of one of many."""
    frozen = json.loads(path.read_text("utf-8"))
    store = Store(tmp_path)
    store.put(frozen)
    for _ in range(2):
        assert digest(frozen["spec"]) == frozen["key"] and list(store.records()) == [frozen]
        (result,) = store.results()
        assert all(result[name] == frozen[name] for name in ("key", "spec", "role", "status", "tasks", "references"))
        assert result["metrics"]["test"] == frozen["metrics"]["test"] and result["data"] == frozen["data"]
        merge([], tmp_path, pack=True)
    assert store.published


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.storage.atomic.os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert sha256_of(path) == "cba06b5736faf67e54b07b561eae94395e774c517a7d910a54369e1263ccfbd4"
