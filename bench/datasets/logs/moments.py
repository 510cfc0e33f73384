"""Turns dates into the seconds that logs count."""

from __future__ import annotations

from datetime import UTC, datetime


def seconds(moment: str) -> int:
    """Returns the seconds from 1970 to a moment in ISO 8601, such as ``2017-01-06T00:00+01:00``.

    A moment without an offset is read on the log's own clock, as if it were UTC.
    """
    found = datetime.fromisoformat(moment)
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())
