"""Published claims as declared tests: what is claimed, of which rows and data sets (docs/claims.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.leaderboard.selection import Selector
from bench.storage.yaml_reader import Reader, at

PATH = Path(__file__).with_name("claims.yaml")
MOST = 100  # seeds that are still worth a command
TESTS = ("better", "not worse", "equivalent")
HOLDS = ("everywhere", "somewhere")
PARTS = ("test", "cold_item", "cold_user")
NEEDED = ("claim", "source", "test", "margin", "rows", "datasets", "refuted")
OPTIONAL = ("tasks", "part", "holds", "note")


@dataclass(frozen=True)
class Claim:
    """What is claimed of the pairs of rows (A, B), and when it counts as shown.

    test, with d = mean over seeds of A - B in skill: ``better``: d > margin; ``not worse``: d > -margin;
    ``equivalent``: abs(d) < margin. tasks: None for the mean over tasks, () for each task by itself, or names.
    part: the test part, or a slice of it. holds: for all pairs, data sets and tasks, or for at least one of them.
    """

    name: str
    claim: str
    source: str
    test: str
    margin: float
    pairs: tuple[tuple[Selector, Selector], ...]
    datasets: tuple[str, ...]
    refuted: str  # in words: what would refute it
    tasks: tuple[str, ...] | None = None
    part: str = "test"
    holds: str = "everywhere"
    note: str = ""


def declared(path: Path = PATH) -> list[Claim]:
    """The claims of a file. Raises BenchError with file and line of what is wrong."""
    reader = Reader(path, "claims, see docs/claims.md")
    with reader.whole_file():
        return [_claim(reader, name, node) for name, node in reader.parts(reader.root, "the claims").items()]


def _claim(reader: Reader, name: str, node: Any) -> Claim:
    parts = reader.parts(node, name, (*NEEDED, *OPTIONAL), NEEDED)

    def word(key: str, known: Sequence[str]) -> str:
        return reader.word(parts[key], key, known) if key in parts else known[0]

    def texts(key: str) -> tuple[str, ...]:
        return tuple(reader.text(item, key) for item in reader.items(parts[key], key))

    margin = reader.value(parts["margin"])
    if not isinstance(margin, (int, float)) or isinstance(margin, bool) or not margin > 0:
        raise reader.wrong(parts["margin"], "margin", "a positive difference in skill")
    pairs = []
    for item in reader.items(parts["rows"], "rows"):
        names = [reader.text(side, "rows") for side in reader.items(item, "rows")]
        if len(names) != 2:
            raise reader.wrong(item, "rows", "two rows, A and B")
        with at(reader.place(item)):
            pairs.append((Selector.of(names[0]), Selector.of(names[1])))
    each = "tasks" in parts and reader.value(parts["tasks"]) == "each"
    return Claim(
        name, reader.text(parts["claim"], "claim"), reader.text(parts["source"], "source"), word("test", TESTS),
        float(margin), tuple(pairs), texts("datasets"), reader.text(parts["refuted"], "refuted"),
        () if each else texts("tasks") if "tasks" in parts else None, word("part", PARTS), word("holds", HOLDS),
        reader.text(parts["note"], "note") if "note" in parts else "",
    )  # fmt: skip
