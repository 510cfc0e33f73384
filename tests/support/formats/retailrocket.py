"""Files as Retailrocket publishes them on Kaggle: comma-separated with header, times in milliseconds, out of order."""

from __future__ import annotations

from pathlib import Path

import numpy as np

KEYS = {"category_tree.csv": "categoryid"}
FIRST, HOUR = 1_430_622_000_000, 3_600_000
VISITORS, ITEMS, DAYS = 60, 25, 40
TREE = {1: None, 2: None, 3: None, 11: 1, 12: 1, 21: 2, 111: 11, 31: 3}
LEAVES = (111, 12, 21, 31, 1)


def write(folder: Path, variant: str = "") -> None:
    """About 350 views by 60 visitors over 40 days, carts and purchases within hours, days or without a view before."""
    rng = np.random.default_rng(2015)
    events = []
    for visitor in range(VISITORS):
        for item in rng.choice(ITEMS, 6, replace=False).tolist():
            time = FIRST + int(rng.integers(DAYS * 24)) * HOUR
            events.append((time, visitor, "view", item, ""))
            if rng.random() < 0.4:
                events.append((time + HOUR * int(rng.choice([0, 2, 50])), visitor, "addtocart", item, ""))
                if rng.random() < 0.5:
                    number = len(events)
                    events.append((time + HOUR * int(rng.choice([0, 3])), visitor, "transaction", item, str(number)))
    events += [
        events[0],
        (events[4][0] + 7, *events[4][1:]),
        (FIRST, 7, "transaction", 3, "1"),
        (FIRST, 8, "view", 99, ""),
    ]
    _write(folder / "events.csv", "timestamp,visitorid,event,itemid,transactionid", events, rng)

    parts: list[list[tuple[int, int, str, str]]] = [[], []]
    for item in range(ITEMS - 2):
        for week in (1, 3):  # none in the first week
            time = FIRST + week * 7 * 24 * HOUR
            category = LEAVES[(item + (week == 3) * (item % 3 == 0)) % len(LEAVES)]
            parts[item % 2].append((time, item, "categoryid", str(category)))
            parts[item % 2].append((time, item, "790", "n12480.000 1116713 960601 n277.200"))
            parts[item % 2].append((time, item, "available", str(week % 2)))
    parts[0].append((FIRST, ITEMS + 50, "categoryid", "777"))  # neither the item nor the category is known elsewhere
    for number, rows in enumerate(parts, 1):
        _write(folder / f"item_properties_part{number}.csv", "timestamp,itemid,property,value", rows, rng)
    tree = [(child, "" if parent is None else parent) for child, parent in TREE.items()]
    _write(folder / "category_tree.csv", "categoryid,parentid", tree, rng)


def _write(path: Path, header: str, rows: list, rng: np.random.Generator) -> None:  # type: ignore[type-arg]
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(map(str, rows[i])) for i in rng.permutation(len(rows))]
    path.write_text("\n".join([header, *lines]) + "\n", "utf-8", newline="")
