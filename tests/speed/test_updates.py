"""What a step costs as the embedding table grows, by dense and by row-wise updates.

tox -e speed        (or: make speed)
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import torch

from bench.machine.device import set_up
from bench.spec import config
from bench.training.build import build
from bench.training.optimizer import optimizer_for
from tests.speed.report import report
from tests.speed.sized import BATCH, FIELDS, split

ROUNDS, STEPS = 5, 3
TABLES = ((100_000, 16), (1_000_000, 16), (100_000, 128), (1_000_000, 128))  # rows, width


def test_dense_against_row_wise_updates() -> None:
    """A shared-bottom with defaults but for its embeddings; of a million rows a batch names a few thousand."""
    torch.set_num_threads(1)
    set_up()
    part = split(20 * BATCH, 2)
    batches = list(part.batches(BATCH, torch.Generator().manual_seed(0)))[:STEPS]
    lines = [
        "| rows of the table | width | dense, ms a step | row-wise, ms a step | times faster |",
        "|---|---|---|---|---|",
    ]
    ratios = []
    for rows, width in TABLES:
        schema = replace(part.schema, cardinality={**part.schema.cardinality, FIELDS[0].name: rows})
        made = []
        for updates in ("dense", "rows"):
            torch.manual_seed(0)
            resolved, _ = config.resolve("shared_bottom", {"embedding": width, "embedding_updates": updates})
            method = build("shared_bottom", resolved, schema).train()
            made.append((method, optimizer_for(method, 0.001, 0.0)))
        times: list[list[float]] = [[], []]
        for round_ in range(ROUNDS + 1):
            for spent, (method, optimizer) in zip(times, made, strict=True):
                start = time.process_time()
                for batch in batches:
                    method.step(batch, optimizer)
                if round_:
                    spent.append((time.process_time() - start) / STEPS * 1000)
        dense, by_rows = map(statistics.median, times)
        ratios.append(statistics.median(a / b for a, b in zip(*times, strict=True)))
        total = len(made[0][0].inputs.table.weight)  # type: ignore[union-attr, arg-type]
        lines.append(f"| {total:,} | {width} | {dense:.1f} | {by_rows:.1f} | {ratios[-1]:.1f} |")
    torch.use_deterministic_algorithms(False)
    lines += [
        "",
        "`embedding_updates=rows` is another training than `dense` (lazy Adam; docs/protocol.md). `shared_bottom` with",
        f"defaults otherwise, batch {BATCH}, one thread, CPU time, medians of {ROUNDS} rounds in turn.",
    ]
    report("Embedding updates", "\n".join(lines))
    assert ratios[-1] >= 5
