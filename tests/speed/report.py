"""What the tests of speed have measured, section by section, and the file that says so."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from bench import registry
from bench.machine.device import multiplies_bfloat16
from bench.machine.provenance import code_version, environment

SECTIONS = (
    "Training",
    "Evaluation",
    "Balancers",
    "Metrics",
    "Size",
    "Tasks and experts",
    "Embedding updates",
    "Language models",
    "Suites",
    "Start-up",
)

# before a test has changed or measured anything
_machine = {
    **environment(torch.device("cpu")),
    "products of bfloat16": "by instructions of their own" if multiplies_bfloat16() else "by those of float32",
    "commit": code_version(registry.ROOT)["commit"],
    "load": f"{os.getloadavg()[0]:.1f}",
    "date": time.strftime("%Y-%m-%d", time.gmtime()),
}
_measured: dict[str, list[str]] = {}


def report(section: str, text: str) -> None:
    """Prints a paragraph, list or table in Markdown and adds it to its section of the report.

    Raises ValueError for a section that is not in SECTIONS.
    """
    if section not in SECTIONS:
        raise ValueError(f"unknown section '{section}'; known: {', '.join(SECTIONS)}")
    print(f"\n{text}")
    _measured.setdefault(section, []).append(text.strip())


def write(path: Path, failed: Sequence[str]) -> None:
    """Writes what this run has measured: machine, versions, date and load, tests that failed, then the sections."""
    parts = [
        "# Speed",
        "Written by `make speed`; do not edit. All figures are from one run on one machine, as it was at the start:",
        "\n".join(f"- {name}: {value}" for name, value in _machine.items()),
    ]
    if failed:
        parts.append("\n".join(["Tests that failed in this run:", "", *(f"- `{name}`" for name in failed)]))
    for section in SECTIONS:
        if section in _measured:
            parts += [f"## {section}", *_measured[section]]
    path.write_text("\n\n".join(parts) + "\n", "utf-8")
