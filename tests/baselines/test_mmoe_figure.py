"""The figure of the MMoE paper: what a lower correlation of two tasks costs shared-bottom and MMoE of one size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from bench.data.load import load
from bench.data.prepare import prepare
from bench.datasets.mmoe_synthetic import SCALE, WAVES, _directions
from bench.spec import config
from bench.training.build import build

SEEDS, FIRST = 48, 1000
DIM, BATCH, STEPS, RATE, NOISE = 100, 128, 2000, 3e-3, 0.1
SIZES = {  # the paper's: 8 experts of 16, towers of 8, and a bottom with about as many parameters
    "shared_bottom": {"width": 113, "tower": 8, "dropout": 0.0, "id_dropout": 0.0},
    "mmoe": {"experts": 8, "width": 16, "tower": 8, "dropout": 0.0, "id_dropout": 0.0},
}


def bent(s: Tensor) -> Tensor:
    """s + sum_i sin(i s + i)."""
    waves = torch.from_numpy(WAVES).float()
    return s + torch.sin(s[..., None] * waves + waves).sum(-1)


def excess_error(name: str, correlation: float) -> np.ndarray:
    """Test MSE against the noiseless labels, mean of both tasks, of each seed [SEEDS].

    A seed's initial weights, inputs and first direction are the same for both models and all correlations.
    """
    data = load(prepare("mmoe-synthetic", {"rows": BATCH * 10 // 8, "dim": DIM}))
    one = next(data.train.batches(BATCH, torch.Generator().manual_seed(0)))
    resolved, _ = config.resolve(name, SIZES[name])
    models = []
    for seed in range(FIRST, FIRST + SEEDS):
        torch.manual_seed(seed)
        models.append(build(name, resolved, data.schema).train())
    stacked, buffers = stack_module_state(models)
    parameters = {name: p if p.numel() else p[0].detach() for name, p in stacked.items()}  # no field is embedded
    turned = [_directions(DIM, correlation, np.random.default_rng(FIRST + i)) for i in range(SEEDS)]
    weights = SCALE * torch.from_numpy(np.stack(turned)).float().transpose(1, 2)

    def outputs(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        batch = replace(one, pair_num=x)
        given = functional_call(models[0], (parameters, buffers), (batch,))
        return torch.stack([given["y1"], given["y2"]], dim=-1)

    predict = vmap(outputs, in_dims=({name: 0 if p.numel() else None for name, p in parameters.items()}, 0, 0))
    drawn = torch.Generator().manual_seed(FIRST)
    optimizer = torch.optim.Adam(parameters.values(), lr=RATE, fused=True)
    for _ in range(STEPS):
        x = torch.randn(SEEDS, BATCH, DIM, generator=drawn)
        y = bent(x @ weights)
        y += NOISE * torch.randn(y.shape, generator=drawn)
        loss = (predict(parameters, buffers, x) - y).square().mean(dim=1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        errors = []
        for _ in range(16):
            x = torch.randn(SEEDS, BATCH, DIM, generator=drawn)
            errors.append((predict(parameters, buffers, x) - bent(x @ weights)).square().mean(dim=(1, 2)))
    return torch.stack(errors).mean(dim=0).numpy()


@pytest.mark.slow
def test_shared_bottom_loses_more_than_mmoe_where_tasks_are_less_related() -> None:
    """Learning rate and number of steps were chosen on other seeds. Initial weights are each method's own."""
    loss = {(name, p): excess_error(name, p) for name in SIZES for p in (1.0, 0.5, 0.0)}
    for (name, p), values in loss.items():
        print(f"{name:14} correlation {p}: {values.mean():.4f} ± {_error(values):.4f}")
    for p in (0.5, 0.0):
        rise = {name: loss[name, p] - loss[name, 1.0] for name in SIZES}
        more = rise["shared_bottom"] - rise["mmoe"]
        print(f"rise at {p}, shared-bottom minus MMoE: {more.mean():+.4f} ± {_error(more):.4f} (standard error)")
    assert more.mean() > 2 * _error(more)


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5)
