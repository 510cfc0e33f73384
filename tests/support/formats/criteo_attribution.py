"""The file as Criteo publishes its attribution data: tab-separated with header, -1 for what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

DAY = 86_400
COLUMNS = (
    "timestamp", "uid", "campaign", "conversion", "conversion_timestamp", "conversion_id", "attribution", "click",
    "click_pos", "click_nb", "cost", "cpo", "time_since_last_click", *(f"cat{n}" for n in range(1, 10)),
)  # fmt: skip
USERS, ROWS = 50, 420


def write(folder: Path, variant: str = "") -> None:
    """420 impressions over 30 days, sorted by time, often several in a second; conversions up to 30 days later."""
    rng = np.random.default_rng(2017)
    times = np.sort(np.concatenate([rng.integers(0, 2_671_200, ROWS - 2), [0, 0]]))
    rows = ["\t".join(COLUMNS)]
    for number, time in enumerate(times.tolist()):
        click, converted = rng.random() < 0.4, rng.random() < 0.35
        attributed = click and converted
        after = time + int(rng.choice([0, 40_000, DAY, DAY + 1, 20 * DAY]))
        row = [
            time,
            int(rng.integers(USERS)),
            10_341_182 + int(rng.integers(12)),
            int(converted),
            after if converted else -1,
            10_000 + number if converted else -1,
            int(attributed),
            int(click),
            0 if attributed else -1,
            1 if attributed else -1,
            f"{rng.random() / 1e5:.6g}",
            f"{rng.random():.6f}",
            int(rng.integers(900_000)) if rng.random() < 0.3 else -1,
            *(int(rng.integers(1, 5)) * 1_000_003 for _ in range(9)),
        ]
        rows.append("\t".join(map(str, row)))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "criteo_attribution_dataset.tsv").write_text("".join(f"{row}\n" for row in rows), "utf-8", newline="")
