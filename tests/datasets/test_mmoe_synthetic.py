"""The MMoE paper's synthetic data against its equations: directions, means, noise, and what a knob leaves alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from bench.api import Tables
from bench.data import encode
from bench.datasets.mmoe_synthetic import MMoESynthetic, bent
from bench.errors import BenchError


def build(**knobs: Any) -> Tables:
    return MMoESynthetic(**{"rows": 4000, "dim": 8, **knobs}).build({})


def inputs(tables: Tables) -> np.ndarray:
    return tables.rows.select(pl.selectors.matches(r"^x\d+$")).to_numpy()


def direction(tables: Tables, task: str) -> np.ndarray:
    """Unit vector of E[x m(x)], parallel to the task's weights for Gaussian inputs (Stein's lemma); the means fall."""
    slope = np.linalg.lstsq(inputs(tables), tables.rows[f"truth:{task}"].to_numpy(), rcond=None)[0]
    unit: np.ndarray = -slope / np.linalg.norm(slope)
    return unit


def test_the_mean_by_hand() -> None:
    expected = 0.2 + math.sin(1.2) + math.sin(2.4) + math.sin(3.6) + math.sin(4.8) + math.sin(6.0)
    assert bent(np.array([0.2]))[0] == pytest.approx(expected)
    assert bent(np.zeros(1))[0] == pytest.approx(sum(math.sin(i) for i in range(1, 6)))


@pytest.mark.parametrize("correlation", [-1.0, -0.4, 0.0, 0.5, 0.9, 1.0])
def test_the_cosine_of_the_weights_is_the_knob(correlation: float) -> None:
    tables = build(rows=200_000, correlation=correlation)
    first, second = direction(tables, "y1"), direction(tables, "y2")
    assert first @ second == pytest.approx(correlation, abs=0.02)
    # Along its own direction each mean is the bent function of c = 0.3 times the projection.
    for unit, task in ((first, "y1"), (second, "y2")):
        error = bent(0.3 * inputs(tables) @ unit) - tables.rows[f"truth:{task}"].to_numpy()
        assert np.abs(error).mean() < 0.05


def test_one_task_at_correlation_1_and_ever_less_in_common_below() -> None:
    same = build(correlation=1.0).rows
    assert np.allclose(same["truth:y1"], same["truth:y2"])
    shared = [build(correlation=p).rows.select(pl.corr("y1", "y2")).item() for p in (0.0, 0.5, 0.8, 0.95, 1)]
    assert shared == sorted(shared) and abs(shared[0]) < 0.05 and shared[-1] > 0.98


def test_noise_is_a_standard_deviation_and_independent() -> None:
    rows = build(rows=20_000, noise=0.3).rows
    errors = [(rows[t] - rows[f"truth:{t}"]).to_numpy() for t in ("y1", "y2")]
    for error in errors:
        assert error.std() == pytest.approx(0.3, rel=0.02) and abs(error.mean()) < 0.01
    assert abs(np.corrcoef(errors)[0, 1]) < 0.03
    clean = build(noise=0.0).rows
    assert (clean["y1"] == clean["truth:y1"]).all() and (clean["y2"] == clean["truth:y2"]).all()


def test_what_the_documentation_says_of_the_labels() -> None:
    tables = build(rows=50_000, dim=100)
    mean = tables.rows["truth:y1"].to_numpy()
    along = inputs(tables) @ direction(tables, "y1")
    assert mean.std() == pytest.approx(1.01, abs=0.02)
    assert np.corrcoef(along, mean)[0, 1] ** 2 == pytest.approx(0.35, abs=0.02)


def test_a_knob_leaves_the_other_numbers() -> None:
    base = build()
    x = [f"x{i + 1}" for i in range(8)]
    assert_frame_equal(base.rows, build().rows)
    assert_frame_equal(base.rows.select(x), build(correlation=-0.2, noise=2.0).rows.select(x))
    assert_frame_equal(base.rows.drop("y1", "y2"), build(noise=2.0).rows.drop("y1", "y2"))
    assert_frame_equal(base.rows.head(500), build(rows=500).rows)
    assert not base.rows["x1"].equals(build(seed=1).rows["x1"])


def test_standard_form() -> None:
    dataset = MMoESynthetic(rows=100, dim=3)
    tables = dataset.build({})
    assert [f.name for f in dataset.fields] == ["x1", "x2", "x3"]
    assert not {f.name for f in dataset.fields} & set(dataset.forbidden)
    encoded = encode.encode(dataset, tables)
    assert {name: part["rows"] for name, part in encoded.parts.items()} == {"train": 80, "valid": 10, "test": 10}
    assert encoded.arrays["train/pair_num"].shape == (80, 3) and encoded.arrays["train/history"].shape == (80, 0)
    assert np.allclose(encoded.arrays["test/truth/y2"], tables.rows["truth:y2"].to_numpy()[90:])


@pytest.mark.parametrize(
    ("knob", "value", "span"),
    [
        ("rows", 9, "of at least 10"),
        ("dim", 1, "of at least 2"),
        ("correlation", 1.5, "from -1 to 1"),
        ("noise", -0.1, "of at least 0"),
        ("noise", math.nan, "of at least 0"),
        ("seed", -1, "of at least 0"),
    ],
)
def test_a_knob_out_of_its_range(knob: str, value: float, span: str) -> None:
    with pytest.raises(BenchError, match=f"knob '{knob}' must be a number {span}"):
        MMoESynthetic(**{knob: value})  # type: ignore[arg-type]
