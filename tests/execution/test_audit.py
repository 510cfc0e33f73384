"""The audit of code: what a digest is made of, and what leaves it as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import registry
from bench.execution import audit
from bench.training import session

CODE = """
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.text import tower

def double(x):
    return 2 * x
"""
SAME = """# A comment.
'''A docstring.'''
import math
from typing import TYPE_CHECKING

def double(x):
    '''Another docstring.'''

    return (2
            * x)
"""


def files(*start: Path) -> set[str]:
    return {
        path.relative_to(registry.ROOT).as_posix() for path in audit.closure(start) if registry.ROOT in path.parents
    }


def test_words_and_layout_do_not_count(tmp_path: Path) -> None:
    path, found = tmp_path / "code.py", []
    for text in (CODE, SAME, SAME.replace("2\n", "3\n")):
        path.write_text(text)
        found.append(audit.closure([path])[path])
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    "line",
    [
        "from bench.text import tower",
        "import bench.text.tower",
        "from bench.text.tower import Frozen",
        "def f():\n    from bench.text import tower",
    ],
)
def test_every_way_to_import_counts(tmp_path: Path, line: str) -> None:
    path = tmp_path / "code.py"
    path.write_text(line + "\n")
    assert {"bench/text/tower.py", "bench/text/__init__.py", "bench/nn/augment.py"} <= files(path)
    path.write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    " + line.replace("\n", "\n    ") + "\n")
    assert not files(path)


def test_what_trains_and_measures_is_in_and_what_shows_is_not() -> None:
    found = files(Path(session.__file__), registry.find("method", "mmoe").path)
    parts = ("nn/augment", "nn/precision", "nn/lazy_adam", "metrics/exact", "training/loop", "training/score", "api")
    assert {f"bench/{part}.py" for part in parts} | {"baselines/mmoe.py"} <= found
    assert not [p for p in found if p.startswith(("bench/cli", "bench/leaderboard", "bench/storage", "bench/text"))]


def test_the_digest_is_that_of_all_components() -> None:
    plain = {"balancer": "uniform"}
    digests = {
        audit.method_digest("mmoe", plain),
        audit.method_digest("single_task", plain),
        audit.method_digest("mmoe", {"balancer": "stch"}),
        audit.method_digest("mmoe", {"balancer": "frozen_average", "balancer.of": "stch"}),
        audit.method_digest("mmoe", {**plain, "trunk": "ple"}),
        audit.method_digest("mmoe", {**plain, "teacher": "frozen", "teacher.trunk": "ple"}),
    }
    assert len(digests) == 6
