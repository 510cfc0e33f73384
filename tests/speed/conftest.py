"""The report of the tests of speed: written at the end of a run that is given a file for it, as `make speed` is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.speed.report import write


def pytest_addoption(parser: pytest.Parser) -> None:
    """Without the option a run only prints, so that a run of one test does not replace the report of all."""
    parser.addoption("--report", type=Path, metavar="FILE", help="write what was measured to this file")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Writes the file, also when a test has failed: the report names it."""
    path = config.getoption("report")
    if path is not None:
        lost = [r.nodeid for kind in ("failed", "error") for r in terminalreporter.stats.get(kind, [])]
        write(path, lost)
        terminalreporter.write_line(f"written to {path}")
