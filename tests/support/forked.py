"""The command in a process of its own that need not be a fresh interpreter: forked, as workers are, in a second."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from bench.execution.children import start_child


class Forked:
    """A process group of its own that runs ``bench WORDS``; it has what tests use of ``subprocess.Popen``."""

    def __init__(self, folder: Path, *words: object) -> None:
        self._files = [folder / name for name in ("out", "err")]
        self._process = start_child(_run, [str(word) for word in words], self._files)
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """As far as is known: None while it runs, negative for a signal."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Whether it has ended: its exit code."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, "it has not ended in time"
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Its standard output and error, once it has ended."""
        self.wait(timeout)
        out, err = (path.read_text("utf-8") for path in self._files)
        return out, err

    def kill(self) -> None:
        """Sends SIGKILL to it alone."""
        self._process.kill()

    def terminate(self) -> None:
        """Sends SIGTERM to it alone."""
        self._process.terminate()


def _run(words: list[str], files: list[Path]) -> None:
    os.setsid()
    for number, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    from bench import cli

    sys.argv = ["bench", *words]
    cli.main()
