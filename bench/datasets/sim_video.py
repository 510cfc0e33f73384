"""Simulated short videos: watching to the end, watch ratio, likes and rare follows, with known truth."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.api import Field, Task
from bench.datasets.logs.simulation import Floats, Simulated, World, clipped_mean, sigmoid
from bench.datasets.logs.wording import VIDEO


class SimVideo(Simulated):
    """Feeds of 10 clips; the event is to watch to the end.

    watch_ratio = min(max(1 + v / 4, 0), 2), so it exceeds 1 exactly if the clip is finished.
    P(like) = sigmoid(-2.8 + 1.2 S), P(follow) = sigmoid(-4.8 + 1.2 S), given the rest independent of watching.
    rank = (watch_ratio + like + follow) / 4.
    """

    domain = "video"
    about = "Simulated by this project from a documented model; nothing to download. Clips are watched and liked."
    wording = VIDEO
    effect = -0.4
    tasks = (
        Task("finish", "binary", role="ctr"),
        Task("watch_ratio", "regression", role="watch time"),
        Task("like", "binary", role="like"),
        Task("follow", "binary", role="follow"),
        Task("rec", "softmax", role="rec"),
        Task("rank", "regression", role="rank", metric="ndcg@10"),
        Task("interest", "multiclass", scope="user", role="interest", classes=tuple(VIDEO.topics)),
    )
    fields = (*Simulated.fields, Field("duration", "item", "numerical"))
    forbidden = ("finish", "watch_ratio", "like", "follow", "rec", "rank", "interest")

    def attributes(self, attribute: Floats) -> dict[str, NDArray[Any]]:
        return {"duration": np.exp(3.5 + 0.6 * attribute).round(1)}  # seconds

    def labels(self, world: World, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        chance = np.stack([sigmoid(a + 1.2 * world.second) for a in (-2.8, -4.8)])
        like, follow = rng.random(chance.shape) < chance
        ratio = 1 + np.clip(world.latent / 4, -1, 1)
        expected = 1 + clipped_mean(world.logit, 1, -4, 4) / 4
        return {
            "finish": world.event.astype(np.int8),
            "truth:finish": world.probability,
            "watch_ratio": ratio,
            "truth:watch_ratio": expected,
            "like": like.astype(np.int8),
            "truth:like": chance[0],
            "follow": follow.astype(np.int8),
            "truth:follow": chance[1],
            "rank": (ratio + like + follow) / 4,
            "truth:rank": (expected + chance.sum(axis=0)) / 4,
        }
