"""Simulated news: clicks and reading times of articles whose topic only the text tells, with known truth."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.api import Field, Task
from bench.datasets.logs.simulation import Floats, Simulated, World, clipped_mean
from bench.datasets.logs.wording import NEWS

LONGEST = float(np.log1p(1800))  # reading is counted for at most half an hour


class SimNews(Simulated):
    """Front pages of 10 articles.

    log1p(reading time in s) = min(max(M + 0.35 noise L, 0), log1p(1800)), with M = 4 + 0.6 S + 0.3 x and x the
    standardised log length.
    rank = log1p(reading time) / log1p(1800), 0 if not clicked.
    """

    domain = "news"
    about = "Simulated by this project from a documented model; nothing to download. A reader clicks, then reads."
    wording = NEWS
    effect = 0.2
    tasks = (
        Task("click", "binary", role="ctr"),
        Task("rec", "softmax", role="rec"),
        Task("read_time", "regression", role="reading time", space="clicked rows"),
        Task("rank", "regression", role="rank", metric="ndcg@10"),
        Task("interest", "multiclass", scope="user", role="interest", classes=tuple(NEWS.topics)),
    )
    fields = (*Simulated.fields, Field("length", "item", "numerical"))
    forbidden = ("click", "rec", "read_time", "rank", "interest")

    def attributes(self, attribute: Floats) -> dict[str, NDArray[Any]]:
        return {"length": np.exp(6.2 + 0.4 * attribute).round()}  # words

    def labels(self, world: World, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        centre = 4 + 0.6 * world.second + 0.3 * world.attribute
        scale = 0.35 * max(self.noise, 1e-6)  # the closed form divides by it
        read = np.clip(centre + scale * rng.logistic(size=len(centre)), 0, LONGEST)
        expected = clipped_mean(centre, scale, 0, LONGEST)
        return {
            "click": world.event.astype(np.int8),
            "truth:click": world.probability,
            "read_time": np.where(world.event, read, np.nan),
            "truth:read_time": expected,
            "rank": np.where(world.event, read / LONGEST, 0),
            "truth:rank": world.probability * expected / LONGEST,
        }
