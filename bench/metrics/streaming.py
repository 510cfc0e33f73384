"""Metrics of more rows than memory should hold, from pieces of them: whole groups, in any order.

``xauc`` is not here: it needs all rows at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np

from bench.metrics.exact import BINS, METRICS, Array, auc_users
from bench.storage.spill import Spilled

HALF = 0x3F000000 >> 9  # the bin of 1/2: its bits as float32, without the last 9
STRETCH = 1 << 16  # bins that are looked at together
FILES = 32


class InPieces(Protocol):
    """A metric to be."""

    def add(self, label: Array, prediction: Array, group: Array, user: Array) -> None:
        """label, group, user: [n] with n > 0; prediction: [n] or [n, C]. Group and user ids are those of all pieces."""

    def value(self) -> float | None:
        """The metric of all that has been added; None where it is undefined."""


class Bins:
    """Positives and negatives in bins of the score, 4,128,769 from 0 to 1.

    Scores are probabilities, as float32. A bin holds those that share the exponent and the first 14 bits of the
    mantissa, of p below 1/2 and of 1 - p above.
    """

    def __init__(self) -> None:
        self.positives = np.zeros(2 * HALF + 1, np.uint32)
        self.negatives = np.zeros(2 * HALF + 1, np.uint32)

    def add(self, label: Array, prediction: Array, group: Array, user: Array) -> None:
        """Counts rows. Raises ValueError for a score that is no probability."""
        place, positive = self.places(prediction), label > 0
        one = np.uint32(1)  # of the counts' own type: thirty times faster than a Python number
        np.add.at(self.positives, place[positive], one)
        np.add.at(self.negatives, place[~positive], one)

    @staticmethod
    def places(score: Array) -> Array:
        """The bin of each score."""
        score = score.astype(np.float32, copy=False)
        if not ((score >= 0) & (score <= 1)).all():
            raise ValueError("bins are for scores from 0 to 1")
        upper = score >= 0.5
        place = np.abs(np.where(upper, 1 - score, score)).view(np.int32) >> 9
        return np.where(upper, 2 * HALF - place, place).astype(np.intp)


class Auc(Bins):
    """Area under the ROC curve: pairs in two bins are counted exactly, those within a bin half, as ties are.

    Each of the latter is off by at most 1/2, so that the exact value is in ``interval``.
    """

    def interval(self) -> tuple[float, float] | None:
        """The least and the largest value that AUC can have; None if there is one class."""
        surely = within = positives = negatives = 0.0
        for first in range(0, len(self.positives), STRETCH):  # all at once would take five times the memory of the bins
            stretch = slice(first, first + STRETCH)
            positive, negative = self.positives[stretch].astype(np.float64), self.negatives[stretch].astype(np.float64)
            up_to = negatives + np.cumsum(negative)
            surely += (positive * (up_to - negative)).sum()
            within += (positive * negative).sum()
            positives, negatives = positives + positive.sum(), up_to[-1]
        pairs = positives * negatives
        return (float(surely / pairs), float((surely + within) / pairs)) if pairs else None

    def value(self) -> float | None:
        """The middle of the interval."""
        found = self.interval()
        return None if found is None else (found[0] + found[1]) / 2


class Ece(Bins):
    """Expected calibration error: of a bin of scores that two of the 15 bins of equal mass share, each gets rows of
    the mean label and score there. So the value is off by at most 28 times the largest share of rows in one bin."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = np.zeros(2 * HALF + 1)

    def add(self, label: Array, prediction: Array, group: Array, user: Array) -> None:
        """Counts rows and adds up their scores."""
        super().add(label, prediction, group, user)
        np.add.at(self.scores, self.places(prediction), prediction.astype(np.float64))

    def value(self) -> float | None:
        """Returns the calibration error of all that has been added; None if that is nothing."""
        rows = self.positives + self.negatives.astype(np.float64)
        used = np.flatnonzero(rows)
        if not len(used):
            return None
        ends = np.append(0, np.cumsum(rows[used]))
        gaps = np.append(0, np.cumsum(self.positives[used] - self.scores[used]))
        cuts = np.ceil(np.arange(BINS + 1) * ends[-1] / BINS)
        return float(np.abs(np.diff(np.interp(cuts, ends, gaps))).sum() / ends[-1])


class Gauc:
    """Group AUC, exactly: rows wait in files, all of a user in one, and each file is looked at by itself."""

    def __init__(self) -> None:
        self.files = [Spilled() for _ in range(FILES)]

    def add(self, label: Array, prediction: Array, group: Array, user: Array) -> None:
        """Puts rows into the files of their users. Scores are taken as float32."""
        user = user.astype(np.int32)
        rows = np.stack([user.view(np.float32), label.astype(np.float32), prediction.astype(np.float32)], axis=1)
        owner = user % FILES
        for number, file in enumerate(self.files):
            file.append(rows[owner == number])

    def value(self) -> float | None:
        """Returns the group AUC of all that has been added; None if no user has both classes."""
        total = weight = 0.0
        for file in self.files:
            user, label, score = np.ascontiguousarray(file[:].T) if len(file) else np.zeros((3, 0), np.float32)
            values, rows = auc_users(label, score, user.view(np.int32))
            total, weight = total + float((values * rows).sum()), weight + float(rows.sum())
        return total / weight if weight else None


class Mean:
    """A metric that is the mean of a value of each row, or of each group that counts.

    each: (label, prediction, group) -> these values. end: from their mean to the metric.
    """

    def __init__(self, each: Callable[[Array, Array, Array], Array], end: Callable[[float], float] = float) -> None:
        self.each, self.end = each, end
        self.total, self.count = 0.0, 0

    def add(self, label: Array, prediction: Array, group: Array, user: Array) -> None:
        """Adds the values of these rows or groups up."""
        values = self.each(label, prediction, group)
        self.total, self.count = self.total + float(values.sum()), self.count + values.size

    def value(self) -> float | None:
        """Returns the metric of all that has been added; None if nothing counts."""
        return self.end(self.total / self.count) if self.count else None


IN_PIECES: dict[str, Callable[[], InPieces]] = {
    "auc": Auc,
    "gauc": Gauc,
    "ece": Ece,
    **{name: partial(Mean, metric.each, metric.end) for name, metric in METRICS.items() if metric.each is not None},
}
