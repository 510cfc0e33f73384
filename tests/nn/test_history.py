"""The user side of methods that read texts: attention over a history, with or without a transformer below it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import registry
from bench.api import Method
from bench.data.load import Data
from bench.errors import BenchError
from bench.nn import USER_ENCODERS, HistoryAttention, HistoryTransformer
from bench.training import contract
from bench.training.contract import ON_DATA, make, small
from methods._tuned import Tuned

READERS = [n for n in sorted(registry.methods()) if issubclass(cls := registry.load_method(n), Tuned) or n == "frozen"]


def histories(width: int = 8, length: int = 5) -> tuple[Tensor, Tensor]:
    """Of four, three, one and no items, padding in front."""
    torch.manual_seed(1)
    return torch.randn(4, length, width), torch.arange(length) >= length - torch.tensor([4, 3, 1, 0])[:, None]


def encoder(width: int = 8, length: int = 5) -> HistoryTransformer:
    torch.manual_seed(0)
    made = HistoryTransformer(width, length)
    for p in made.parameters():  # biases and norms that are not 0 and 1, so that none can be left out
        nn.init.normal_(p, std=0.3)
    return made


def by_hand(model: HistoryTransformer, h: Tensor) -> Tensor:
    """The class's equation for one history without padding. h [n, width]."""
    layer: Any = model.layer
    width = h.shape[1]
    z = h + model.positions[-len(h) :]
    weight, bias = layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias
    read = F.layer_norm(z, (width,), layer.norm1.weight, layer.norm1.bias)
    heads = []
    for places in torch.arange(width).split(width // 4):
        q, k, v = (read @ weight[at + places].T + bias[at + places] for at in (0, width, 2 * width))
        heads.append(torch.softmax(q @ k.T / (width // 4) ** 0.5, dim=1) @ v)
    u = z + torch.cat(heads, dim=1) @ layer.self_attn.out_proj.weight.T + layer.self_attn.out_proj.bias
    read = F.layer_norm(u, (width,), layer.norm2.weight, layer.norm2.bias)
    inner = (read @ layer.linear1.weight.T + layer.linear1.bias).clamp(min=0)
    v = u + inner @ layer.linear2.weight.T + layer.linear2.bias
    pooling = model.attention
    score = torch.tanh(v @ pooling.project.weight.T + pooling.project.bias) @ pooling.query.weight[0]
    return torch.softmax(score, dim=0) @ v


@pytest.mark.parametrize("grad", [True, False])  # without gradients torch may take another path
def test_the_transformer_computes_its_equation(grad: bool) -> None:
    model = encoder().eval()
    states, present = histories()
    with torch.set_grad_enabled(grad):
        found = model(states, present)
        for i in range(3):
            torch.testing.assert_close(found[i], by_hand(model, states[i, present[i]]))
    assert not found[3].any()


@pytest.mark.parametrize("name", USER_ENCODERS)
def test_padding_does_not_matter_and_an_empty_history_is_zero(name: str) -> None:
    states, present = histories()
    torch.manual_seed(0)
    model = USER_ENCODERS[name](8, 5)
    other = torch.where(present[..., None], states, 100 * torch.randn_like(states))
    results = []
    for given in (states, other):
        given.requires_grad_()
        torch.manual_seed(2)  # the same dropout
        results.append(model(given, present))
        results[-1].square().sum().backward()
        assert given.grad is not None and given.grad.isfinite().all()
        assert not given.grad[~present].any() and given.grad[present].any()
    assert torch.equal(*results) and not results[0][3].any()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_only_the_transformer_knows_the_order() -> None:
    states, present = histories()
    order = torch.tensor([0, 2, 1, 4, 3])  # three items change places in the first history
    for model, matters in ((HistoryAttention(8), False), (encoder().eval(), True)):
        found, other = model(states, present)[0], model(states[:, order], present)[0]
        assert torch.allclose(found, other, atol=1e-6) != matters


@pytest.mark.parametrize(("width", "heads"), [(16, 4), (24, 4), (18, 2), (7, 1)])
def test_any_width_goes(width: int, heads: int) -> None:
    model = HistoryTransformer(width, 3)
    assert model.layer.self_attn.num_heads == heads
    assert model(torch.randn(2, 3, width), torch.ones(2, 3, dtype=torch.bool)).shape == (2, width)
    layer = 4 * (width + 1) * width + (width + 1) * 2 * width + (2 * width + 1) * width + 2 * 2 * width
    assert sum(p.numel() for p in model.parameters()) == 3 * width + layer + (width + 1) * 32 + 32


@pytest.mark.parametrize("name", READERS)
def test_every_method_that_reads_texts_takes_it(name: str) -> None:
    method = make(name, small("sim-news").schema, user="transformer")
    assert sum(isinstance(m, HistoryTransformer) for m in method.modules()) == 1


@pytest.mark.parametrize("aspect", ON_DATA)
def test_the_contract_holds_with_it(aspect: Callable[[str, Data], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "make", partial(make, user="transformer"))
    aspect("frozen", small("sim-news"))


def test_it_works_in_mixed_precision() -> None:
    data = small("sim-news")
    batch = next(data.test.inputs(256))
    found, rough = (
        make("frozen", data.schema, user="transformer", precision=precision).eval()(batch)
        for precision in ("float32", "bfloat16")
    )
    for name, output in found.items():
        torch.testing.assert_close(rough[name], output, atol=0.05, rtol=0.05)


def test_without_histories_both_are_the_same() -> None:
    data = small("sim-news")
    schema = replace(data.schema, history=0)
    batch = next(data.test.inputs(64))
    batch = replace(batch, history=batch.history[:, :0])

    def outputs(method: Method) -> dict[str, Tensor]:
        return method.eval()(batch)

    found, plain = (outputs(make("frozen", schema, user=user)) for user in ("transformer", "additive"))
    assert all(torch.equal(found[name], plain[name]) for name in plain)


def test_an_unknown_user_encoder_is_refused() -> None:
    with pytest.raises(BenchError, match="user 'gru': choose additive, transformer"):
        make("frozen", small("sim-news").schema, user="gru")
