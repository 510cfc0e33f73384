"""How fast the engine trains, as a ratio to a bare PyTorch loop over the same modules and batches in the same run.

tox -e speed        (or: make speed)
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from bench.api import Batch, Method
from bench.data.load import Data, load
from bench.data.prepare import prepare
from bench.spec import config
from bench.training.build import build as built
from bench.training.loop import fit
from bench.training.optimizer import optimizer_for
from bench.training.recipe import Recipe

SETTINGS = {"batch_size": 4096}
ROUNDS = 5


@pytest.fixture(scope="module")
def data() -> Data:
    return load(prepare("movielens-100k"))


def build(name: str, data: Data) -> tuple[Method, dict[str, float]]:
    resolved, _ = config.resolve(name, SETTINGS)
    torch.manual_seed(0)
    return built(name, resolved, data.schema), resolved


def bare_epoch(model: Method, batches: list[Batch], optimizer: torch.optim.Optimizer) -> None:
    """What anyone would write for these five tasks: forward, five losses, backward, step. Batches are ready-made."""
    model.train()
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        out, label = model(batch), batch.labels
        liked = ~label["like"].isnan()
        groups = len(batch.user_cat)
        loss = F.binary_cross_entropy_with_logits(out["watch"], label["watch"])
        loss = loss + F.cross_entropy(out["rec"].view(groups, -1), label["rec"].view(groups, -1).argmax(1))
        loss = loss + F.binary_cross_entropy_with_logits(out["like"][liked], label["like"][liked])
        loss = loss + F.mse_loss(out["rank"], label["rank"])
        loss = loss + F.cross_entropy(out["interest"], label["interest"].long())
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("name", ["shared_bottom", "mmoe"])
def test_training_against_a_bare_loop(name: str, data: Data, benchmark: Callable[..., object]) -> None:
    """Rows/s of one epoch of `fit` (batches, masked losses, curve) over those of the bare loop, interleaved."""
    torch.set_num_threads(1)
    batches = list(data.train.batches(SETTINGS["batch_size"], torch.Generator().manual_seed(0)))
    bare, settings = build(name, data)
    optimizer = optimizer_for(bare, settings["lr"], settings["weight_decay"])
    engine_s, bare_s, ratios = [], [], []

    def engine() -> float:
        model, _ = build(name, data)
        done = fit(
            model,
            data.train,
            data.valid,
            Recipe(settings["lr"], settings["weight_decay"], SETTINGS["batch_size"], epochs=1, patience=1),
        )
        return done.seconds

    bare_epoch(bare, batches[:20], optimizer)
    for _ in range(ROUNDS):
        start = time.perf_counter()
        bare_epoch(bare, batches, optimizer)
        bare_s.append(time.perf_counter() - start)
        engine_s.append(engine())
        ratios.append(bare_s[-1] / engine_s[-1])
    rows = data.train.rows
    print(
        f"\n{name}: engine {rows / statistics.median(engine_s):,.0f} rows/s, "
        f"bare loop {rows / statistics.median(bare_s):,.0f} rows/s, median ratio {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f} in {ROUNDS} rounds in turn; the engine validates as well)"
    )
    benchmark.extra_info["ratio"] = statistics.median(ratios)
    benchmark.pedantic(engine, rounds=1)
