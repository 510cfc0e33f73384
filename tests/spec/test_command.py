"""The command that reproduces a run: read by the command line, it gives the very spec."""

from __future__ import annotations

import shlex
from functools import cache
from typing import Any

from bench import registry
from bench.spec import canonical
from bench.spec.command import reproduce_command, short_command
from bench.storage.reading import read_record
from bench.storage.records import Store
from tests.support.command import understood

REFERENCE = Store(registry.ROOT / "results" / "reference")
SPEC = {
    "dataset": "toy", "dataset_config": {"domains": {"train": ["a b"], "test": ["c"]}}, "method": "mmoe",
    "config": {"lr": 0.002, "flag": "true", "empty": None, "text": "it's"}, "seed": 2,
    "budget": {"epochs": 20, "patience": 3},
}  # fmt: skip


@cache
def one_of_each() -> dict[str, dict[str, Any]]:
    """The record with the last seed of each configuration on each data set: tuned ones and declined ones, too."""
    records = sorted(REFERENCE.records(), key=lambda r: int(r["spec"]["seed"]))
    return {canonical([r["spec"][key] for key in ("dataset", "method", "config", "lm")]): r for r in records}


def test_names_the_published_runs() -> None:
    records = one_of_each().values()
    assert any((r["cost"] or {}).get("tuning_trials") for r in records)
    for record in records:
        assert [spec.key for spec in understood(reproduce_command(record["spec"]))] == [record["key"]]


def test_all_seeds_of_a_row() -> None:
    place = next(p for p in REFERENCE.places(["movielens-100k"]) if p.method == "mmoe")
    record = read_record(place)
    specs = understood(reproduce_command(record["spec"], 3))
    assert [spec.seed for spec in specs] == [0, 1, 2]
    assert record["spec"] in [{**spec.to_dict(), "seed": record["spec"]["seed"]} for spec in specs]


def test_values_keep_their_type_and_the_shell_sees_one_word_each() -> None:
    words = shlex.split(reproduce_command(SPEC))
    assert 'domains={"test":["c"],"train":["a b"]}' in words
    assert 'flag="true"' in words and "text=it's" in words and "empty=null" in words and "lr=0.002" in words
    assert words[-4:] == ["--seeds", "3", "--shard", "3/3"]


def test_the_short_command_means_the_same_runs() -> None:
    for record in one_of_each().values():
        command = short_command(record["spec"], record["spec"]["seed"] + 1)
        assert understood(command)[-1].key == record["key"], command
    assert "-s width=" not in command and "--data" not in command


def test_the_short_command_of_an_unknown_method_names_all() -> None:
    assert short_command(SPEC | {"method": "elsewhere"}, 2) == reproduce_command(SPEC | {"method": "elsewhere"}, 2)
