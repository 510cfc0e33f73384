"""Stored outcomes of studies: one JSON file each, under its own key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.spec import digest
from bench.storage.reading import Unreadable

STUDY_SCHEMA = 1


def read_study(path: Path) -> dict[str, Any]:
    """Returns the stored outcome of a study. Raises BenchError naming a file that is none."""
    try:
        outcome: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if outcome["schema"] == STUDY_SCHEMA and outcome["key"] == digest(outcome["study"]) == path.stem:
            return outcome
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unreadable(f"{path} cannot be read as a study ({error}); move it away and tune again") from error
    raise Unreadable(f"{path} is no study of schema {STUDY_SCHEMA} under its own key; move it away and tune again")
