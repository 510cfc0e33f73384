"""Simulated shop: the funnel click, cart, purchase on search results, with known truth."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.api import Field, Task
from bench.datasets.logs.simulation import Floats, Simulated, World, sigmoid
from bench.datasets.logs.wording import SHOP


class SimShop(Simulated):
    """Result lists of 10 products.

    P(cart | click) = sigmoid(-0.7 + S - 0.4 x), P(purchase | cart) = sigmoid(S - 0.4 x) (x: log price).
    rank = (click + cart + purchase) / 3.
    """

    domain = "e-commerce"
    about = "Simulated by this project from a documented model; nothing to download. Click, then cart, then purchase."
    wording = SHOP
    effect = -0.4
    tasks = (
        Task("click", "binary", role="ctr"),
        Task("cart", "binary", role="add to cart"),
        Task("purchase", "binary", role="conversion"),
        Task("purchase_given_click", "binary", role="conversion after click", space="clicked rows"),
        Task("rec", "softmax", role="rec"),
        Task("rank", "regression", role="rank", metric="ndcg@10"),
        Task("interest", "multiclass", scope="user", role="interest", classes=tuple(SHOP.topics)),
    )
    fields = (*Simulated.fields, Field("price", "item", "numerical"), Field("price_band", "item"))
    forbidden = ("click", "cart", "purchase", "purchase_given_click", "rec", "rank", "interest")

    def attributes(self, attribute: Floats) -> dict[str, NDArray[Any]]:
        return {
            "price": np.exp(3 + 0.8 * attribute).round(2),
            "price_band": np.digitize(attribute, [-0.84, -0.25, 0.25, 0.84]) + 1,  # fifths of the normal distribution
        }

    def labels(self, world: World, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        stages = np.stack([sigmoid(a + world.second - 0.4 * world.attribute) for a in (-0.7, 0.0)])
        passed = rng.random(stages.shape) < stages
        click, cart = world.event, world.event & passed[0]
        purchase = cart & passed[1]
        truth = np.cumprod([world.probability, *stages], axis=0)
        return {
            "click": click.astype(np.int8),
            "truth:click": truth[0],
            "cart": cart.astype(np.int8),
            "truth:cart": truth[1],
            "purchase": purchase.astype(np.int8),
            "truth:purchase": truth[2],
            "purchase_given_click": np.where(click, purchase, np.nan),
            "truth:purchase_given_click": stages.prod(axis=0),
            "rank": (click * 1.0 + cart + purchase) / 3,
            "truth:rank": truth.mean(axis=0),
        }
