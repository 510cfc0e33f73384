"""The difference of two rows over the users of the test part, from kept predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.leaderboard.grouping import RowRuns
from bench.leaderboard.selection import Rows
from bench.leaderboard.terms import Task
from bench.metrics import METRICS
from bench.statistics.bootstrap import Interval, user_bootstrap
from bench.storage.prepared import Prepared

RESAMPLES = 300  # of users; each takes a metric twice for every seed


def over_users(
    group: Rows, a: RowRuns, b: RowRuns, task: Task, seeds: Sequence[int], results: Path | None
) -> Interval | str:
    """The interval of A - B over users and seeds, or why there is none."""
    if results is None:
        return "no folder with predictions"
    paths = [[results / "predictions" / f"{row.runs[seed].key}.npz" for seed in seeds] for row in (a, b)]
    absent = [path for side in paths for path in side if not path.exists()]
    if absent:
        return f"{len(absent)} of {2 * len(seeds)} files of predictions are not in {absent[0].parent}"
    data = Prepared.find(group.dataset, group.about["data"])
    if data is None:
        return f"{group.dataset} with this content is not prepared here; run `bench data prepare {group.dataset}`"
    label, users = data.array("test/label", task.name), data.array("test", "user")
    groups = np.arange(len(users))
    if data.scope(task.name) == "pair":
        groups = np.repeat(groups, np.diff(data.array("test", "start")))
    use = ~np.isnan(label)
    sides = [[np.load(path)[task.name].astype(np.float64)[use] for path in side] for side in paths]
    labels, groups = label[use].astype(np.float64), groups[use]
    return user_bootstrap(METRICS[task.metric].fn, users[groups], labels, *sides, groups=groups, resamples=RESAMPLES)
