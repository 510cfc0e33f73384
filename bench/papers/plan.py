"""What a paper table takes: its runs in the published protocol and in the clean one beside it, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.papers.table import Paper, PublishedRow
from bench.spec import CLEAN, PAPER
from bench.storage.yaml_reader import at

if TYPE_CHECKING:
    from bench.spec import Spec

# A publication that does not say how it selected is taken at its worst; one that selects on validation is clean.
BY_SELECTION = {"test": (PAPER, CLEAN), "unknown": (PAPER, CLEAN), "validation": (CLEAN,)}


@dataclass(frozen=True)
class Job:
    """The runs of a row on one data set: by protocol, one for each seed. problem: why there are none."""

    row: PublishedRow
    data: str
    specs: dict[str, tuple[Spec, ...]]
    problem: str = ""


@dataclass(frozen=True)
class Cost:
    """What a job takes at most. seconds: of all its runs, by measured rows a second; None where nothing alike has run.
    like: what was measured."""

    runs: int
    rows: int  # of all runs and epochs
    seconds: float | None
    like: str


def jobs(paper: Paper, rows: Sequence[PublishedRow], seeds: int | None = None) -> list[Job]:
    """The runs of the rows that have a method here, on every data set of which they have a figure.

    Raises BenchError with file and line for a method or setting that does not exist.
    """
    found = []
    for row in rows:
        given = [c.data for c, figure in zip(paper.columns, row.figures, strict=True) if figure is not None]
        of = [c.data for c in paper.columns if c.data and (c.data in given or not given)]
        for data in dict.fromkeys(of if row.method else ()):
            with at(row.place):
                found.append(_job(paper, row, data, seeds or paper.seeds))
    return found


def _job(paper: Paper, row: PublishedRow, data: str, seeds: int) -> Job:
    from bench.suites.specify import specify
    from bench.text.models import identity

    part, settings = paper.parts[data], {**paper.settings, **row.settings}
    try:
        if "lm" in settings:
            settings["lm"] = identity(settings["lm"])
    except BenchError as error:
        return Job(row, data, {}, str(error))
    specs = []
    for seed in range(seeds):
        knobs = {**part.knobs, **({part.redraw: seed} if part.redraw else {})}
        specs.append(specify(part.dataset, row.method, given=settings, knobs=knobs, seed=seed, budget=paper.budget))
    protocols = BY_SELECTION[paper.protocol.selection]
    return Job(row, data, {p: tuple(replace(spec, protocol=p) for spec in specs) for p in protocols})


def cost(paper: Paper, job: Job, records: Iterable[Mapping[str, Any]]) -> Cost:
    """What a job takes, if no run stops early. records: runs of any kind, for how fast the method is here."""
    specs = [spec for of in job.specs.values() for spec in of]
    most = paper.parts[job.data].rows[1]
    rows = sum(most * spec.budget["epochs"] for spec in specs)
    alike = [r for r in records if r["status"] == "ok" and r["spec"]["method"] == job.row.method]
    alike = [r for r in alike if r["cost"].get("rows_per_s")]
    same = [r for r in alike if r["spec"]["dataset"] == paper.parts[job.data].dataset] or alike
    if not same:
        return Cost(len(specs), rows, None, "")
    speed = mean(r["cost"]["rows_per_s"] for r in same)
    on = ", ".join(sorted({r["spec"]["dataset"] for r in same}))
    like = f"{speed:,.0f} rows/s, {len(same)} record{'s' if len(same) > 1 else ''} of {job.row.method} on {on}"
    return Cost(len(specs), rows, rows / speed, like)
