"""A prepared data set of any number of rows, written in chunks, and one training on it in a process of its own.

Two binary tasks, the second defined on the rows of the first one's positives; groups of 10 +- 5 rows; the same columns
and codes at every size, so that only the number of rows differs. As a program it trains on such a folder for a number
of steps and validates, or makes the batches of an epoch, and prints speed and memory as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, fields, replace
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import torch

from bench.api import Batch, Field, Items, Schema, Task
from bench.data.load import load
from bench.data.tensors import Split
from bench.machine.device import peak_mb, set_up
from bench.spec import config
from bench.training.build import build
from bench.training.loop import fit
from bench.training.recipe import Recipe

CHUNK, GROUP = 1_000_000, 10
ITEMS, BRANDS, USERS, AGES, SLOTS = 20_000, 300, 50_000, 100, 20
TASKS = (Task("click", "binary"), Task("conversion", "binary", space="clicked rows"))
FIELDS = (
    Field("user", "user", "id"),
    Field("age", "user"),
    Field("activity", "user", "numerical"),
    Field("item", "item", "id"),
    Field("brand", "item"),
    Field("slot", "pair"),
    Field("price", "pair", "numerical"),
    Field("match", "pair", "numerical"),
)
CARDINALITY = {"user": USERS, "age": AGES, "item": ITEMS, "brand": BRANDS, "slot": SLOTS}
BATCH, WARM = 2048, 50


def chunk(number: int, rows: int) -> dict[str, np.ndarray]:
    """The columns of the ``number``-th chunk; ``start`` has the rows of each group."""
    draw = np.random.default_rng(number)
    groups = rows // GROUP
    more = draw.integers(0, GROUP // 2 + 1, groups // 2)
    sizes = np.stack([GROUP + more, GROUP - more], axis=1).ravel()
    user = draw.integers(1, USERS, groups, dtype=np.int32)
    activity = draw.standard_normal((groups, 1), dtype=np.float32)
    item = draw.integers(1, ITEMS, rows, dtype=np.int32)
    numbers = draw.standard_normal((rows, 2), dtype=np.float32)
    logit = numbers @ np.array([0.3, 0.8], np.float32) + 0.5 * np.repeat(activity[:, 0], sizes) + (item % 7 - 3) * 0.3
    chance = draw.random((rows, 2), dtype=np.float32)
    click = chance[:, 0] < 1 / (1 + np.exp(1 - logit))
    conversion = np.where(click, chance[:, 1] < 1 / (1 + np.exp(2 - logit)), np.nan)
    return {
        "user_cat": np.stack([user, user % AGES], axis=1),
        "user_num": activity,
        "history": np.zeros((groups, 0), np.int32),
        "start": sizes,
        "item": item,
        "pair_cat": draw.integers(0, SLOTS, (rows, 1), dtype=np.int32),
        "pair_num": numbers,
        "user": user,
        "cold_user": np.zeros(groups, bool),
        "cold_item": np.zeros(rows, bool),
        "label/click": click.astype(np.float32),
        "label/conversion": conversion.astype(np.float32),
    }


def write(folder: Path, rows: dict[str, int]) -> None:
    """The folder of a prepared data set with parts of so many rows, multiples of 20; a chunk is in memory at a time."""
    code = np.arange(ITEMS, dtype=np.int32)
    (folder / "arrays" / "items").mkdir(parents=True)
    np.save(folder / "arrays" / "items" / "cat.npy", np.stack([code, code % BRANDS], axis=1))
    np.save(folder / "arrays" / "items" / "num.npy", np.zeros((ITEMS, 0), np.float32))
    for part, (name, total) in enumerate(rows.items()):
        with ExitStack() as files:
            opened = {}
            row = 0
            for number, first in enumerate(range(0, total, CHUNK)):
                columns = chunk(part + 3 * number, min(CHUNK, total - first))
                columns["start"], row = np.cumsum(columns["start"]) + row, row + int(columns["start"].sum())
                for key, values in columns.items():
                    if not first:
                        path = folder / "arrays" / name / f"{key}.npy"
                        path.parent.mkdir(parents=True, exist_ok=True)
                        opened[key] = files.enter_context(path.open("wb"))
                        count = total // (len(columns["item"]) // len(values)) + (key == "start")
                        header = np.lib.format.header_data_from_array_1_0(values)
                        np.lib.format.write_array_header_1_0(
                            opened[key], header | {"shape": (count, *values.shape[1:])}
                        )
                        if key == "start":
                            opened[key].write(np.zeros(1, values.dtype).data)
                    opened[key].write(np.ascontiguousarray(values).data)
            for file in opened.values():
                file.flush()
                os.fsync(file.fileno())  # what is not on disk yet would be written while someone measures
    schema = {
        "tasks": [asdict(t) for t in TASKS],
        "fields": [asdict(f) for f in FIELDS],
        "cardinality": CARDINALITY,
        "history": 0,
    }
    meta = {"sha256": f"generated {rows}", "parts": {name: {"rows": n} for name, n in rows.items()}, "schema": schema}
    (folder / "texts.json").write_text(json.dumps([""] * ITEMS), "utf-8")
    (folder / "meta.json").write_text(json.dumps(meta), "utf-8")


def split(rows: int, tasks: int) -> Split:
    """A part in memory, with so many tasks: the two in turn."""
    columns = {key: torch.from_numpy(np.ascontiguousarray(values)) for key, values in chunk(0, rows).items()}
    labels = [columns.pop(f"label/{t.name}") for t in TASKS]
    named = [replace(TASKS[i % 2], name=f"{TASKS[i % 2].name}{i}") for i in range(tasks)]
    code = torch.arange(ITEMS, dtype=torch.int32)
    columns["start"] = torch.nn.functional.pad(columns["start"].cumsum(0), (1, 0))
    return Split(
        name="generated",
        schema=Schema(tuple(named), FIELDS, CARDINALITY, history=0, texts=[""] * ITEMS),
        items=Items(torch.stack([code, code % BRANDS], dim=1), torch.zeros(ITEMS, 0)),
        labels={t.name: labels[i % 2] for i, t in enumerate(named)},
        truth={},
        **columns,  # type: ignore[arg-type]
    )


class Some(Split):
    """A split whose epoch is a number of steps, in as many passes as that takes. It keeps how long they took, without
    those to warm up."""

    steps = 0
    seconds = 0.0
    counted = 0  # rows
    now_mb = 0.0

    @classmethod
    def of(cls, whole: Split, steps: int) -> Some:
        cls.steps = steps
        return cls(**{f.name: getattr(whole, f.name) for f in fields(whole)})

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Batch]:
        start = 0.0
        for number, batch in enumerate(islice(self._endless(size, generator), self.steps)):
            if number == WARM:
                start = time.perf_counter()
            if number >= WARM:
                Some.counted += len(batch.item)
            yield batch
        Some.seconds, Some.now_mb = time.perf_counter() - start, resident_mb()

    def _endless(self, size: int, generator: torch.Generator) -> Iterator[Batch]:
        while True:
            yield from super().batches(size, generator)


def resident_mb() -> float:
    return float(psutil.Process().memory_info().rss / 2**20)


def main() -> None:
    """Trains and validates, or with no steps makes an epoch's batches; prints what that took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    set_up()
    data = load(given.folder)
    found: dict[str, object] = {"libraries_mb": resident_mb()}
    if given.steps:
        torch.manual_seed(0)
        resolved, _ = config.resolve("shared_bottom", {})
        method = build("shared_bottom", resolved, data.schema)
        recipe = Recipe(lr=0.001, weight_decay=0.0, batch_size=BATCH, epochs=1, patience=1)
        done = fit(method, Some.of(data.train, given.steps), data.valid, recipe)
        found |= {"rows_per_s": Some.counted / Some.seconds, "now_mb": Some.now_mb, "valid": done.curve[0]["valid"]}
    else:
        start, rows = time.perf_counter(), 0
        for batch in data.train.batches(BATCH, torch.Generator().manual_seed(0)):
            rows += len(batch.item)
        found |= {"rows_per_s": rows / (time.perf_counter() - start), "now_mb": resident_mb(), "rows": rows}
    print(json.dumps(found | {"peak_mb": peak_mb(torch.device("cpu"))}))


if __name__ == "__main__":
    main()
