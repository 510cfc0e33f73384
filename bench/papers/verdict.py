"""Published against reproduced: each figure's difference, its verdict, and what selection on the test part gains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from bench.errors import unknown
from bench.metrics import METRICS
from bench.papers.plan import Job
from bench.papers.table import NO_METHOD, Paper, PublishedColumn, PublishedRow, Statement
from bench.spec import CLEAN, PAPER
from bench.statistics.intervals import mean_interval

Record = Mapping[str, Any]
WITHIN, OUTSIDE, NOT_COMPARABLE = "within tolerance", "outside", "not comparable"
CONFIRMED, REFUTED, UNDECIDED = "confirmed", "refuted", "undecided"


@dataclass(frozen=True)
class Measured:
    """Values by seed, their mean, and the half-width of its 95 % Student t interval (None for one seed)."""

    mean: float
    half_width: float | None
    seeds: dict[int, float]


@dataclass(frozen=True)
class JudgedFigure:
    """One figure. reproduced: in the protocol of the publication; clean: selected on validation. difference: reproduced
    - published. bias: reproduced - clean over the seeds that both have. why: for a verdict that is no comparison, in a
    word and in a sentence."""

    row: str
    column: str
    published: float | None
    reproduced: Measured | None
    difference: float | None
    clean: Measured | None
    bias: float | None
    verdict: str
    why: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class JudgedStatement:
    """One claim: the value of its sum in both protocols, and the verdict on the published one."""

    text: str
    above: float
    reproduced: Measured | None
    clean: Measured | None
    verdict: str
    why: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Report:
    """A table, reproduced."""

    paper: Paper
    cells: tuple[JudgedFigure, ...]
    findings: tuple[JudgedStatement, ...]


def compare(
    paper: Paper,
    rows: Sequence[PublishedRow],
    jobs: Sequence[Job],
    records: Mapping[str, Record],
    missing: Mapping[str, str],
) -> Report:
    """Sets the figures of rows beside their records. records: by key of their spec. missing: data sets that cannot be
    had here, and what is to be done."""
    return _Comparison(paper, jobs, records, missing).report(rows)


class _Comparison:
    def __init__(
        self, paper: Paper, jobs: Sequence[Job], records: Mapping[str, Record], missing: Mapping[str, str]
    ) -> None:
        self.paper, self.missing = paper, missing
        self.jobs = {(job.row.name, job.data): job for job in jobs}
        self.records = records
        self.rows = {row.name: row for row in paper.rows}
        self.columns = {column.name: column for column in paper.columns}

    def report(self, rows: Sequence[PublishedRow]) -> Report:
        places = [(row, i) for row in rows for i in range(len(self.paper.columns))]
        cells = [cell for row, i in places if (cell := self.cell(row, i)) is not None]
        shown = {row.name for row in rows}
        claims = [c for c in self.paper.claims if all(name in shown for name, _, _ in c.terms)]
        return Report(self.paper, tuple(cells), tuple(self.finding(claim) for claim in claims))

    def cell(self, row: PublishedRow, i: int) -> JudgedFigure | None:
        """None where nothing was published and nothing measured."""
        column, published = self.paper.columns[i], row.figures[i]
        clean = self.measured(row, column, CLEAN)
        paper = self.measured(row, column, PAPER) if self.faulty else clean
        if published is None and paper is None:
            return None
        why = self.obstacle(row, column)
        difference = paper.mean - published if paper is not None and published is not None else None
        bias = self.bias(paper, clean) if self.faulty else None
        if why is not None:
            return JudgedFigure(row.name, column.name, published, paper, difference, clean, bias, NOT_COMPARABLE, why)
        if published is None or difference is None or column.tolerance is None:
            return JudgedFigure(row.name, column.name, published, paper, difference, clean, bias, "")
        # A figure is rounded: what is at the edge of the tolerance lies within.
        verdict = WITHIN if abs(difference) <= column.tolerance.within + 1e-9 else OUTSIDE
        return JudgedFigure(row.name, column.name, published, paper, difference, clean, bias, verdict)

    @property
    def faulty(self) -> bool:
        """The publication's protocol is another than the clean one."""
        return self.paper.protocol.selection != "validation"

    def obstacle(self, row: PublishedRow, column: PublishedColumn) -> tuple[str, str] | None:
        """Why this cell cannot be judged, in a word and in a sentence; None if it can."""
        if not row.method:
            return NO_METHOD, row.note or "it is kept as data"
        if not column.metric:
            return "no such figure here", column.not_comparable
        if column.data in self.missing:
            return "no data", self.missing[column.data]
        job = self.jobs.get((row.name, column.data))
        if job is not None and job.problem:
            return "no language model", job.problem
        records = self.of(row, column, CLEAN) + self.of(row, column, PAPER)
        part = self.paper.parts[column.data]
        low, high = part.rows
        for record in records:
            rows = sum(record["data"]["rows"].values())
            if not low <= rows <= high:
                wanted = f"{low:,}" if low == high else f"{low:,} to {high:,}"
                return "fixture", f"{part.dataset} has {rows:,} rows here; the published set has {wanted}"
        if column.not_comparable:
            return "other metric", column.not_comparable
        bad = [r for r in records if r["status"] != "ok"]
        if bad:
            which = f"{row.name} on {part.dataset}, seed {bad[0]['spec']['seed']}"
            return str(bad[0]["status"]), f"{which}: {bad[0]['error']}"
        if not records:
            return "not run", "there is no record"
        if self.measured(row, column, PAPER if self.faulty else CLEAN) is None:
            return "undefined", f"{column.metric} of {' and '.join(column.tasks)} is undefined on these test rows"
        return None

    def of(self, row: PublishedRow, column: PublishedColumn, protocol: str) -> list[Record]:
        job = self.jobs.get((row.name, column.data))
        specs = job.specs.get(protocol, ()) if job is not None else ()
        return [self.records[spec.key] for spec in specs if spec.key in self.records]

    def measured(self, row: PublishedRow, column: PublishedColumn, protocol: str) -> Measured | None:
        values = {}
        for record in self.of(row, column, protocol) if column.metric else ():
            found = value(record, column) if record["status"] == "ok" else None
            if found is not None:
                values[int(record["spec"]["seed"])] = found
        return _measured(values)

    def bias(self, paper: Measured | None, clean: Measured | None) -> float | None:
        common = sorted(paper.seeds.keys() & clean.seeds.keys()) if paper is not None and clean is not None else []
        if paper is None or clean is None or not common:
            return None
        return mean(paper.seeds[seed] - clean.seeds[seed] for seed in common)

    def finding(self, claim: Statement) -> JudgedStatement:
        """Confirmed if the interval lies above the bound, refuted if it lies below or ends there, else undecided."""
        clean = self.contrast(claim, CLEAN)
        found = self.contrast(claim, PAPER) if self.faulty else clean
        reasons = [self.obstacle(self.rows[r], self.columns[c]) for r, c, _ in claim.terms]
        why = next((reason for reason in reasons if reason is not None), None)
        if why is not None or found is None:
            why = why or ("not run", "its rows have no seed in common")
            return JudgedStatement(claim.text, claim.above, found, clean, NOT_COMPARABLE, why)
        if found.half_width is None:
            verdict = UNDECIDED
        elif found.mean - found.half_width > claim.above:
            verdict = CONFIRMED
        else:
            verdict = REFUTED if found.mean + found.half_width <= claim.above else UNDECIDED
        return JudgedStatement(claim.text, claim.above, found, clean, verdict)

    def contrast(self, claim: Statement, protocol: str) -> Measured | None:
        terms = [(self.measured(self.rows[r], self.columns[c], protocol), weight) for r, c, weight in claim.terms]
        known = [set(found.seeds) if found is not None else set() for found, _ in terms]
        common = sorted(set.intersection(*known))
        return _measured({s: sum(weight * found.seeds[s] for found, weight in terms if found) for s in common})


def _measured(values: dict[int, float]) -> Measured | None:
    return Measured(*mean_interval(list(values.values())), values) if values else None


def value(record: Record, column: PublishedColumn) -> float | None:
    """The column's value of one run: the mean over its tasks; None if one is undefined."""
    found = [of_task(record, task, column.metric) for task in column.tasks]
    known = [v for v in found if v is not None]
    return mean(known) if len(known) == len(found) else None


def of_task(record: Record, task: str, metric: str) -> float | None:
    """A test metric of one run. ``excess_mse``: rmse^2 less that of the oracle, of simulated data alone. Raises
    BenchError for a metric that is none."""
    if metric in METRICS:
        found: float | None = record["metrics"]["test"].get(task, {}).get(metric)
        return found
    if metric not in DERIVED:
        raise unknown("metric", metric, [*METRICS, *DERIVED])
    return DERIVED[metric](record, task)


def _excess_mse(record: Record, task: str) -> float | None:
    own, oracle = of_task(record, task, "rmse"), record["references"].get("oracle", {}).get("test", {}).get(task)
    return own**2 - float(oracle["rmse"]) ** 2 if own is not None and oracle else None


DERIVED: dict[str, Callable[[Record, str], float | None]] = {"excess_mse": _excess_mse}
