"""`bench show`: every number of a record is there, beside what makes it again; keys by their first characters."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench import registry
from bench.cli.show import sparkline
from bench.errors import BenchError
from bench.storage.reading import read_record
from bench.storage.records import Store
from tests.support.command import Bench

REFERENCE = registry.ROOT / "results" / "reference"


def record_of(pattern: str) -> dict[str, Any]:
    """The first published record of a data set and a method, DATASET/METHOD."""
    return read_record(next(p for p in Store(REFERENCE).places() if f"{p.dataset}/{p.method}" == pattern))


def shown(bench: Bench, key: str, *more: str) -> str:
    done = bench("show", key, "--results", str(REFERENCE), *more)
    assert done.exit_code == 0, done.output
    return str(done.output)


def test_all_of_a_run(bench: Bench) -> None:
    record = record_of("sim-news/controller")
    output = shown(bench, record["key"])
    for part in (record["metrics"]["valid"], record["metrics"]["test"], record["references"]["oracle"]["test"]):
        assert f"{part['click']['auc']:.4f}" in output
    cold = record["metrics"]["slices"]["cold_user"]
    assert f"cold user, {cold['rows']:,} rows" in output and f"{cold['metrics']['rec']['mrr']:.4f}" in output
    for key, value in record["spec"]["config"].items():
        assert re.search(
            rf"^  {re.escape(key)} +{re.escape(value if isinstance(value, str) else json.dumps(value))}$",
            output,
            re.MULTILINE,
        ), key
    assert f"valid click        {sparkline([e['valid']['click'] for e in record['curve']])}" in output
    assert output.count("\n  epoch ") == len(record["decisions"]) > 0
    for text in (record["code"]["commit"], record["env"]["torch"], str(record["cost"]["fit_s"]), record["key"]):
        assert text in output
    assert output.rstrip().splitlines()[-1].startswith("  bench run -d sim-news -m controller ")


def test_gates_and_tuning(bench: Bench) -> None:
    assert "gates.click" in shown(bench, record_of("sim-news/mmoe")["key"])
    tuned = next(r for r in Store(REFERENCE).records() if (r["cost"] or {}).get("tuning_trials"))
    assert f"a study of {tuned['cost']['tuning_trials']} trials" in shown(bench, tuned["key"])


def test_a_run_without_a_result_says_why(bench: Bench) -> None:
    record = record_of("sim-news/aitm")
    output = shown(bench, record["key"])
    assert output.startswith(f"sim-news aitm seed {record['spec']['seed']}: declined\n  error  no funnel")
    assert "learning curve" not in output


def test_json_is_the_record_and_the_command(bench: Bench) -> None:
    record = record_of("movielens-100k/ple")
    found = json.loads(shown(bench, record["key"], "--json"))
    assert found.pop("command").startswith("bench run -d movielens-100k -m ple ")
    assert found == record


def test_the_first_characters_are_enough_if_they_are_unique(tmp_path: Path) -> None:
    store = Store(tmp_path)
    key = record_of("sim-news/mmoe")["key"]
    folder = store.put(record_of("sim-news/mmoe")).parent
    store.put(record_of("sim-news/ple"))
    assert store.find(key[:8])["key"] == key
    with pytest.raises(BenchError, match=f"no record '{key}0' in .*; nearest: {key} \\(sim-news mmoe\\)"):
        store.find(f"{key}0")
    twin = folder / f"{key[:8]}{'0' * 8}.json"
    twin.write_text("{}")
    with pytest.raises(BenchError, match=f"2 keys begin with '{key[:8]}', such as .*; give more of it"):
        store.find(key[:8])
    with pytest.raises(BenchError, match="there are no records"):
        Store(tmp_path / "empty").find("abc")


def test_sparkline() -> None:
    assert sparkline([0.0, 0.5, None, 1.0]) == "▁▅ █"
    assert sparkline([2.0, 2.0]) == "▅▅"
    assert sparkline([None]) == " "
