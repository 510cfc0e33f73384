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

LIMIT = 300  # seconds: a machine may be busy with other things
PLAN = ("run", "-d", "sim-news", *SMALL, "--epochs", 3)
NOTE = """
def on_start(self, train):
    with open({path!r}, "a") as file:
        print(os.environ.get("RAY_RAYLET_PID", "here"), os.getpid(), file=file)  # the first says which node
    super().on_start(train)

def on_epoch(self, epoch, valid):
    time.sleep({seconds})
"""
Records = Callable[[Path], dict[str, Any]]


until = partial(command.until, limit=LIMIT, step=0.01)

pytestmark = pytest.mark.slow  # a cluster takes half a minute to start, longer where nothing is compiled yet


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield made
    made.shutdown()


@pytest.fixture
def noting(plugin: Plugin, tmp_path: Path) -> Callable[..., tuple[Path, Callable[[], list[list[str]]]]]:
    """A method that takes its time, and what such runs have noted as they began: their nodes' daemons and processes."""

    def make(name: str, seconds: float) -> tuple[Path, Callable[[], list[list[str]]]]:
        path = tmp_path / "begun"
        path.touch()
        body = NOTE.format(path=str(path), seconds=seconds)
        return plugin(name, body, "import os"), lambda: [s.split() for s in path.read_text().splitlines()]

    return make


def test_runs_on_a_cluster_come_to_the_same_end(
    bench: Bench, start: Start, cluster: Any, noting: Any, plugin: Plugin, records: Records, tmp_path: Path
) -> None:
    """Ctrl-C stops the runs on the cluster too, and the same command continues. Then a node is lost amid a run: the run
    begins again elsewhere. One that takes too long is stopped; one that kills its process ends as a record, whatever
    Ray retries. All other records equal those of local runs, bit for bit."""
    node, (slow, begun), (slower, _) = cluster.add_node(num_cpus=1), noting("slow", 0.3), noting("slower", 0.4)
    bodies = {
        "bad": "def forward(self, batch):\n    raise RuntimeError('no idea')",
        "deadly": "def on_start(self, train):\n    os.kill(os.getpid(), 11)",
        "sleepy": "def on_start(self, train):\n    time.sleep(1000)",
    }
    odd = [word for name, body in bodies.items() for word in ("-m", name, "--plugin", plugin(name, body, "import os"))]
    usual = (*PLAN, "-m", "slow", "-m", "slower", "--plugin", slow, "--plugin", slower, "-m", "single_task")
    there = ("--executor", "ray", "--address", cluster.address, "--time-limit", 20, "--results", tmp_path / "ray")

    process = start(*usual, *there)
    until(lambda: begun() or process.poll() is not None)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("bench: stopped;") and "Traceback" not in err
    until(lambda: not any(psutil.pid_exists(int(worker)) for _, worker in begun()))

    def left() -> bool:
        (daemon,) = node.all_processes["raylet"]
        return any(where == str(daemon.process.pid) for where, _ in begun()[before:])

    before = len(begun())
    process = start(*usual, *odd, *there)
    until(lambda: left() or process.poll() is not None)
    cluster.remove_node(node, allow_graceful=False)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 1 and "Traceback" not in err, err
    lines = err.splitlines()
    assert lines.count("bench: sim-news deadly seed 0: failed: its process was killed by SIGSEGV twice") == 1
    assert lines.count("bench: sim-news sleepy seed 0: timeout: it took longer than the time limit of 20 s") == 1
    assert sum(line.startswith("[") for line in lines) == 6
    assert len(begun()[before:]) == 3  # one of two runs twice
    assert not any(psutil.pid_exists(int(worker)) for _, worker in begun())

    bench(*usual, *odd[:4], "--workers", 1, "--results", tmp_path / "here", code=1)
    wanted, found = records(tmp_path / "here"), records(tmp_path / "ray")
    assert len(wanted) == 4 and len(found) == 6 and wanted.items() <= found.items()
    kept = [
        {path.name: path.read_bytes() for path in (tmp_path / place / "predictions").glob("*.npz")}
        for place in ("ray", "here")
    ]
    assert kept[0] == kept[1] and len(kept[0]) == 3


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
