"""The rows of a table by what multi-task papers report over tasks, and by what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import scipy  # loads its parts when they are first used

from bench.leaderboard.columns import BASELINE, YARDSTICKS, Comparison, common, larger, shared
from bench.leaderboard.grouping import Entry, Task
from bench.leaderboard.tables import Cell, Table, short
from bench.metrics.multitask import delta_m, oracle_share
from bench.statistics.intervals import mean_interval

Cells = Mapping[Task, Sequence[Cell]]  # of the column of each task, a cell for each row

DELTA, WORST, WORSE, RANK, SHARE = "Δm %", "worst task", "worse", "mean rank", "of oracle"
COSTS = {  # column: entry of a record's cost, form
    "fit s": ("fit_s", ",.1f"),
    "trained": ("trained", ",.0f"),
    "trials": ("tuning_trials", ",.0f"),
    "tuning s": ("tuning_s", ",.0f"),
}
BLANK = Cell("")
LEGEND = {  # by column
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


def over_tasks(compared: Comparison, title: str, cells: Cells) -> Table | None:
    """The table of a comparison's rows over tasks; none without rows. A column without any value is left out."""
    columns = {}
    if compared.baseline is not None:
        base = compared.baseline
        rows = [None if e is base or e.kind in YARDSTICKS else e for e in compared.entries]
        columns = {
            DELTA: [_delta(compared, i, cells) if entry else BLANK for i, entry in enumerate(rows)],
            WORST: [_worst(compared, entry, base) if entry else BLANK for entry in rows],
            WORSE: [_worse(compared, i, cells) if entry else BLANK for i, entry in enumerate(rows)],
        }
    columns |= {RANK: _ranks(compared, cells), SHARE: _shares(compared)}
    columns |= {name: [_cost(entry, *cost) for entry in compared.entries] for name, cost in COSTS.items()}
    shown = {name: column for name, column in columns.items() if any(cell.value is not None for cell in column)}
    own = tuple(row for row in compared.rows(*shown.values()) if row.kind not in YARDSTICKS)
    title = f"{title}: over tasks, and costs"
    return Table(compared.group.key["dataset"], title, "", ("method", *shown), own) if own else None


def _delta(compared: Comparison, row: int, cells: Cells) -> Cell:
    up = {f"{task.name} {task.metric}": larger(task) for task in cells}
    own, base = ([column[i].seeds for column in cells.values()] for i in (row, _base(compared)))

    def at(seed: int, series: Sequence[Mapping[int, float]]) -> dict[str, float]:
        return {name: values[seed] for name, values in zip(up, series, strict=True)}

    found = {seed: delta_m(at(seed, own), at(seed, base), up) for seed in shared([*own, *base])}
    values = {seed: value for seed, value in found.items() if value is not None}
    if not values:
        return Cell()
    centre, half = mean_interval(list(values.values()))
    return Cell(f"{centre:+z.2f}" + ("" if half is None else f" ± {half:.2f}"), centre, half, values)


def _worst(compared: Comparison, entry: Entry, base: Entry) -> Cell:
    found = [(common(column.series(entry), column.series(base)), column.header) for column in compared.skills]
    gains = [(difference.mean, task) for difference, task in found if difference is not None]
    if not gains or len(gains) < len(found):
        return Cell()
    least, task = min(gains)
    return Cell(f"{short(f'{least:+z.4f}')} {task}", least)


def _worse(compared: Comparison, row: int, cells: Cells) -> Cell:
    """Negative transfer: the share of (task, seed) pairs that lose."""
    at = _base(compared)
    losses: list[bool] = []
    stars = 0
    for task, column in cells.items():
        sign, own, base = 1 if larger(task) else -1, column[row], column[at].seeds
        losses += [sign * (value - base[seed]) < 0 for seed, value in own.seeds.items() if seed in base]
        stars += own.star and own.difference is not None and sign * own.difference.mean < 0
    if not losses:
        return Cell()
    return Cell(f"{sum(losses)}/{len(losses)}" + (f" ({stars})" if stars else ""), sum(losses) / len(losses))


def _base(compared: Comparison) -> int:
    return next(i for i, entry in enumerate(compared.entries) if entry is compared.baseline)


def _ranks(compared: Comparison, cells: Cells) -> list[Cell]:
    found = [Cell()] * len(compared.entries)
    rivals = [i for i, entry in enumerate(compared.entries) if entry.kind == "competitor"]
    whole = [i for i in rivals if all(column[i].value is not None for column in cells.values())]
    if whole and cells:
        values = [[(-1 if larger(t) else 1) * (column[i].value or 0.0) for i in whole] for t, column in cells.items()]
        for i, rank in zip(whole, scipy.stats.rankdata(values, axis=1).mean(axis=0).tolist(), strict=True):
            found[i] = Cell(f"{rank:.1f}", rank)
    return found


def _shares(compared: Comparison) -> list[Cell]:
    totals = [cell.value for cell in compared.total_cells]
    oracle = next((v for e, v in zip(compared.entries, totals, strict=True) if e.kind == "oracle"), None)
    shares = [None if value is None or oracle is None else oracle_share(value, 0.0, oracle) for value in totals]
    return [Cell() if share is None else Cell(f"{100 * share:.1f} %", share) for share in shares]


def _cost(entry: Entry, name: str, form: str) -> Cell:
    values = {seed: run.cost[name] for seed, run in entry.runs.items() if name in run.cost}
    if not values or (name.startswith("tuning") and not entry.tuned):
        return Cell()
    return Cell(f"{fmean(values.values()):{form}}", fmean(values.values()), seeds=values)
