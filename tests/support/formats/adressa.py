"""Files as Adressa publishes them: one file a day without suffix, one JSON object a line, keys that come and go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

NEEDED = {"2017*": "userId"}
START = 1_483_225_200  # midnight of 1 January 2017 in Norway
CATEGORIES = ("nyheter|trondheim", "100sport|fotball", "kultur", "nyheter|innenriks")
TITLES = ('- "Det blir" fyrverkeri', " Mellomrom; først", "Æ, ø — å?", "Tab\tog, komma", "Vanlig tittel")


def write(folder: Path, variant: str = "") -> None:
    """About 110 first views of 46 news by 25 readers in 7 days; each day brings new news."""
    rng = np.random.default_rng(2017)
    (folder / "one_week").mkdir(parents=True, exist_ok=True)
    for day in range(7):
        seconds = rng.integers(86_400, size=20)  # not in order
        events = [_event(day, int(second), n, rng) for n, second in enumerate(seconds)]
        events.insert(3, events[9])  # the same line again
        text = "".join(json.dumps(e, ensure_ascii=n % 2 == 0) + "\n" for n, e in enumerate(events))
        (folder / "one_week" / f"2017010{day + 1}").write_text(text, "utf-8", newline="")


def _event(day: int, second: int, number: int, rng: np.random.Generator) -> dict[str, Any]:
    news = int(rng.integers(max(0, 6 * day - 8), 10 + 6 * day))
    event = {
        "eventId": int(rng.integers(10**9)),
        "profile": [{"item": "adressa.no", "groups": [{"count": 1, "group": "site", "weight": 1.0}]}],
        "userId": f"cx:{rng.integers(25)}:z9xm",
        "time": START + 86_400 * day + second,
        "deviceType": "Mobile",
        "sessionStart": False,
    }
    if number % 10 == 7:
        return {**event, "url": "http://adressa.no", "activeTime": 8}  # a front page
    event |= {"id": f"{news * 7919 % 65536:040x}", "title": TITLES[news % 5], "url": f"http://adressa.no/{news}.ece"}
    if news % 9:
        event["category1"] = CATEGORIES[news % 4]
    if number % 3:
        event["activeTime"] = 5000 if number == 11 else int(rng.integers(1, 300)) + (0.5 if number == 13 else 0)
    return event
