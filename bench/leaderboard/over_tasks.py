"""The rows of a table by what multi-task papers report over tasks, and by what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import scipy  # loads its parts when they are first used

from bench.leaderboard.columns import Comparison, common, larger, shared
from bench.leaderboard.grouping import RowRuns
from bench.leaderboard.tables import Cell, Header, Table
from bench.leaderboard.terms import BASELINE, COSTS, DELTA, OVER_TASKS, RANK, YARDSTICKS, Cost, Task
from bench.markup import plus_minus, short
from bench.metrics.multitask import delta_m
from bench.statistics.intervals import mean_interval

Cells = Mapping[Task, Cell]  # of one row

WORST, WORSE, SHARE = "worst task", "worse", "of oracle"
BLANK = Cell("")
COLUMNS_EXPLAINED = {  # by column
    DELTA: f"Δm %: mean over tasks of the change of the metric relative to {BASELINE} in percent, a fall of an error "
    "counting as a gain; mean over common seeds and its 95 % interval.",
    WORST: f"worst task: the task with the lowest mean difference to {BASELINE}, in skill.",
    WORSE: f"worse: on how many pairs of task and seed the row is worse than {BASELINE}; in brackets, on how many "
    "tasks with a star.",
    RANK: "mean rank: over tasks, among the competitors with a value for each; 1 is best.",
    SHARE: "of oracle: mean skill as a share of the oracle's.",
    "fit s": "fit s: mean seconds to fit; trained: parameters trained.",
    "trials": "tuned: with the settings of the best of so many trials by mean skill on validation; tuning s: their "
    "seconds.",
}


def over_tasks(compared: Comparison, title: str, columns: Mapping[Task, Sequence[Cell]]) -> Table | None:
    """The table of a comparison's rows over tasks, from the cells of each task's column; none without rows. A column
    without any value is left out."""
    entries, base = compared.entries, compared.baseline
    rows = [{task: column[i] for task, column in columns.items()} for i in range(len(entries))]
    found: dict[str, list[Cell]] = {}
    if base is not None:
        beside = rows[entries.index(base)]
        rivals = [None if e is base or e.kind in YARDSTICKS else (e, row) for e, row in zip(entries, rows, strict=True)]
        found = {
            DELTA: [_delta(rival[1], beside) if rival else BLANK for rival in rivals],
            WORST: [_worst(compared, rival[0], base) if rival else BLANK for rival in rivals],
            WORSE: [_worse(rival[1], beside) if rival else BLANK for rival in rivals],
        }
    found |= {RANK: _ranks(entries, rows), SHARE: _shares(compared)}
    found |= {name: [_cost(entry, cost) for entry in entries] for name, cost in COSTS.items()}
    shown = {name: column for name, column in found.items() if any(cell.value is not None for cell in column)}
    own = tuple(row for row in compared.rows(*shown.values()) if row.kind not in YARDSTICKS)
    headers = (Header("method"), *(Header(name, plain=name in COSTS) for name in shown))
    title = f"{title}: over tasks, and costs"
    return Table(compared.group.key["dataset"], title, "", headers, own, part=OVER_TASKS) if own else None


def _delta(row: Cells, base: Cells) -> Cell:
    up = {task: larger(task) for task in row}
    seeds = shared([cell.seeds for cell in (*row.values(), *base.values())])

    def at(side: Cells, seed: int) -> dict[Task, float]:
        return {task: cell.seeds[seed] for task, cell in side.items()}

    found = {seed: delta_m(at(row, seed), at(base, seed), up) for seed in seeds}
    values = {seed: value for seed, value in found.items() if value is not None}
    if not values:
        return Cell()
    centre, half = mean_interval(list(values.values()))
    return Cell(f"{centre:+z.2f}{plus_minus(half, 2)}", centre, half, values)


def _worst(compared: Comparison, entry: RowRuns, base: RowRuns) -> Cell:
    found = [(common(column.series(entry), column.series(base)), column.header.name) for column in compared.skills]
    losses = [(difference.mean, task) for difference, task in found if difference is not None]
    if not losses or len(losses) < len(found):
        return Cell()
    least, task = min(losses)
    return Cell(f"{short(f'{least:+z.4f}')} {task}", least)


def _worse(row: Cells, base: Cells) -> Cell:
    """Negative transfer: the share of (task, seed) pairs that lose."""
    losses: list[bool] = []
    stars = 0
    for task, own in row.items():
        sign, other = 1 if larger(task) else -1, base[task].seeds
        losses += [sign * (value - other[seed]) < 0 for seed, value in own.seeds.items() if seed in other]
        stars += own.star and own.difference is not None and sign * own.difference.mean < 0
    if not losses:
        return Cell()
    return Cell(f"{sum(losses)}/{len(losses)}" + (f" ({stars})" if stars else ""), sum(losses) / len(losses))


def _ranks(entries: Sequence[RowRuns], rows: Sequence[Cells]) -> list[Cell]:
    found = [Cell()] * len(rows)
    rivals = [i for i, entry in enumerate(entries) if entry.kind == "competitor"]
    whole = [i for i in rivals if rows[i] and all(cell.value is not None for cell in rows[i].values())]
    if whole:
        values = [[(-1 if larger(t) else 1) * (c.value or 0.0) for t, c in rows[i].items()] for i in whole]
        for i, rank in zip(whole, scipy.stats.rankdata(values, axis=0).mean(axis=1).tolist(), strict=True):
            found[i] = Cell(f"{rank:.1f}", rank)
    return found


def _shares(compared: Comparison) -> list[Cell]:
    totals = [cell.value for cell in compared.total_cells]
    oracle = next((v for e, v in zip(compared.entries, totals, strict=True) if e.kind == "oracle"), None)
    shares = [value / oracle if value is not None and oracle else None for value in totals]
    return [Cell() if share is None else Cell(f"{100 * share:.1f} %", share) for share in shares]


def _cost(entry: RowRuns, cost: Cost) -> Cell:
    values = {seed: run.cost[cost.entry] for seed, run in entry.runs.items() if cost.entry in run.cost}
    if not values or (cost.entry.startswith("tuning") and not entry.tuned):
        return Cell()
    return Cell(f"{fmean(values.values()):{cost.form}}", fmean(values.values()), seeds=values)
