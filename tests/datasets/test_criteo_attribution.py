"""Criteo Attribution from hand-made lines: conversions within a day, missing values, the log's last day."""

from __future__ import annotations

import gzip
from math import log1p
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

from bench.api import Tables
from bench.data.raw.source import fetch
from bench.datasets.criteo_attribution import DAY, FILE, CriteoAttribution
from bench.errors import BenchError
from tests.support.formats.criteo_attribution import COLUMNS, write

# time, user, campaign, conversion, its time, click, seconds since the last click
ROWS = (
    (0, 1, 500, 0, -1, 1, -1),
    (0, 1, 400, 1, DAY, 0, 0),
    (0, 2, 500, 1, DAY + 1, 1, 99),
    (50, 1, 500, 1, 50, 1, 50),
    (60, 2, 600, 0, -1, 0, -1),
    (DAY, 1, 700, 1, DAY + 5, 1, -1),
    (DAY + 1, 1, 700, 0, -1, 0, 3),  # its day is not over when the log ends
    (2 * DAY, 3, 800, 0, -1, 0, -1),
)


def line(row: tuple[int, ...]) -> str:
    values = dict(
        zip(("timestamp", "uid", "campaign", "conversion", "conversion_timestamp", "click"), row, strict=False)
    )
    values |= {"time_since_last_click": row[6], "cost": 1.5e-05, "cpo": 0.25, "conversion_id": -1}  # type: ignore[dict-item]
    values |= {name: 10_000_000 + 10 * int(name[3]) + row[1] for name in COLUMNS if name.startswith("cat")}
    return "\t".join(str(values.get(name, -1)) for name in COLUMNS)


def file(folder: Path, rows: tuple[tuple[int, ...], ...] = ROWS) -> dict[str, Path]:
    path = folder / FILE
    path.write_text("".join(f"{text}\n" for text in ("\t".join(COLUMNS), *map(line, rows))))
    return {FILE: path}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return CriteoAttribution().build(file(tmp_path_factory.mktemp("hand")))


def test_groups_by_hand(tables: Tables) -> None:
    # A second's own impressions are not in each other's history; those of one second are in order of campaign.
    assert tables.groups.select("group", "user", "time", "known", "history", "history_time").rows() == [
        (0, 1, 0, DAY, [], None),
        (1, 1, 0, DAY, [], None),
        (2, 2, 0, DAY, [], None),
        (3, 1, 50, DAY + 50, [400, 500], 0),
        (4, 2, 60, DAY + 60, [500], 0),
        (5, 1, DAY, 2 * DAY, [400, 500, 500], 50),
    ]
    assert tables.items["item"].to_list() == [400, 500, 600, 700, 800] and tables.users.rows() == [(1,), (2,)]


def test_labels_and_features_by_hand(tables: Tables) -> None:
    assert tables.rows.select("item", "click", "conversion", "ctcvr", "cvr").rows() == [
        (500, 1, 0, 0, 0),
        (400, 0, 1, 0, None),  # at the last moment of the day, without a click
        (500, 1, 0, 0, 0),  # a second later: not counted
        (500, 1, 1, 1, 1),
        (600, 0, 0, 0, None),
        (700, 1, 1, 1, 1),
    ]
    expected = [None, 0.0, log1p(99), log1p(50), None, None]
    assert tables.rows["since_click"].to_list() == [e if e is None else pytest.approx(e) for e in expected]
    assert tables.rows.select("cat1", "cat9").row(2) == (10_000_012, 10_000_092)


def test_outcomes_are_no_fields() -> None:
    fields = {f.name for f in CriteoAttribution.fields}
    assert not fields & {*CriteoAttribution.forbidden, *(t.name for t in CriteoAttribution.tasks)}
    assert {*CriteoAttribution.forbidden} == {*COLUMNS[4:7], *COLUMNS[8:12]}


def test_compressed_file_in_its_folder_and_one_in(tmp_path: Path) -> None:
    write(tmp_path)
    packed = tmp_path / "zip" / "criteo_attribution_dataset" / f"{FILE}.gz"
    packed.parent.mkdir(parents=True)
    packed.write_bytes(gzip.compress((tmp_path / FILE).read_bytes()))
    dataset = CriteoAttribution(one_in=5)
    built = dataset.build(fetch(dataset.sources, tmp_path / "into", tmp_path / "zip"))
    assert set(built.users["user"]) <= set(range(0, 50, 5)) and built.groups.height > 50
    with pytest.raises(BenchError, match="one_in must be at least 1"):
        CriteoAttribution(one_in=-1)


def test_a_log_cut_off_later_gives_the_same_rows(tmp_path: Path) -> None:
    """Nothing after an impression's known time is in its row, labels or history."""
    write(tmp_path)
    whole = CriteoAttribution().build({FILE: tmp_path / FILE})
    header, *lines = (tmp_path / FILE).read_text().splitlines()
    until = 20 * DAY
    early = [text.split("\t") for text in lines if int(text.split("\t")[0]) <= until]
    for cells in early:
        if int(cells[4]) > until:  # a conversion that is not yet known
            cells[3:6] = ["0", "-1", "-1"]
    (tmp_path / FILE).write_text("".join(f"{text}\n" for text in (header, *("\t".join(c) for c in early))))
    cut = CriteoAttribution().build({FILE: tmp_path / FILE})
    assert cut.groups.height > 200
    assert_frame_equal(whole.groups.head(cut.groups.height), cut.groups)
    assert_frame_equal(whole.rows.head(cut.groups.height), cut.rows)


@pytest.mark.parametrize(
    ("number", "old", "new", "message"),
    [
        (2, "0\t1\t", "zero\t1\t", "line 2: timestamp 'zero' is not a whole number"),
        (3, "\t400\t1\t", "\t400\t2\t", "line 3: conversion '2' is not 0 or 1"),
        (5, "50\t1\t500\t1\t50\t", "50\t1\t500\t1\t49\t", "line 5: conversion_timestamp '49' is before the impression"),
        (5, "\t500\t", "\t", "line 5: 21 columns instead of 22"),
        (5, "\t500\t", "\t\t", "line 5: campaign '' is not a whole number"),
        (1, "\tclick\t", "\tclicked\t", "line 1: no column 'click'"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, number: int, old: str, new: str, message: str) -> None:
    path = file(tmp_path)[FILE]
    rows = path.read_text().split("\n")
    assert old in rows[number - 1]
    rows[number - 1] = rows[number - 1].replace(old, new, 1)
    path.write_text("\n".join(rows))
    with pytest.raises(BenchError) as caught:
        CriteoAttribution().build({FILE: path})
    assert f"{path}, {message}" in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_end_too_early(tmp_path: Path) -> None:
    path = file(tmp_path)[FILE]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BenchError, match="ends in the middle of a line"):
        CriteoAttribution().build({FILE: path})
    with pytest.raises(BenchError, match="no impression is a day older than the last"):
        CriteoAttribution().build(file(tmp_path, ROWS[:5]))
    with pytest.raises(BenchError, match="holds no rows"):
        CriteoAttribution(one_in=100).build(file(tmp_path))
