"""MIND from a few hand-written lines: labels, histories, unknown news, the 12-hour clock, and damaged files."""

from __future__ import annotations

import calendar
from pathlib import Path
from zipfile import ZipFile

import polars as pl
import pytest

from bench.api import Tables
from bench.data.encode import encode
from bench.data.raw.source import Download, Local, Together, fetch
from bench.datasets.mind import CATEGORIES, Mind
from bench.errors import BenchError
from tests.support.formats.mind import write

Small = type("Small", (Mind,), {"variant": "small"})
Large = type("Large", (Mind,), {"variant": "large"})

NEWS = {
    "train": (
        ("N1", "sports", "golf", 'Say "No", Please', "An abstract, commas.", "u", "[]", '[{"Label": "A \\"B\\""}]'),
        ("N2", "news", "world", "Why?", "Because", "u", "", "[]"),
        ("N3", "newcomer", "x", " Untitled abstract ", "", "u", "[]", "[]"),
        ("N5", "tv", "x", "Never shown", "", "u", "[]", "[]"),
        ("N1", "weather", "later", "A later line of the same news", "", "u", "[]", "[]"),
    ),
    "dev": (("N4", "tv", "", 'Quote " alone', "", "u", "[]", "[]"), ("N1", "video", "x", "dev", "", "u", "[]", "[]")),
}
LOGS = {
    "train": (
        ("7", "U1", "11/14/2019 12:00:00 AM", "N2 N77", "N1-0 N3-1 N2-1"),
        ("3", "U2", "11/9/2019 12:30:05 PM", "", "N2-0 N1-1"),
        ("7", "U1", "11/14/2019 12:00:00 AM", "N2 N77", "N1-0 N3-1 N2-1"),
        ("4", "U1", "11/13/2019 11:59:59 PM", "N2 N77", "N88-1 N1-0"),
        ("5", "U3", "11/9/2019 9:05:58 AM", " N3  N3 ", "N1-0 N2-0"),
    ),
    "dev": (("7", "U9", "11/15/2019 12:00:01 AM", "N1", "N4-1 N88-0 N1-0"),),
}


def at(day: int, hour: int, minute: int, second: int) -> int:
    return calendar.timegm((2019, 11, day, hour, minute, second))


def files(folder: Path) -> dict[str, Path]:
    raw = {}
    for part in ("train", "dev"):
        for name, lines in (("behaviors.tsv", LOGS[part]), ("news.tsv", NEWS[part])):
            raw[f"{part}/{name}"] = folder / f"MINDsmall_{part}" / name
            raw[f"{part}/{name}"].parent.mkdir(exist_ok=True, parents=True)
            raw[f"{part}/{name}"].write_text("".join("\t".join(line) + "\n" for line in lines), "utf-8")
    return raw


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Small().build(files(tmp_path))


def test_groups_by_hand(tables: Tables) -> None:
    before, dev = at(9, 9, 5, 57), at(15, 0, 0, 0)
    assert tables.groups.select("group", "user", "time", "history", "history_time", "interest").rows() == [
        (0, "U1", at(14, 0, 0, 0), [2, 77], before, "other"),  # the first of two clicked news counts
        (1, "U2", at(9, 12, 30, 5), [], None, "sports"),
        (2, "U1", at(13, 23, 59, 59), [2, 77], before, None),  # clicked news that news.tsv lacks
        (3, "U3", at(9, 9, 5, 58), [3, 3], before, None),  # nothing clicked
        (4, "U9", dev + 1, [1], dev, "tv"),
    ]


def test_rows_by_hand(tables: Tables) -> None:
    assert tables.rows.select("group", "item", "click", "rec").rows() == [
        (0, 1, 0, 0), (0, 3, 1, 1), (0, 2, 1, 1),
        (1, 2, 0, 0), (1, 1, 1, 1),
        (2, 88, 1, 1), (2, 1, 0, 0),
        (3, 1, 0, 0), (3, 2, 0, 0),
        (4, 4, 1, 1), (4, 88, 0, 0), (4, 1, 0, 0),
    ]  # fmt: skip


def test_items_and_users_by_hand(tables: Tables) -> None:
    assert tables.items.rows() == [
        (1, "sports", "golf", 'Say "No", Please. An abstract, commas.'),
        (2, "news", "world", "Why? Because"),
        (3, "newcomer", "x", "Untitled abstract."),
        (4, "tv", None, 'Quote " alone.'),
        (77, None, None, None),
        (88, None, None, None),
    ]
    assert tables.users["user"].to_list() == ["U1", "U2", "U3", "U9"]


def test_parts_are_cut_at_the_dates_and_unknown_news_survive(tables: Tables) -> None:
    encoded = encode(Small(), tables)
    assert {part: size["groups"] for part, size in encoded.parts.items()} == {"train": 3, "valid": 1, "test": 1}
    assert encoded.arrays["test/item"].tolist() == [4, 6, 1] and encoded.texts[6] == ""
    assert encoded.arrays["train/history"][-1, -2:].tolist() == [2, 5]
    assert encoded.arrays["valid/label/interest"].tolist() == [CATEGORIES.index("other")]


def test_long_histories_keep_the_last_clicks(tmp_path: Path) -> None:
    raw = files(tmp_path)
    long = " ".join(f"N{n}" for n in range(1, 61))
    edit(raw["dev/behaviors.tsv"], "\tN1\t", f"\t{long}\t")
    assert Small().build(raw).groups["history"][-1].to_list() == list(range(11, 61))


def test_both_layouts_are_found(tmp_path: Path) -> None:
    write(tmp_path / "published", "small")
    for part in ("train", "dev"):
        (tmp_path / "plain").mkdir(exist_ok=True)
        (tmp_path / "plain" / part).symlink_to(tmp_path / "published" / f"MINDsmall_{part}")
    found = [fetch(Small().sources, tmp_path / "into", tmp_path / place) for place in ("published", "plain")]
    assert found[0].keys() == found[1].keys() and len(found[0]) == 4
    assert [path.read_bytes() for path in found[0].values()] == [path.read_bytes() for path in found[1].values()]


def test_both_archives_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "small")

    def get(part: Download, scratch: Path) -> Path:
        folder = Path(part.url).stem
        with ZipFile(scratch / f"{folder}.zip", "w") as archive:
            for name in ("behaviors.tsv", "news.tsv", "more.vec"):
                archive.writestr(f"{folder}/{name}", (tmp_path / folder / name).read_bytes() if "tsv" in name else b"")
        return scratch / f"{folder}.zip"

    monkeypatch.setattr(Download, "_get", get)
    found = fetch(Small().sources, tmp_path / "into")
    assert Small().build(found).groups.height == 114
    monkeypatch.setattr(Download, "_get", None)  # it is not fetched twice
    assert fetch(Small().sources, tmp_path / "into") == found


def test_sources() -> None:
    archives = Small().sources[0]
    assert isinstance(archives, Together) and {"train/news.tsv", "dev/behaviors.tsv"} < archives.published.keys()
    assert archives.digest == "md5:bd6ae77fa15949653f39829e946d327c md5:1c9e798fe440c1999547211cd5245e3e"
    assert all(isinstance(source, Local) for source in Large().sources)
    with pytest.raises(BenchError, match="MINDlarge_train.zip"):
        fetch(Large().sources, Path("nowhere"))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("train/behaviors.tsv", "\tU2", "", "line 2: 4 columns instead of 5"),
        ("train/behaviors.tsv", "3\tU2", "three\tU2", "line 2: impression_id 'three'"),
        ("train/behaviors.tsv", "12:30:05 PM", "13:30:05 PM", "line 2: time '11/9/2019 13:30:05 PM'"),
        ("train/behaviors.tsv", "12:30:05 PM", "12:30:05", "line 2: time '11/9/2019 12:30:05'"),
        ("train/behaviors.tsv", "N3  N3", "N3 M3", "line 5: history 'M3'"),
        ("train/behaviors.tsv", "N2-0 N1-1", "N2-0 N1", "line 2: impressions 'N1'"),  # the hidden test part
        ("train/behaviors.tsv", "N2-0 N1-1", "N2-0 N1-", "line 2: impressions 'N1-'"),
        ("dev/behaviors.tsv", "N4-1 N88-0 N1-0", "", "line 1: impressions ''"),
        ("train/news.tsv", "N2\t", "M2\t", "line 2: news_id 'M2'"),
        ("train/news.tsv", "Why?", "Wh\ty?", "line 2: 9 columns instead of 8"),
        ("dev/news.tsv", "[]\n", "[", "line 1: 15 columns instead of 8"),
        ("train/news.tsv", '\\""}]', '\\""}', "line 1: abstract_entities '[{"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, name: str, old: str, new: str, message: str) -> None:
    raw = files(tmp_path)
    edit(raw[name], old, new)
    fails(raw, f"{raw[name]}, {message}")


@pytest.mark.parametrize("name", ["train/behaviors.tsv", "dev/behaviors.tsv", "train/news.tsv", "dev/news.tsv"])
def test_truncated_empty_and_missing_files(tmp_path: Path, name: str) -> None:
    raw = files(tmp_path)
    whole = raw[name].read_bytes()
    raw[name].write_bytes(whole[:-2])
    lines = whole.count(b"\n")
    fails(raw, f"{raw[name]}, line {lines}: {'impressions' if 'behaviors' in name else 'abstract'}")
    for broken in (b"", b"\xff\xfe\x00"):
        raw[name].write_bytes(broken)
        fails(raw, f"{raw[name]}: " + ("cannot be read as utf-8 text" if broken else "holds no rows"))
    raw[name].unlink()
    fails(raw, f"{raw[name]}: cannot be read")


def fails(raw: dict[str, Path], message: str) -> None:
    with pytest.raises(BenchError) as caught:
        Small().build(raw)
    assert "\n" not in str(caught.value)
    assert message in str(caught.value)


def test_columns_keep_the_contract(tmp_path: Path) -> None:
    write(tmp_path)
    dataset = Small()
    tables = dataset.build(fetch(dataset.sources, tmp_path / "into", tmp_path))
    assert not {f.name for f in dataset.fields} & set(dataset.forbidden)
    assert tables.groups.filter(pl.col("history_time") >= pl.col("time")).is_empty()
    assert (tables.groups["history_time"].is_null() == (tables.groups["history"].list.len() == 0)).all()
    assert tables.items["text"].null_count() == 1 and tables.groups["interest"].is_in([*CATEGORIES, None]).all()
