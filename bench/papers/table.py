"""Published tables as data: a YAML file each in this folder, named after the table (docs/papers.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bench.errors import BenchError, unknown
from bench.storage.yaml_reader import Reader

FOLDER = Path(__file__).parent
SELECTION = ("test", "validation", "unknown")
NO_METHOD = "no such method here"


@dataclass(frozen=True)
class Protocol:
    """How the publication came to its figures. selection: the part that chose the epoch (``unknown``: it does not say).
    runs: how many a figure is the mean of; None if unknown. notes: further facts, faults among them."""

    selection: str
    split: str
    runs: int | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """One of our data sets that some columns are of. rows: the fewest and most, over all parts, that the published set
    can have once it is prepared; anything else is a fixture. redraw: the knob that takes each run's seed, where a
    publication simulates its data anew for each run; empty if all runs share them."""

    dataset: str
    knobs: dict[str, Any]
    rows: tuple[int, int]
    redraw: str = ""


@dataclass(frozen=True)
class Tolerance:
    """The largest difference that counts as reproduced, and its reason."""

    within: float
    why: str


@dataclass(frozen=True)
class PublishedColumn:
    """One metric. tasks: of several, their mean. Without a metric there is nothing here to set beside the figures.
    not_comparable: why no difference can be judged; empty if it can."""

    name: str
    data: str = ""
    tasks: tuple[str, ...] = ()
    metric: str = ""
    tolerance: Tolerance | None = None
    not_comparable: str = ""


@dataclass(frozen=True)
class PublishedRow:
    """One published method. method: ours; empty if there is none. note: how ours differs, or where the row is from.
    figures: one for each column, None where nothing was published. ``place``: file and line."""

    name: str
    figures: tuple[float | None, ...]
    method: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    place: str = field(default="", compare=False)


@dataclass(frozen=True)
class Statement:
    """What a publication says without a figure: that sum_i weight_i value(row_i, column_i) lies above ``above``."""

    text: str
    above: float
    terms: tuple[tuple[str, str, float], ...]


@dataclass(frozen=True)
class Paper:
    """A published table. budget, settings: of all rows, a row's own settings come on top. unknown: what the publication
    does not say; our defaults stand in. differs: what is done otherwise here. seeds: runs made here by default."""

    name: str
    title: str
    source: dict[str, str]
    data: str
    protocol: Protocol
    unknown: tuple[str, ...]
    differs: tuple[str, ...]
    seeds: int
    budget: dict[str, int]
    settings: dict[str, Any]
    parts: dict[str, Part]
    columns: tuple[PublishedColumn, ...]
    rows: tuple[PublishedRow, ...]
    claims: tuple[Statement, ...]

    @property
    def cells(self) -> int:
        """How many figures were published."""
        return sum(figure is not None for row in self.rows for figure in row.figures)

    def chosen(self, names: Iterable[str]) -> list[PublishedRow]:
        """The rows of these names, upper or lower case; all if there are none. Raises BenchError for an unknown one."""
        known = {row.name.lower(): row for row in self.rows}
        wanted = [name.strip().lower() for name in names]
        for name in wanted:
            if name not in known:
                raise unknown(f"row of {self.name}", name, known)
        return [row for row in self.rows if not wanted or row.name.lower() in wanted]


def paths() -> dict[str, Path]:
    """The files of the tables by name."""
    return {p.stem: p for p in sorted(FOLDER.glob("*.yaml"))}


def load(name: str) -> Paper:
    """A table by name, or the one in a file whose name ends in .yaml or .yml. Names of methods and settings are not
    looked up yet. Raises BenchError with the file, line and key of what is wrong."""
    known = paths()
    if name not in known and Path(name).suffix not in (".yaml", ".yml"):
        raise unknown("paper table", name, known)
    file = _File(known.get(name, Path(name)), "a title, a source, columns and rows, see docs/papers.md")
    with file.whole_file():
        return file.paper(file.root)


NEEDED = ("title", "source", "data", "protocol", "seeds", "budget", "datasets", "columns", "rows")
OPTIONAL = ("unknown", "differs", "settings", "tolerances", "claims")


class _File(Reader):
    """Reads a table."""

    def paper(self, node: yaml.Node) -> Paper:
        parts = self.parts(node, "a table", (*NEEDED, *OPTIONAL), NEEDED)
        own = {name: self.part(of, name) for name, of in self.parts(parts["datasets"], "datasets").items()}
        tolerances = {
            name: self.tolerance(of, name)
            for name, of in (self.parts(parts["tolerances"], "tolerances") if "tolerances" in parts else {}).items()
        }
        columns = [self.column(of, own, tolerances) for of in self.items(parts["columns"], "columns")]
        self.once(parts["columns"], [c.name for c in columns])
        rows = [self.row(of, columns) for of in self.items(parts["rows"], "rows")]
        self.once(parts["rows"], [r.name.lower() for r in rows])
        claims = self.items(parts["claims"], "claims") if "claims" in parts else []
        return Paper(
            name=self.path.stem,
            title=self.text(parts["title"], "title"),
            source=self.source(parts["source"]),
            data=self.text(parts["data"], "data"),
            protocol=self.protocol(parts["protocol"]),
            unknown=self.texts(parts, "unknown"),
            differs=self.texts(parts, "differs"),
            seeds=self.whole(parts["seeds"], "seeds"),
            budget=self.budget(parts["budget"]),
            settings=self.settings(parts["settings"], "settings") if "settings" in parts else {},
            parts=own,
            columns=tuple(columns),
            rows=tuple(rows),
            claims=tuple(self.claim(of, rows, columns) for of in claims),
        )

    def once(self, node: yaml.Node, names: list[str]) -> None:
        for name in names:
            if names.count(name) > 1:
                raise BenchError(f"{self.place(node)}: '{name}' is there twice; leave one out")

    def texts(self, parts: Mapping[str, yaml.Node], key: str) -> tuple[str, ...]:
        return tuple(self.text(item, key) for item in self.items(parts[key], key)) if key in parts else ()

    def source(self, node: yaml.Node) -> dict[str, str]:
        keys = ("who", "where", "version")
        parts = self.parts(node, "source", keys, keys)
        return {key: self.text(parts[key], key) for key in keys}

    def protocol(self, node: yaml.Node) -> Protocol:
        keys = ("selection", "split", "runs")
        parts = self.parts(node, "protocol", (*keys, "notes"), keys)
        many = self.value(parts["runs"]) != "unknown"
        return Protocol(
            self.word(parts["selection"], "selection", SELECTION),
            self.text(parts["split"], "split"),
            self.whole(parts["runs"], "runs") if many else None,
            self.texts(parts, "notes"),
        )

    def part(self, node: yaml.Node, name: str) -> Part:
        parts = self.parts(node, name, ("dataset", "knobs", "rows", "redraw"), ("dataset", "rows"))
        rows = [self.whole(item, "rows") for item in self.items(parts["rows"], "rows")]
        if len(rows) != 2 or rows[0] > rows[1]:
            raise self.wrong(parts["rows"], "rows", "the fewest and the most, such as [299285, 299285]")
        knobs = self.settings(parts["knobs"], "knobs") if "knobs" in parts else {}
        redraw = self.text(parts["redraw"], "redraw") if "redraw" in parts else ""
        return Part(self.text(parts["dataset"], "dataset"), knobs, (rows[0], rows[1]), redraw)

    def tolerance(self, node: yaml.Node, name: str) -> Tolerance:
        parts = self.parts(node, name, ("within", "why"), ("within", "why"))
        within = self.number(parts["within"], "within")
        if not within > 0:
            raise self.wrong(parts["within"], "within", "a number above 0")
        return Tolerance(within, self.text(parts["why"], "why"))

    def column(self, node: yaml.Node, own: Mapping[str, Part], tolerances: Mapping[str, Tolerance]) -> PublishedColumn:
        keys = ("data", "task", "metric")
        parts = self.parts(node, "a column", ("name", *keys, "tolerance", "not_comparable"), ["name"])
        name = self.text(parts["name"], "name")
        why = self.text(parts["not_comparable"], "not_comparable") if "not_comparable" in parts else ""
        if not set(keys) & parts.keys():
            if not why:
                raise BenchError(f"{self.place(node)}: column '{name}': give data, task and metric, or not_comparable")
            return PublishedColumn(name, not_comparable=why)
        self.parts(node, "a column", needed=keys)
        several = isinstance(parts["task"], yaml.SequenceNode)
        tasks = self.items(parts["task"], "task") if several else [parts["task"]]
        return PublishedColumn(
            name,
            self.word(parts["data"], "data", own),
            tuple(self.text(task, "task") for task in tasks),
            self.text(parts["metric"], "metric"),
            tolerances[self.word(parts["tolerance"], "tolerance", tolerances)] if "tolerance" in parts else None,
            why,
        )

    def row(self, node: yaml.Node, columns: list[PublishedColumn]) -> PublishedRow:
        keys = ("name", "method", "settings", "note", "figures")
        parts = self.parts(node, "a row", keys, ("name", "figures"))
        name = self.text(parts["name"], "name")
        if "," in name:
            raise BenchError(f"{self.place(node)}: row '{name}': a name holds no comma, which parts names in --rows")
        items = self.items(parts["figures"], "figures")
        if len(items) != len(columns):
            counted = f"{len(columns)} figures, one for each column (null where none was published)"
            raise BenchError(f"{self.place(parts['figures'])}: row '{name}': expected {counted}, got {len(items)}")
        figures = [None if self.value(item) is None else self.number(item, "figures") for item in items]
        for column, figure in zip(columns, figures, strict=True):
            if figure is not None and column.tolerance is None and not column.not_comparable:
                why = f"column '{column.name}' has a figure, and no tolerance to judge it by"
                raise BenchError(f"{self.place(node)}: row '{name}': {why}")
        return PublishedRow(
            name,
            tuple(figures),
            self.text(parts["method"], "method") if "method" in parts else "",
            self.settings(parts["settings"], "settings") if "settings" in parts else {},
            self.text(parts["note"], "note") if "note" in parts else "",
            self.place(node),
        )

    def claim(self, node: yaml.Node, rows: list[PublishedRow], columns: list[PublishedColumn]) -> Statement:
        keys = ("text", "above", "terms")
        parts = self.parts(node, "a claim", keys, keys)
        terms = []
        for item in self.items(parts["terms"], "terms"):
            term = self.parts(item, "a term", words := ("row", "column", "weight"), words)
            row = self.word(term["row"], "row", [r.name for r in rows])
            column = self.word(term["column"], "column", [c.name for c in columns])
            terms.append((row, column, self.number(term["weight"], "weight")))
        return Statement(self.text(parts["text"], "text"), self.number(parts["above"], "above"), tuple(terms))

    def number(self, node: yaml.Node, what: str) -> float:
        value = self.value(node)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self.wrong(node, what, "a number")
        return float(value)
