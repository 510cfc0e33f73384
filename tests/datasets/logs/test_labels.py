"""Dates as seconds, and classes that come from the data."""

from __future__ import annotations

import polars as pl

from bench.datasets.logs.classes import frequent_classes, with_other
from bench.datasets.logs.moments import seconds


def test_moments_are_on_the_log_s_clock_unless_they_say_otherwise() -> None:
    assert seconds("1970-01-02") == 86_400
    assert seconds("1970-01-01T00:01") == 60
    assert seconds("1970-01-01T01:00+01:00") == 0


def test_classes_are_the_frequent_values_by_name_and_one_for_the_rest() -> None:
    labels = pl.Series("topic", ["b", "b", "a", "a", "c", None, None, None])
    assert frequent_classes(labels, 0.4) == ("a", "b", "other")  # of five labels that are known
    assert frequent_classes(labels, 0.5) == ("other",)
    found = labels.to_frame().select(with_other("topic", ("a", "b", "other")))["topic"]
    assert found.to_list() == ["b", "b", "a", "a", "other", None, None, None]
