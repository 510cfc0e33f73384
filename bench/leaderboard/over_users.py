"""The difference of two rows over the users of the test part, from kept predictions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bench.leaderboard.grouping import Entry, Task
from bench.leaderboard.selection import Rows
from bench.metrics import METRICS
from bench.statistics.bootstrap import Interval, user_bootstrap

RESAMPLES = 300  # of users; each takes a metric twice for every seed


def over_users(
    group: Rows, a: Entry, b: Entry, task: Task, seeds: Sequence[int], results: Path | None
) -> Interval | str:
    """The interval of A - B over users and seeds, or why there is none."""
    if results is None:
        return "no folder with predictions"
    paths = [[results / "predictions" / f"{row.runs[seed].key}.npz" for seed in seeds] for row in (a, b)]
    absent = [path for side in paths for path in side if not path.exists()]
    if absent:
        return f"{len(absent)} of {2 * len(seeds)} files of predictions are not in {absent[0].parent}"
    test = _test_part(group.dataset, group.about["data"])
    if test is None:
        return f"{group.dataset} with this content is not prepared here; run `bench data prepare {group.dataset}`"
    import numpy as np

    label = test.labels[task.name].numpy()
    groups_, users = test.group, test.user.numpy()[test.group]
    if next(t.scope for t in test.schema.tasks if t.name == task.name) == "user":
        groups_, users = np.arange(test.groups), test.user.numpy()
    use = ~np.isnan(label)
    sides = [[np.load(path)[task.name].astype(np.float64)[use] for path in side] for side in paths]
    fn = METRICS[task.metric].fn
    labels = label[use].astype(np.float64)
    return user_bootstrap(fn, users[use], labels, *sides, groups=groups_[use], resamples=RESAMPLES)


@cache
def _test_part(dataset: str, sha256: str) -> Any:
    """The test part of the prepared data with that content; None if it is not in the cache."""
    from bench.data.load import load
    from bench.storage.cache import root

    for meta in sorted((root() / "data" / dataset).glob("*/meta.json")):
        if json.loads(meta.read_text("utf-8")).get("sha256") == sha256:
            return load(meta.parent).test
    return None
