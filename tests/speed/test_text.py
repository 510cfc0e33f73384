"""What it saves to start from cached hidden states, with the real language model.

tox -e speed        (or: make speed)
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from bench.data.load import load
from bench.data.prepare import prepare
from bench.nn.precision import mixed
from bench.text.models import identity
from bench.text.network import Inside, layers
from bench.text.tower import Tower
from methods.adapter import After, begin_inside, ends, replace
from tests.speed.report import report

TEXTS, BATCH, ROUNDS, TOP = 256, 64, 5, 2
# Times faster in arithmetic alone: a layer's products cost 1 forward, and as much backward (twice where its own weights
# are trained). Behind a Pfeiffer adapter nothing of the lowest layer is left to do; lora, in it, goes back as far as
# query and value.
ARITHMETIC = {"adapter": (4 + 1 + 2) / 2, "lora": (4 + 3.75) / 3.75, "full": (4 + 6) / 6}
BOUND = {"adapter": 2.8, "lora": 1.8, "full": 1.5}  # of the steps alone
WITH_VALIDATION = 3.0  # of the adapters: the figure


def adapter(net: nn.Module, cached: bool) -> nn.Module:
    """Pfeiffer adapters in the highest two layers."""
    inside = cached and Inside.fits(net)
    top = list(layers(net))[-TOP:]
    for block in top:
        replace(block, ends(block, 384)[-1][0], After, 32)
    if inside:
        begin_inside(net)
    return net


def lora(net: nn.Module, cached: bool) -> nn.Module:
    """LoRA on query and value of the highest two layers."""
    from peft import LoraConfig, get_peft_model

    count = len(layers(net))
    config = LoraConfig(r=8, lora_alpha=16, layers_to_transform=list(range(count - TOP, count)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for what it will rename
        return get_peft_model(net, config)


def full(net: nn.Module, cached: bool) -> nn.Module:
    """All weights of the highest two layers."""
    for layer in list(layers(net))[-TOP:]:
        layer.requires_grad_()
    return net


@pytest.mark.slow  # with the real language model
@pytest.mark.parametrize("adapt", [adapter, lora, full])
def test_cached_states_against_all_layers(adapt: Callable[[nn.Module, bool], nn.Module]) -> None:
    """The top 2 of MiniLM's 6 layers, from cached states and from token ids, in turn, on one thread: the same losses to
    1e-4, in float32. Autocast to bfloat16 is reported beside, and a pass for validation after each one in training."""
    torch.set_num_threads(1)
    texts = load(prepare("sim-news")).schema.texts[: TEXTS + 1]
    items = torch.arange(1, len(texts))
    lm = identity("all-MiniLM-L6-v2")
    losses: dict[tuple[str, bool], list[Tensor]] = {}

    def prepared(kind: str, cached: bool) -> Callable[[], tuple[float, float]]:
        torch.manual_seed(0)
        tower = Tower(texts, lm, partial(adapt, cached=cached), top=TOP if cached else 0)
        head = nn.Linear(tower.width, 1)
        optimizer = torch.optim.AdamW([p for m in (tower, head) for p in m.parameters() if p.requires_grad], lr=1e-4)
        losses[kind, cached] = []

        def seconds() -> tuple[float, float]:
            def precision() -> AbstractContextManager[None]:
                return mixed("cpu", torch.bfloat16) if kind == "bfloat16" else nullcontext()

            start = time.perf_counter()
            for part in torch.split(items, BATCH):
                with precision():
                    predicted = head(tower.train()(part)).squeeze(1)
                loss = (predicted.float() - part % 3).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses[kind, cached].append(loss.detach())
            trained = time.perf_counter()
            with precision():
                tower.eval()(items)
            return trained - start, time.perf_counter() - start

        return seconds

    kinds = ("float32", "bfloat16")
    sides = {(kind, cached): prepared(kind, cached) for kind in kinds for cached in (True, False)}
    times: dict[tuple[str, bool], list[tuple[float, float]]] = {side: [] for side in sides}
    for _ in range(ROUNDS):
        for side, seconds in sides.items():
            times[side].append(seconds())

    def ratio(kind: str, of: int) -> float:
        return statistics.median(a[of] / b[of] for a, b in zip(times[kind, False], times[kind, True], strict=True))

    apart = (torch.stack(losses["float32", True]) - torch.stack(losses["float32", False])).abs().max().item()
    name = adapt.__name__
    figures = [
        f"{kind} {ratio(kind, 0):.2f} times ({TEXTS / statistics.median(t for t, _ in times[kind, True]):.0f} "
        f"texts/s), with validation {ratio(kind, 1):.2f} times"
        for kind in kinds
    ]
    report(
        "Language models",
        f"**Top {TOP} of 6 layers, `{name}`**, trained from cached states against from token ids, 1 thread: "
        f"{'; '.join(figures)}. The arithmetic of training alone gives {ARITHMETIC[name]:.2f}. The losses differ by "
        f"{apart:.0e} at most.",
    )
    assert apart < 1e-4
    assert ratio("float32", 0) >= BOUND[name]
    assert name != "adapter" or ratio("float32", 1) >= WITH_VALIDATION
