"""Adressa from a few hand-written events: which views count, labels, histories, drawn news, classes, faults."""

from __future__ import annotations

import json
import math
import tarfile
from pathlib import Path
from typing import Any

import pytest
from polars.testing import assert_frame_equal

from bench.api import Tables
from bench.data import prepare
from bench.data.encode import encode
from bench.data.load import load
from bench.data.raw.source import fetch
from bench.datasets.adressa import DAYS, Adressa
from bench.errors import BenchError
from tests.support.formats.adressa import START, write

DAY = 86_400


def view(user: str, news: str | None, time: int, active: float | None = None, **more: Any) -> dict[str, Any]:
    event: dict[str, Any] = {"profile": [{"item": "0", "groups": []}], "userId": user, "time": START + time, **more}
    if active is not None:
        event["activeTime"] = active
    return {**event, "id": news, "title": f" Om {news}"} if news else event


# At 60, 70 and on the last two days four news are known and not opened by the reader; nowhere else.
EVENTS: dict[str, list[dict[str, Any]]] = {
    "20170101": [
        view("u1", "b", 20, 7),
        view("u1", "a", 10, 3, category1="nyheter|trondheim"),  # out of order
        view("u2", None, 15, 8, url="http://adressa.no"),  # a front page
        view("u2", "c", 30, 4, category1="100sport|fotball|rbk"),
        view("u3", "d", 40, 5),
        view("u2", "d", 40, 5),  # the same second
        view("u4", "e", 60, 99.5, category1="kultur"),
        view("u1", "a", 65, 500, category1="later"),  # a second view of the same news
        view("u4", "f", 70, 9999),
    ],
    **{day: [view("u9", None, DAY * n)] for n, day in enumerate(DAYS[1:5], 1)},
    "20170106": [
        view("u3", "c", 5 * DAY, category1="100sport|annet"),
        {**view("", "x", 5 * DAY), "userId": None},
        view("u4", None, 5 * DAY),
    ],
    "20170107": [view("u4", "g", 6 * DAY, 0, category1="bolig")],
}


def files(folder: Path, events: dict[str, list[dict[str, Any]]] = EVENTS) -> dict[str, Path]:
    for day in DAYS:
        (folder / day).write_text("".join(json.dumps(e, ensure_ascii=False) + "\n" for e in events[day]), "utf-8")
    return {day: folder / day for day in DAYS}


@pytest.fixture
def built(tmp_path: Path) -> tuple[Adressa, Tables]:
    dataset = Adressa()
    return dataset, dataset.build(files(tmp_path))


def test_groups_by_hand(built: tuple[Adressa, Tables]) -> None:
    groups = built[1].groups
    assert groups.select("group", "user", "time", "history", "history_time", "interest").rows() == [
        (0, "u4", START + 60, [], None, "kultur"),
        (1, "u4", START + 70, [4], START + 60, None),
        (2, "u3", START + 5 * DAY, [3], START + 40, "other"),
        (3, "u4", START + 6 * DAY, [4, 5], START + 70, "other"),
    ]
    assert (groups["known"] - groups["time"] == 1800).all()


def test_rows_by_hand(built: tuple[Adressa, Tables]) -> None:
    rows = built[1].rows
    assert rows["group"].to_list() == [g for g in range(4) for _ in range(5)]
    assert rows["item"].to_list()[:10] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 5]  # e; f: a to d are all there is
    assert rows["click"].to_list()[:10] == [0, 0, 0, 0, 1] * 2
    assert rows["rec"].to_list() == rows["click"].to_list()
    third, fourth = (rows.filter(group=g)["item"].to_list() for g in (2, 3))
    assert 2 in third and 3 not in third and 6 not in third  # d was opened, g is not published yet
    assert set(fourth) == {0, 1, 2, 3, 6}
    clicked = rows.filter(click=1)["active_time"].to_list()
    assert clicked == [pytest.approx(math.log(100.5)), pytest.approx(math.log(1801)), None, 0]
    assert rows.filter(click=0)["active_time"].null_count() == 16


def test_items_by_hand(built: tuple[Adressa, Tables]) -> None:
    assert built[1].items.select("item", "category", "subcategory", "text").rows() == [
        (0, "nyheter", "nyheter|trondheim", "Om a"),
        (1, None, None, "Om b"),
        (2, "100sport", "100sport|fotball|rbk", "Om c"),
        (3, None, None, "Om d"),
        (4, "kultur", "kultur", "Om e"),
        (5, None, None, "Om f"),
        (6, "bolig", "bolig", "Om g"),
    ]
    assert built[1].users["user"].to_list() == ["u3", "u4"]


def test_classes_come_from_the_training_part(built: tuple[Adressa, Tables], tmp_path: Path) -> None:
    dataset, _ = built
    assert dataset.tasks[-1].classes == ("kultur", "other")  # 100sport and bolig were opened later
    assert Adressa.tasks[-1].classes == ("other",)
    write(tmp_path / "written")
    data = load(prepare.prepare("adressa", None, tmp_path / "written"))
    assert data.schema.tasks[-1].classes == ("100sport", "kultur", "nyheter", "other")


def test_parts_are_days_in_norway(built: tuple[Adressa, Tables], tmp_path: Path) -> None:
    dataset, tables = built
    encoded = encode(dataset, tables)
    assert {part: size["groups"] for part, size in encoded.parts.items()} == {"train": 2, "valid": 1, "test": 1}
    late = EVENTS | {"20170105": [view("u5", "a", 5 * DAY - 1799, 30)]}
    purged = encode(dataset, dataset.build(files(tmp_path, late)))
    assert purged.purged == 5 and purged.parts["train"]["groups"] == 2


def test_any_order_of_lines_gives_equal_tables(tmp_path: Path, built: tuple[Adressa, Tables]) -> None:
    other = Adressa().build(files(tmp_path, {day: events[::-1] for day, events in EVENTS.items()}))
    for name in ("groups", "rows", "items", "users"):
        assert_frame_equal(getattr(built[1], name), getattr(other, name))


def test_nothing_of_the_future_is_in_a_group(tmp_path: Path) -> None:
    """Every group of the written files against a plain reading of the lines."""
    write(tmp_path)
    dataset = Adressa()
    dataset.history = 3  # type: ignore[misc]
    tables = dataset.build({day: tmp_path / "one_week" / day for day in DAYS})
    text = "".join((tmp_path / "one_week" / day).read_text("utf-8") for day in DAYS)
    events = [json.loads(line) for line in text.splitlines()]
    news = sorted({e["id"] for e in events if "id" in e})
    first: dict[tuple[str, int], int] = {}
    for e in events:
        if "id" in e:
            key = (e["userId"], news.index(e["id"]))
            first[key] = min(e["time"], first.get(key, e["time"]))
    candidates = tables.rows.group_by("group", maintain_order=True).agg("item", "click")
    expected = []
    for (user, item), time in sorted(first.items(), key=lambda v: (v[1], v[0][0], news[v[0][1]])):
        opened = {i for (u, i), t in first.items() if u == user and t <= time}
        met = {i for (_, i), t in first.items() if t < time} - opened
        if len(met) >= 4:
            expected.append((user, item, time, met))
    assert tables.groups.height == len(expected) > 100
    joined = tables.groups.join(candidates, on="group", maintain_order="left")
    for row, (user, item, time, met) in zip(joined.iter_rows(named=True), expected, strict=True):
        assert (row["user"], row["time"]) == (user, time)
        assert row["item"] == sorted(set(row["item"])) and len(row["item"]) == 5  # the order tells nothing
        assert [i for i, c in zip(row["item"], row["click"], strict=True) if c] == [item]
        assert set(row["item"]) - {item} <= met
        past = sorted((t, news[i], i) for (u, i), t in first.items() if u == user and t < time)
        assert row["history"] == [i for _, _, i in past][-3:]
        assert row["history_time"] == (past[-1][0] if past else None)


def test_the_published_archive_is_read(tmp_path: Path) -> None:
    write(tmp_path)
    with tarfile.open(tmp_path / "one_week.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "one_week", "one_week")
    places = [tmp_path, tmp_path / "one_week", tmp_path / "one_week.tar.gz"]
    found = [fetch(Adressa.sources, tmp_path / "into", place) for place in places]
    assert all([p.read_bytes() for p in f.values()] == [p.read_bytes() for p in found[0].values()] for f in found)
    with pytest.raises(BenchError, match=r"one_week\.tar\.gz"):
        fetch(Adressa.sources, tmp_path / "into")


def test_columns_keep_the_contract(built: tuple[Adressa, Tables]) -> None:
    dataset, tables = built
    names = {f.name for f in dataset.fields}
    assert not names & set(dataset.forbidden)
    assert names <= {*tables.groups.columns, *tables.users.columns, *tables.items.columns}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (f'"time": {START + 60}', '"time": "noon"', 'line 7: time "noon" is not a whole number'),
        (f'"time": {START + 60}', f'"time": {START}.5', f"line 7: time {START}.5 is not a whole number"),
        ('"activeTime": 99.5', '"activeTime": "long"', 'line 7: activeTime "long" is not a number'),
        ('"activeTime": 99.5', '"activeTime": ', "line 7: not JSON"),
        ('{"profile"', "17\n{", "line 1: not a JSON object"),
        (f'"time": {START + 60}, ', "", "an event of user 'u4' has no time"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    raw = files(tmp_path)
    text = raw["20170101"].read_text("utf-8")
    assert old in text
    raw["20170101"].write_text(text.replace(old, new, 1), "utf-8")
    fails(raw, str(raw["20170101"]), message)


@pytest.mark.parametrize("day", [DAYS[0], DAYS[-1]])
def test_truncated_empty_and_missing_files(tmp_path: Path, day: str) -> None:
    raw = files(tmp_path)
    whole = raw[day].read_bytes()
    lines = whole.count(b"\n")
    for broken, message in (
        (whole[:-2], f"line {lines}: not JSON"),
        (b"\xff\xfe\x00\x80", "line 1: not JSON"),
        (b"", "holds no rows"),
    ):
        raw[day].write_bytes(broken)
        fails(raw, str(raw[day]), message)
    raw[day].unlink()
    fails(raw, str(raw[day]), "no such file")


def test_too_few_views(tmp_path: Path) -> None:
    few = {day: [view("u1", "a", n), view("u2", "b", n)] for n, day in enumerate(DAYS)}
    fails(files(tmp_path, few), "20170101: too few views")


def fails(raw: dict[str, Path], *parts: str) -> None:
    with pytest.raises(BenchError) as caught:
        Adressa().build(raw)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)
