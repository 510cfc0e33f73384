"""`bench run --profile`: tables of where the time goes, which change nothing that is recorded."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import SMALL, Bench, Plugin

WORDS = ("run", "-d", "sim-news", *SMALL, "-s", "batch_size=256", "--epochs", "2", "--workers", "1")
PHASES = ("batch", "forward", "losses", "backward", "optimizer", "evaluation", "everything else")


@pytest.fixture(scope="module")
def profiled(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What is said of two runs of one configuration, and their results folder."""
    results = tmp_path_factory.mktemp("profiled")
    words = (*WORDS, "-m", "shared_bottom", "--seeds", "2", "--profile", "--trace", "--results", results)
    return bench(*words).stderr, results


def test_a_profile_accounts_for_all_time(profiled: tuple[str, Path]) -> None:
    said, _ = profiled
    assert re.search(r"shared_bottom on sim-news: \d+ steps of about 256 rows", said)
    found = {name: re.search(rf"^{name} +([\d.]+) +([\d.]+)%", said, re.M) for name in PHASES}
    assert all(found.values()), said
    shares = {name: float(match[2]) for name, match in found.items() if match}
    assert abs(sum(shares.values()) - 100) < 1
    assert all(shares[name] > 0 for name in PHASES)
    assert re.search(r"^aten::\w+ +[\d.]+ +[\d.]+% +[\d.]+$", said, re.M)


def test_a_trace_lies_next_to_the_record_which_does_not_change(
    bench: Bench, profiled: tuple[str, Path], tmp_path: Path, records: Callable[[Path], dict[str, Any]]
) -> None:
    """With and without; and of two runs of one configuration the second is stored, and profiled once."""
    said, results = profiled
    assert said.count("shared_bottom on sim-news:") == 1
    (trace,) = results.glob("runs/*/*/*.trace.json.gz")
    with gzip.open(trace) as file:
        names = {event["name"] for event in json.load(file)["traceEvents"]}
    assert {"batch", "forward", "losses", "backward"} <= names
    assert trace.with_name(trace.name.replace(".trace", "").removesuffix(".gz")).exists()
    trace.unlink()
    bench(*WORDS, "-m", "shared_bottom", "--results", tmp_path)
    plain, watched = records(tmp_path), records(results)
    assert len(plain) == 1 and len(watched) == 2 and plain.items() <= watched.items()


def test_a_trace_needs_a_profile(refused: Callable[..., str]) -> None:
    assert "give --profile too" in refused(*WORDS, "-m", "mmoe", "--trace")


def test_what_has_no_steps_says_so(bench: Bench, plugin: Plugin, tmp_path: Path) -> None:
    """A method without training, one that does not fit the data, and one that fails."""
    file = plugin("broken", "def losses(self, outputs, batch):\n    raise RuntimeError('no such loss')\n")
    for method, said in (
        ("popularity", "popularity on sim-news: nothing is trained"),
        ("esmm", "esmm on sim-news: declined"),
        ("broken", "broken on sim-news: failed: RuntimeError: no such loss"),
    ):
        code = 1 if method == "broken" else 0
        words = (*WORDS, "-m", method, "--plugin", file, "--profile", "--results", tmp_path)
        assert said in bench(*words, code=code).stderr
