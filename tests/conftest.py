"""What all tests share: a cache of their own, no network, the command in this process or in another, small plugins."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

# One thread, as every run has: small models train faster so, and passive waiting spares a shared machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A shell's background job starts with Ctrl-C ignored, and children inherit that: the tests send it to them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from click.testing import CliRunner, Result
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from bench import cli, registry
from bench.storage.cache import root as user_cache
from tests.support.command import Bench, Fork, Plugin, Start
from tests.support.forked import Forked

# The same examples every time: a test that fails once must fail again.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


class _Groups(LoadScopeScheduling):
    """A file's tests stay in one process, since what they prepare and train serves several; a method's contract is a
    group of its own. (Names given by ``xdist_group`` are lost between xdist 3.8 and pytest 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if "::test_method_keeps_the_contract[" in nodeid else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """With ``--dist loadscope`` tests are scheduled by these groups."""
    return _Groups(config, log) if config.getvalue("dist") == "loadscope" else None


def pytest_collection_finish() -> None:
    """What has been imported by now is no garbage, and no collection walks through it."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with real processes take longest, and begin."""
    items.sort(key=lambda item: item.path.parent.name != "end_to_end")


@pytest.fixture(scope="session", autouse=True)
def cache(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache folder for the whole session, so that the user's own stays untouched.

    Slow tests use the user's, so that real files are not fetched again by every session.
    """
    if request.config.getoption("markexpr") == "slow":
        yield user_cache()
        return
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("BENCH_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def offline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, in this process or its children; except for slow tests, which may need the real data."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            for spelled in (name, name.upper()):
                monkeypatch.setenv(spelled, "http://127.0.0.1:9")  # nothing listens there: it fails at once
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("NO_PROXY", "")


@pytest.fixture(scope="session")
def bench() -> Bench:
    """Calls the command in this process; fails on a traceback or another exit code than expected."""

    def call(*words: object, code: int = 0) -> Result:
        registry._plugins.clear()  # as in a new process
        registry._plugin_module.cache_clear()
        try:
            result = CliRunner().invoke(cli.main, [str(w) for w in words])
        finally:
            registry._plugins.clear()
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return call


@pytest.fixture(scope="session")
def refused(bench: Bench) -> Callable[..., str]:
    """Calls the command with bad input: exit code 2, nothing on standard output, one line of error, returned."""

    def call(*words: object) -> str:
        result = bench(*words, code=2)
        assert result.stdout == ""
        *steps, last = result.stderr.splitlines()
        assert last.startswith("bench: ") and not any(s.startswith(("bench:", "Traceback")) for s in steps), (
            result.stderr
        )
        assert all(s.startswith("preparing ") for s in steps), result.stderr
        return last.removeprefix("bench: ")

    return call


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts the command in a process group of its own, which does not outlive the test."""
    started: list[subprocess.Popen[str]] = []

    def call(*words: object, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "bench.cli", *(str(w) for w in words)]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        options = {"cwd": registry.ROOT, "start_new_session": True, **pipes, **options}
        started.append(subprocess.Popen(command, **options))
        return started[-1]

    yield call
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # even where the first has ended: it may have left others behind
        process.communicate()


@pytest.fixture
def fork(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fork]:
    """Runs the command in a forked process with a group of its own, which does not outlive the test."""
    started: list[Forked] = []

    def call(*words: object) -> Forked:
        started.append(Forked(tmp_path_factory.mktemp("forked"), *words))
        return started[-1]

    yield call
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()  # it may not have had its group yet
        process.wait()


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    """Writes a method file: shared-bottom with the given class body."""

    def write(name: str, body: str = "", head: str = "") -> Path:
        imports = f"import time\n\nimport torch\n\nfrom baselines.shared_bottom import SharedBottom\n{head}"
        indented = textwrap.indent(textwrap.dedent(body), "    ")
        text = f'"""{name}."""\n\n{imports}\n\n\nclass Plugin(SharedBottom):\n    """{name}."""\n\n{indented}'
        path = tmp_path / "plugins" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    return write


@pytest.fixture
def records() -> Callable[[Path], dict[str, Any]]:
    """What the records of a results folder say that must not depend on where, when or in how many pieces they ran."""

    def read(results: Path) -> dict[str, Any]:
        found = {}
        for path in sorted((results / "runs").rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                record = json.loads(path.read_text("utf-8"))
                assert record["key"] == path.stem
                kept = (
                    "key",
                    "spec",
                    "role",
                    "status",
                    "error",
                    "tasks",
                    "metrics",
                    "references",
                    "curve",
                    "best_epoch",
                )
                found[path.relative_to(results).as_posix()] = {k: record[k] for k in (*kept, "data")}
        return found

    return read
