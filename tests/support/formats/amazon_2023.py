"""Files as Amazon Reviews 2023 publishes one category: reviews and products, a JSON object on each line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

KEYS = {"meta_*": "parent_asin"}
FIRST_COUNTS = ("meta_*",)
NAMES = {
    "all-beauty": "All_Beauty",
    "books": "Books",
    "electronics": "Electronics",
    "movies-and-tv": "Movies_and_TV",
    "musical-instruments": "Musical_Instruments",
    "video-games": "Video_Games",
}
TITLES = ('Cable 6", "gold\\plated"', "Ünïcode — für alle", " two  spaces\tand a tab ", "Plain title, with a comma")
KINDS = (["PlayStation 4", "Games"], ["PC", "Accessories"], ["Xbox One"], [])
USERS, PRODUCTS, FIRST = 40, 30, 1_600_000_000_000


def write(folder: Path, variant: str = "video-games") -> None:
    """About 250 reviews by 40 users of 30 products, 3 of them unknown; none of All_Beauty has categories."""
    rng = np.random.default_rng(2023)
    name = NAMES[variant]
    reviews = []
    for user in range(USERS):
        reviews += [_review(user, product, rng) for product in rng.choice(PRODUCTS, 6, replace=False).tolist()]
    reviews += [{**reviews[3], "rating": 1.0}, reviews[7]]  # of the same product at the same time
    reviews.append({**reviews[9], "timestamp": reviews[9]["timestamp"] + 5})
    products = [_product(p, name) for p in range(PRODUCTS - 3)]
    products.append(products[0] | {"title": "A second entry"})
    _write(folder / f"{name}.jsonl", [reviews[i] for i in rng.permutation(len(reviews))])
    _write(folder / f"meta_{name}.jsonl", products)


def _review(user: int, product: int, rng: np.random.Generator) -> dict[str, Any]:
    return {
        "rating": float(rng.integers(1, 6)),
        "title": 'Such a "lovely" scent',
        "text": "First line.<br />Second line.\nThird line, \u2028 and more",
        "images": [{"small_image_url": "https://m.example/1.jpg"}] if user % 3 == 0 else [],
        "asin": f"C{product:09}",
        "parent_asin": f"B{product:09}",
        "user_id": f"AG{user:026}",
        "timestamp": FIRST + int(rng.integers(300)) * 86_400_000,
        "helpful_vote": int(rng.integers(-1, 3)) if user % 2 else 0,
        "verified_purchase": bool(rng.integers(2)),
    }


def _product(number: int, name: str) -> dict[str, Any]:
    root = name.replace("_", " ")
    kind = KINDS[number % len(KINDS)]
    return {
        "main_category": root,
        "title": None if number == 5 else TITLES[number % len(TITLES)],
        "average_rating": 4.5,
        "rating_number": 12,
        "features": [],
        "description": ["One.", "Two."],
        "price": None if number % 2 else 12.99,
        "images": [],
        "videos": [],
        "store": None if number % 6 == 0 else f"Store {number % 4}",
        "categories": [] if name == "All_Beauty" else [root, *kind],
        "details": {"Package Dimensions": '7" x 5"'},
        "parent_asin": f"B{number:09}",
        "bought_together": None,
    }


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8", newline="")
