"""What it saves to start from cached hidden states, with the real language model.

tox -e speed        (or: make speed)
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bench.data.prepare import load, prepare
from bench.text.encode import layers
from bench.text.models import identity
from bench.text.tower import Tower

TEXTS, BATCH, ROUNDS, TOP = 256, 64, 5, 2


def top_layers(net: nn.Module) -> nn.Module:
    """Trains the highest two."""
    for layer in list(layers(net))[-TOP:]:
        layer.requires_grad_()
    return net


@pytest.mark.slow
def test_cached_states_against_all_layers(benchmark: Callable[..., object]) -> None:
    """The top 2 of MiniLM's 6 layers, from cached states of layer 4 and from token ids, in turn, on one thread.

    The same losses to 1e-4. Speed: a backward pass costs two forward passes where all weights are trained, so that the
    work is 2 + 4 layers' against 6 + 4, a ratio of 1.67; without the embeddings it may be more. Autocast to bfloat16 is
    printed beside.
    """
    torch.set_num_threads(1)
    texts = load(prepare("sim-news")).schema.texts[: TEXTS + 1]
    items = torch.arange(1, len(texts))
    lm = identity("all-MiniLM-L6-v2")
    losses: dict[str, list[Tensor]] = {}

    def prepared(name: str, top: int, dtype: torch.dtype | None) -> Callable[[], float]:
        torch.manual_seed(0)
        tower = Tower(texts, lm, top_layers, top=top).train()
        head = nn.Linear(tower.width, 1)
        optimizer = torch.optim.AdamW([p for m in (tower, head) for p in m.parameters() if p.requires_grad], lr=1e-4)
        losses[name] = []

        def seconds() -> float:
            start = time.perf_counter()
            for part in torch.split(items, BATCH):
                with torch.autocast("cpu", dtype, enabled=dtype is not None):
                    loss = (head(tower(part)).squeeze(1).float() - part % 3).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses[name].append(loss.detach())
            return time.perf_counter() - start

        return seconds

    steps = {
        "cached": prepared("cached", TOP, None),
        "all layers": prepared("all layers", 0, None),
        "cached, bfloat16": prepared("cached, bfloat16", TOP, torch.bfloat16),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, seconds in steps.items():
            times[name].append(seconds())
    apart = (torch.stack(losses["cached"]) - torch.stack(losses["all layers"])).abs().max().item()
    ratios = {
        name: statistics.median(a / b for a, b in zip(times["all layers"], own, strict=True))
        for name, own in times.items()
    }
    print(
        f"\nall layers: {TEXTS / statistics.median(times['all layers']):.0f} texts/s; the losses differ by {apart:.1e}"
    )
    for name, ratio in ratios.items():
        print(f"  {name:<20}{ratio:6.2f} times as many texts a second")
    benchmark.extra_info["ratios"] = ratios
    benchmark.pedantic(steps["cached"], rounds=1)
    assert apart < 1e-4
    assert ratios["cached"] >= 1.5, f"cached states give {ratios['cached']:.2f} times the speed"
