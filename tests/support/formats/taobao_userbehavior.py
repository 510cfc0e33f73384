"""The file as Tianchi publishes Taobao UserBehavior: no header, five columns, some times years off."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FIRST, DAY = 1_511_539_200, 86_400  # 25 November 2017, 00:00 in China
USERS, ITEMS = 12, 40


def write(folder: Path, variant: str = "") -> None:
    """About 700 events of 12 users on nine days, sorted by user only; every tenth number, as a tenth is kept."""
    rng = np.random.default_rng(649)
    lines = []
    for user in range(10, 10 * USERS + 1, 10):
        mine = []
        for day in range(9):
            time = FIRST + day * DAY + int(rng.integers(8 * 3600, 14 * 3600))
            for item in rng.choice(ITEMS, 5, replace=False).tolist():
                mine.append((item, "pv", time))
                for behavior, chance, later in (("cart", 0.35, 60), ("fav", 0.3, 300), ("buy", 0.25, 8000)):
                    if rng.random() < chance:
                        mine.append((item, behavior, time + int(rng.integers(later))))
                time += int(rng.integers(20, 600))
        mine.append((3, "pv", 1_262_275_200 - user))  # years before
        mine.append((4, "buy", FIRST + 9 * DAY))  # the first second after the last day
        mine.append(mine[0])
        order = rng.permutation(len(mine))
        lines += [f"{user},{mine[i][0] + 1},{mine[i][0] % 7 + 100},{mine[i][1]},{mine[i][2]}" for i in order]
    lines.insert(5, f"7,1,999,pv,{FIRST}")  # a user who is not kept
    lines.insert(9, f"20,1,555,pv,{FIRST + 1}")  # an item of two categories
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "UserBehavior.csv").write_text("".join(f"{line}\n" for line in lines), "utf-8", newline="")
