"""Measures over tasks and over data sets: what multi-task papers report, what it costs, and the overall table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, trim_mean

from bench.columns import BASELINE, YARDSTICKS, Comparison, common, larger
from bench.gains import delta_m, oracle_share
from bench.labels import named
from bench.runs import Entry, Task
from bench.stats import friedman, mean_interval
from bench.tables import COSTS, Cell, Row, Table, short

DELTA, WORST, NEGATIVE, RANK, SHARE = "Δm %", "worst task", "worse", "mean rank", "of oracle"
SKILL, IQM = "skill", "IQM"
RESAMPLES = 1000
BLANK = Cell("")

LEGEND = {  # by column
    DELTA: f"Δm %: mean over tasks of the relative change of the metric against {BASELINE}, in percent, a fall of an error "
    "counting as a gain; mean over common seeds and its 95 % interval.",
    WORST: f"worst task: the task with the lowest mean difference to {BASELINE}, in skill.",
    NEGATIVE: f"worse: on how many of the pairs of task and seed the row is worse than {BASELINE}; in brackets the tasks "
    "on which it is worse with a star.",
    RANK: "mean rank: over tasks, among the competitors with a value for each; 1 is best.",
    SHARE: "of oracle: mean skill as a share of the oracle's.",
    "fit s": "fit s: mean seconds to fit; trained: parameters trained.",
    "trials": "tuned: with the settings of the best of so many trials by mean skill on validation; tuning s: their "
    "seconds.",
}
OVERALL = (
    "Overall: methods with a result on every data set of one protocol and budget. A data set's column is the mean "
    f"difference in mean skill to {BASELINE}, with the star of its own table. IQM: mean of the middle half of the skills "
    "on all data sets and tasks (each a mean over seeds), with a 95 % interval from resampling seeds, stratified by data "
    "set and task.",
)


def over_tasks(compared: Comparison, title: str, cells: Mapping[Task, Sequence[Cell]]) -> Table | None:
    """The rows of a table by what they gain over all tasks and what they cost. ``cells``: of each task's column."""
    if not compared.entries:
        return None
    columns = {}
    if compared.baseline is not None:
        columns = {DELTA: _deltas(compared), WORST: _worst(compared), NEGATIVE: _negative(compared, cells)}
    columns |= {RANK: _ranks(compared, cells), SHARE: _shares(compared)}
    columns |= {name: [_cost(entry, name) for entry in compared.entries] for name in COSTS}
    shown = {name: column for name, column in columns.items() if any(cell.value is not None for cell in column)}
    if not any(entry.tuned for entry in compared.entries):
        shown = {name: column for name, column in shown.items() if name not in ("trials", "tuning s")}
    dataset = compared.group.key["dataset"]
    rows = tuple(row for row in compared.rows(*shown.values()) if row.kind not in YARDSTICKS)
    return Table(dataset, f"{title}: over tasks, and costs", "", ("method", *shown), rows)


def _others(compared: Comparison) -> list[Entry | None]:
    """The rows that are compared with the baseline, and none for the other rows."""
    return [None if e is compared.baseline or e.kind in YARDSTICKS else e for e in compared.entries]


def _deltas(compared: Comparison) -> list[Cell]:
    assert compared.baseline is not None
    base, up = compared.baseline.runs, {task: larger(task) for task in compared.tasks}

    def values(entry: Entry) -> dict[int, float]:
        tests = {seed: (run.parts["test"], base[seed].parts["test"]) for seed, run in entry.runs.items() if seed in base}
        return {s: delta_m(own, other, up) for s, (own, other) in tests.items() if own.keys() == other.keys() == up.keys()}

    return [BLANK if entry is None else _interval(values(entry)) for entry in _others(compared)]


def _interval(values: Mapping[int, float]) -> Cell:
    if not values:
        return Cell()
    centre, half = mean_interval(list(values.values()))
    return Cell(f"{centre:+z.2f}" + ("" if half is None else f" ± {half:.2f}"), centre, half, dict(values))


def _worst(compared: Comparison) -> list[Cell]:
    assert compared.baseline is not None
    base = {column.header: column.series(compared.baseline) for column in compared.skills}

    def cell(entry: Entry) -> Cell:
        found = {column.header: common(column.series(entry), base[column.header]) for column in compared.skills}
        least, task = min(((d.mean, name) for name, d in found.items() if d is not None), default=(None, ""))
        return Cell() if least is None or None in found.values() else Cell(f"{short(least)} {task}", least)

    return [BLANK if entry is None else cell(entry) for entry in _others(compared)]


def _negative(compared: Comparison, cells: Mapping[Task, Sequence[Cell]]) -> list[Cell]:
    assert compared.baseline is not None
    made = []
    for i, entry in enumerate(_others(compared)):
        if entry is None:
            made.append(BLANK)
            continue
        worse = pairs = stars = 0
        for task, column in cells.items():
            sign = 1 if larger(task) else -1
            base = column[compared.entries.index(compared.baseline)].seeds
            gains = [sign * (value - base[seed]) for seed, value in column[i].seeds.items() if seed in base]
            worse, pairs = worse + sum(gain < 0 for gain in gains), pairs + len(gains)
            stars += column[i].star and sum(gains) < 0
        text = f"{worse}/{pairs}" + (f" ({stars}*)" if stars else "")
        made.append(Cell(text, worse / pairs) if pairs else Cell())
    return made


def _ranks(compared: Comparison, cells: Mapping[Task, Sequence[Cell]]) -> list[Cell]:
    """Mean ranks of the competitors with a value on every task."""
    whole = [
        i for i, entry in enumerate(compared.entries)
        if entry.kind == "competitor" and all(column[i].value is not None for column in cells.values())
    ]  # fmt: skip
    values = [[(1 if larger(task) else -1) * (column[i].value or 0.0) for i in whole] for task, column in cells.items()]
    found = dict(zip(whole, rankdata(-np.array(values), axis=1).mean(axis=0), strict=True)) if whole and cells else {}
    return [Cell(f"{found[i]:.1f}", float(found[i])) if i in found else Cell() for i in range(len(compared.entries))]


def _shares(compared: Comparison) -> list[Cell]:
    totals = [cell.value for cell in compared.total_cells]
    oracle = next((v for e, v in zip(compared.entries, totals, strict=True) if e.kind == "oracle"), None)
    if not oracle:
        return [Cell()] * len(totals)
    shares = [None if value is None else oracle_share(value, 0.0, oracle) for value in totals]
    return [Cell() if share is None else Cell(f"{100 * share:.1f} %", share) for share in shares]


def _cost(entry: Entry, name: str) -> Cell:
    """The mean over runs of seconds to fit, parameters trained, and trials and seconds of tuning."""
    key, form = {
        "fit s": ("fit_s", ",.1f"), "trained": ("trained", ",.0f"), "trials": ("tuning_trials", ",.0f"),
        "tuning s": ("tuning_s", ",.0f"),
    }[name]  # fmt: skip
    values = {seed: run.cost[key] for seed, run in entry.runs.items() if key in run.cost}
    if not values or (key.startswith("tuning") and not entry.tuned):
        return Cell()
    return Cell(f"{fmean(values.values()):{form}}", fmean(values.values()), seeds=values)


def overall(compared: Sequence[tuple[str, Comparison]]) -> Iterator[Table]:
    """A table over data sets for each protocol and budget that has several. ``compared``: with the data set's title."""
    alike: dict[str, list[tuple[str, Comparison]]] = {}
    for title, comparison in compared:
        key = comparison.group.key
        alike.setdefault(f"{key['protocol']} {sorted(key['budget'].items())}", []).append((title, comparison))
    several = [some for _, some in sorted(alike.items()) if len(some) > 1]
    keys = [some[0][1].group.key for some in several]
    titles = named("Overall", [{"protocol": key["protocol"], **key["budget"]} for key in keys])
    for title, some in zip(titles, several, strict=True):
        table = _overall(title, some)
        if table is not None:
            yield table


def _overall(title: str, compared: Sequence[tuple[str, Comparison]]) -> Table | None:
    totals = [
        {entry.label: cell for entry, cell in zip(c.entries, c.total_cells, strict=True) if cell.value is not None}
        for _, c in compared
    ]
    rows = [[entry for entry in c.entries if entry.kind not in YARDSTICKS] for _, c in compared]
    by_label = [{entry.label: entry for entry in entries} for entries in rows]
    labels = [label for label in by_label[0] if all(label in total for total in totals)]
    if not labels:
        return None
    strata = {label: [s for own, (_, c) in zip(by_label, compared, strict=True) for s in _skills(c, own[label])] for label in labels}
    middle = dict(zip(labels, _middles([strata[label] for label in labels]), strict=True))
    kinds = {label: by_label[0][label].kind for label in labels}
    rivals = [label for label in labels if kinds[label] == "competitor"]
    ranks, notes = _friedman([[fmean(s) for s in strata[label]] for label in rivals])
    order = sorted(labels, key=lambda label: (kinds[label] != "competitor", -(middle[label].value or 0.0), label))
    made = [
        Row(
            label,
            kinds[label],
            {},
            {},
            (
                Cell(label),
                *(_difference(total[label]) for total in totals),
                middle[label],
                dict(zip(rivals, ranks, strict=True)).get(label, Cell()),
            ),
        )
        for label in order
    ]
    left = len({label for own in by_label for label in own} - set(labels))
    if left:
        notes.append(f"{left} rows of the tables have no result on some of these data sets and are left out.")
    titles = _apart([title for title, _ in compared], compared)
    caption = f"{len(compared)} data sets, {len(strata[labels[0]])} pairs of data set and task."
    return Table("", title, caption, ("method", *titles, IQM, RANK), tuple(made), tuple(notes))


def _apart(titles: Sequence[str], compared: Sequence[tuple[str, Comparison]]) -> list[str]:
    """Headers that differ: tables of one data set and knobs differ in version or content."""
    keys = [c.group.key for _, c in compared]
    return [
        title if titles.count(title) == 1 else f"{title} {key['dataset_version']} {key['data'][:8]}"
        for title, key in zip(titles, keys, strict=True)
    ]


def _skills(compared: Comparison, entry: Entry) -> list[list[float]]:
    return [list(column.series(entry).values()) for column in compared.skills]


def _difference(cell: Cell) -> Cell:
    """The difference of a cell to the baseline as a cell of its own."""
    found = cell.difference
    if found is None:
        return BLANK
    half = "" if found.half_width is None else f" ± {short(found.half_width, '.4f')}"
    return Cell(f"{short(found.mean)}{half}", found.mean, found.half_width, {}, None, cell.p, cell.star)


def _middles(rows: Sequence[Sequence[Sequence[float]]]) -> list[Cell]:
    """IQM over the means of each row's strata, and its percentile interval; all rows share the draws."""
    weights: dict[tuple[int, int], NDArray[np.float64]] = {}  # [RESAMPLES, seeds], of each stratum and number of seeds
    cells = []
    for strata in rows:
        means = np.empty((RESAMPLES, len(strata)))
        for i, values in enumerate(strata):
            n = len(values)
            if (i, n) not in weights:
                weights[i, n] = np.random.default_rng((i, n)).multinomial(n, [1 / n] * n, RESAMPLES) / n
            means[:, i] = weights[i, n] @ np.array(values)
        centre = float(trim_mean([fmean(values) for values in strata], 0.25))
        low, high = np.quantile(trim_mean(means, 0.25, axis=1), [0.025, 0.975])
        interval = f" [{short(low, '.4f')}, {short(high, '.4f')}]" if max(map(len, strata)) > 1 else ""
        cells.append(Cell(f"{centre:z.4f}{interval}", centre))
    return cells


def _friedman(scores: Sequence[Sequence[float]]) -> tuple[list[Cell], list[str]]:
    """Mean ranks of competitors over the pairs of data set and task, and what they are worth."""
    if len(scores) < 2:
        return [Cell()] * len(scores), []
    found = friedman(list(zip(*scores, strict=True)))
    note = (
        f"Mean ranks of {len(scores)} competitors over {len(scores[0])} pairs of data set and task: Friedman's test p = "
        f"{found.p:.3g}; ranks that differ by less than {found.critical_difference:.1f} are not told apart (Nemenyi, .05). "
        "Tasks of one data set are not independent, so this is a picture: the tests are the stars."
    )
    return [Cell(f"{rank:.1f}", rank) for rank in found.ranks], [note]
