"""A Ray cluster of two nodes on this machine: a node that is lost, limits, Ctrl-C, and what a user may get wrong."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

import bench.execution.cluster  # noqa: F401 (it sets Ray's environment)
from tests.support import command
from tests.support.command import SMALL, Bench, Plugin, Start

LIMIT = 120  # seconds; no test gets near
PLAN = ("run", "-d", "sim-news", *SMALL, "--epochs", 3)
NOTE = """
def on_start(self, train):
    with open({path!r}, "a") as file:
        print(ray.get_runtime_context().get_node_id() if ray.is_initialized() else "here", os.getpid(), file=file)
    super().on_start(train)

def on_epoch(self, epoch, valid):
    time.sleep({seconds})
"""
Records = Callable[[Path], dict[str, Any]]


until = partial(command.until, limit=LIMIT, step=0.01)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield made
    made.shutdown()


@pytest.fixture
def noting(plugin: Plugin, tmp_path: Path) -> Callable[..., tuple[Path, Callable[[], list[list[str]]]]]:
    """A method that takes its time, and what its runs have noted as they began: their nodes and processes."""

    def make(seconds: float) -> tuple[Path, Callable[[], list[list[str]]]]:
        path = tmp_path / "begun"
        path.touch()
        body = NOTE.format(path=str(path), seconds=seconds)
        return plugin("slow", body, "import os\nimport ray"), lambda: [s.split() for s in path.read_text().splitlines()]

    return make


def test_a_node_is_lost(
    bench: Bench, start: Start, cluster: Any, noting: Any, plugin: Plugin, records: Records, tmp_path: Path
) -> None:
    """Killed amid a run: the run begins again elsewhere, and all records equal those of local runs, bit for bit."""
    node, (slow, begun) = cluster.add_node(num_cpus=1), noting(0.3)
    bad = plugin("bad", "def forward(self, batch):\n    raise RuntimeError('no idea')")
    methods = ("-m", "slow", "-m", "single_task", "-m", "bad", "--plugin", slow, "--plugin", bad)
    words, ray, here = (*PLAN, *methods, "--seeds", 3), tmp_path / "ray", tmp_path / "here"
    process = start(*words, "--executor", "ray", "--address", cluster.address, "--results", ray)
    until(lambda: any(where == node.node_id for where, _ in begun()) or process.poll() is not None)
    cluster.remove_node(node, allow_graceful=False)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 1 and "Traceback" not in err, err
    assert "3 failed, 6 ok" in err.splitlines() and sum(line.startswith("[") for line in err.splitlines()) == 9
    assert len(begun()) == 4  # one of three runs twice

    bench(*words, "--workers", 1, "--results", here, code=1)
    assert records(ray) == records(here) and len(records(ray)) == 9
    found = [{p.name: p.read_bytes() for p in (folder / "predictions").glob("*.npz")} for folder in (ray, here)]
    assert found[0] == found[1] and len(found[0]) == 6


def test_limits_and_deaths(bench: Bench, cluster: Any, noting: Any, plugin: Plugin, tmp_path: Path) -> None:
    """A run that takes too long is stopped; one that kills its process ends as a record, whatever Ray retries."""
    slow, begun = noting(1000)
    deadly = plugin("deadly", "def on_start(self, train):\n    os.kill(os.getpid(), 11)", "import os")
    words = (*PLAN, "-m", "slow", "-m", "popularity", "-m", "deadly", "--plugin", slow, "--plugin", deadly)
    options = ("--executor", "ray", "--address", cluster.address, "--time-limit", 3, "--results", tmp_path / "results")
    err = bench(*words, *options, code=1).stderr.splitlines()
    assert "1 failed, 1 ok, 1 timeout" in err
    assert "bench: sim-news slow seed 0: timeout: it took longer than the time limit of 3 s" in err
    assert "bench: sim-news deadly seed 0: failed: its process was killed by SIGSEGV twice" in err
    assert not any(psutil.pid_exists(int(process)) for _, process in begun())


def test_ctrl_c(start: Start, cluster: Any, noting: Any, tmp_path: Path) -> None:
    """The runs on the cluster stop too."""
    slow, begun = noting(1000)
    options = ("--executor", "ray", "--address", cluster.address, "--results", tmp_path / "results")
    process = start(*PLAN, "-m", "slow", "--plugin", slow, "--seeds", 3, *options)
    until(lambda: begun() or process.poll() is not None)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("bench: stopped;") and "Traceback" not in err
    until(lambda: not any(psutil.pid_exists(int(worker)) for _, worker in begun()))
    assert len(begun()) == 1


def test_what_a_user_gets_wrong(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, cluster: Any, tmp_path: Path
) -> None:
    words = (*PLAN, "-m", "shared_bottom", "--results", tmp_path)
    assert "give --executor ray too" in refused(*words, "--address", "127.0.0.1:1")
    ray = ("--executor", "ray", "--address", cluster.address)
    assert "no Ray cluster answers at 127.0.0.1:1;" in refused(*words, *ray[:-1], "127.0.0.1:1")
    assert "does not accept this configuration" in refused(*words, *ray, "-s", "dropout=2")
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "bench.execution.cluster")
    assert "pip install 'mlm-mtl-bench[ray]'" in refused(*words, *ray)
    assert not list(tmp_path.glob("runs/*"))
