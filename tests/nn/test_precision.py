"""Mixed precision, with and without instructions for bfloat16: the same numbers up to the order of additions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.nn.precision import Float32Products, mixed
from bench.training.contract import make, small

HALF = torch.bfloat16
ROUNDING = {"rtol": 2**-7, "atol": 2**-7}  # one unit in bfloat16's last place

PRODUCTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "linear": lambda a, b, c: F.linear(a[0], b[0].T, c),
    "matmul": lambda a, b, c: torch.matmul(a, b),
    "operator": lambda a, b, c: a @ b,
    "method": lambda a, b, c: a.matmul(b),
    "mm": lambda a, b, c: torch.mm(a[0], b[0]),
    "bmm": lambda a, b, c: torch.bmm(a, b),
    "addmm": lambda a, b, c: torch.addmm(c, a[0], b[0]),
    "baddbmm": lambda a, b, c: torch.baddbmm(c, a, b),
    "einsum": lambda a, b, c: torch.einsum("nij,njk->nik", a, b),
    "attention": lambda a, b, c: F.scaled_dot_product_attention(a, a, a),
}


@pytest.fixture(params=[True, False], ids=["native", "without"])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both kinds of processors, on either."""
    monkeypatch.setattr("bench.nn.precision.multiplies_bfloat16", lambda: request.param)
    return bool(request.param)


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_and_gradients_are_those_of_bfloat16(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    given = [torch.randn(3, 8, 16) / 4, torch.randn(3, 16, 5) / 4, torch.randn(5)]
    above = torch.randn(1).sign()
    found: dict[bool, list[Tensor]] = {}
    for native in (True, False):
        monkeypatch.setattr("bench.nn.precision.multiplies_bfloat16", lambda native=native: native)
        factors = [x.clone().requires_grad_() for x in given]
        with mixed("cpu", HALF):
            product = PRODUCTS[name](*factors)
        assert product.dtype == HALF
        (product.float() * above).sin().sum().backward()
        gradients = [x.grad for x in factors if x.grad is not None]
        assert {g.dtype for g in gradients} == {torch.float32}
        found[native] = [product.detach().float(), *gradients]
    for one, other in zip(found[True], found[False], strict=True):
        torch.testing.assert_close(one, other, **ROUNDING)


def test_it_rounds_factors_and_result() -> None:
    """By hand: 1 + 2^-9 is 1 in bfloat16, and 1 + 2^-7 is kept; their products are added up exactly, then rounded."""
    a, b = torch.tensor([[1 + 2**-9, 1 + 2**-7]]), torch.tensor([[1.0], [1 + 2**-7]])
    exact = 1 + (1 + 2**-7) ** 2
    with Float32Products(HALF):
        found = a @ b
        kept = a * b.T
    assert found.item() == torch.tensor(exact).to(HALF).item() != exact
    assert kept.dtype == torch.float32  # other operations are none of its business


@pytest.mark.parametrize("name", ["mmoe", "lora"])
def test_a_method_gives_the_same_on_both_processors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = small("sim-news")
    batch = next(data.train.batches(256, torch.Generator().manual_seed(0)))
    found = []
    for native in (True, False):
        monkeypatch.setattr("bench.nn.precision.multiplies_bfloat16", lambda native=native: native)
        method = make(name, data.schema, precision="bfloat16").eval()
        losses = method.losses(method(batch), batch)
        method.backward(losses)
        gradient = torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])
        found.append((losses.detach(), gradient))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0.01, atol=0.01)
    assert F.cosine_similarity(found[0][1], found[1][1], dim=0) > 0.999


def test_every_linear_layer_gives_bfloat16(native: bool) -> None:
    data = small("sim-news")
    method = make("mmoe", data.schema, precision="bfloat16").eval()
    types = set()
    for module in method.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda m, args, out: types.add(out.dtype))
    outputs = method(next(data.train.batches(256, torch.Generator().manual_seed(0))))
    assert types == {HALF} and {o.dtype for o in outputs.values()} == {torch.float32}
