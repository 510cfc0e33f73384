"""Row-wise updates of embeddings against dense AdamW: where both agree, where they differ, and who is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import registry
from bench.errors import BenchError
from bench.nn.lazy_adam import update_rows
from bench.spec import config
from bench.training.contract import make, small
from bench.training.loop import fit
from bench.training.optimizer import optimizer_for
from bench.training.recipe import Recipe

GROUP = {"lr": 0.05, "weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-6}
FIT = Recipe(lr=0.01, weight_decay=0.0, batch_size=256, epochs=1, patience=1)


def trained(batches: list[list[int]], *, sparse: bool) -> Tensor:
    """A table of 5 rows after a step of AdamW for each batch of places, some of them named twice."""
    torch.manual_seed(0)
    table = nn.Parameter(torch.randn(5, 3))
    optimizer = torch.optim.AdamW([table], **GROUP, fused=True)
    optimizer.register_step_pre_hook(update_rows)
    for i, places in enumerate(batches):
        optimizer.zero_grad()
        rows = F.embedding(torch.tensor(places), table, sparse=sparse)
        (rows * torch.linspace(-1, 2, rows.numel()).view_as(rows)).sin().sum().mul(i + 1).backward()
        optimizer.step()
    return table.detach()


def test_it_is_adamw_where_every_batch_names_every_row() -> None:
    batches = [[0, 1, 2, 3, 4, 1], [4, 3, 2, 1, 0, 0], [2, 2, 0, 1, 3, 4], [1, 0, 4, 3, 2, 2]]
    torch.testing.assert_close(trained(batches, sparse=True), trained(batches, sparse=False))


def test_only_named_rows_move() -> None:
    """The first step is AdamW's but for the decay of the others; later, dense AdamW moves them on, row-wise not."""
    start, first = trained([], sparse=True), trained([[1, 3, 1]], sparse=True)
    torch.testing.assert_close(first[[1, 3]], trained([[1, 3, 1]], sparse=False)[[1, 3]])
    assert torch.equal(first[[0, 2, 4]], start[[0, 2, 4]])
    second = trained([[1, 3, 1], [0]], sparse=True)
    assert torch.equal(second[1:], first[1:]) and not torch.equal(second[0], first[0])
    dense = trained([[1, 3, 1], [0]], sparse=False)
    decayed = trained([[1, 3, 1]], sparse=False) * (1 - GROUP["lr"] * GROUP["weight_decay"])
    assert not torch.isclose(dense[[1, 3]], decayed[[1, 3]], rtol=1e-3).any()  # by their momentum


def test_moments_and_correction_by_hand() -> None:
    """A row that is named at steps 1 and 3: its moments decay twice, and the correction counts three steps."""
    found = trained([[0], [1], [0]], sparse=True)[0].double()
    torch.manual_seed(0)
    p = torch.randn(5, 3)[0].double()
    (b1, b2), lr, eps, decay = GROUP["betas"], GROUP["lr"], GROUP["eps"], 1 - GROUP["lr"] * GROUP["weight_decay"]
    m = v = torch.zeros(3, dtype=torch.float64)
    x = torch.linspace(-1, 2, 3).double()
    for t in (1, 3):
        g = t * x * (p * x).cos()
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        p = p * decay - lr * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps)
    torch.testing.assert_close(found, p, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["shared_bottom", "single_task", "stem", pytest.param("lora", marks=pytest.mark.slow)])
def test_methods_learn_by_it(name: str) -> None:
    """The first step is that of dense updates; trained on, the same seed gives the same weights, and it has learned."""
    data = small("sim-news")
    states = []
    for updates in ("dense", "rows", "rows"):
        method = make(name, data.schema, embedding_updates=updates, id_dropout=0.0).train()
        optimizer = optimizer_for(method, 0.01, 0.0)
        batch = next(data.train.batches(256, torch.Generator().manual_seed(0)))
        torch.manual_seed(1)
        before = float(method.step(batch, optimizer).sum())
        first = {k: v.clone() for k, v in method.state_dict().items()}
        result = fit(method, data.train, data.valid, FIT)
        assert sum(result.curve[-1]["loss"].values()) < before
        states.append((first, method.state_dict()))
    torch.testing.assert_close(states[0][0], states[1][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(states[1][1], states[2][1], rtol=0, atol=0)
    table = next(name for name in states[0][1] if name.endswith("table.weight"))
    assert not torch.allclose(states[0][1][table], states[1][1][table], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("fomaml", {}, "the update of Fomaml"),
        ("distill", {}, "the update of Distill"),
        ("lora", {"trunk": "metaheac"}, "the update of MetaHeac"),
        ("mmoe", {"grad_clip": 1.0}, "grad_clip 1"),
        ("mmoe", {"balancer": "pcgrad", "balancer.at": "parameters"}, "gradients at parameters"),
        ("mmoe", {"balancer": "db_mtl"}, "gradients at parameters"),
    ],
)
def test_who_needs_dense_gradients_is_refused(name: str, given: dict[str, object], message: str) -> None:
    schema = small("sim-news").schema
    make(name, schema, **given)
    with pytest.raises(BenchError, match=f"embedding_updates 'rows' leaves no dense gradient for .*{message}"):
        make(name, schema, embedding_updates="rows", **given)


@pytest.mark.slow
def test_every_method_is_refused_or_updates_rows() -> None:
    """Of the whole registry: a method that is let through makes a step in which unnamed rows stay."""
    data = small("sim-news")
    batch = next(data.train.batches(16, torch.Generator().manual_seed(0)))
    let_through = []
    for name in registry.methods():
        if registry.load_method(name).declines(data.schema):
            continue
        try:
            method = make(name, data.schema, embedding_updates="rows").train()
        except BenchError as error:
            assert "embedding_updates" in str(error)
            continue
        tables = [p for n, p in method.named_parameters() if n.endswith("features.table.weight")]
        tables += [p for n, p in method.named_parameters() if n.endswith("inputs.table.weight")]
        if not tables:
            continue
        before = [t.detach().clone() for t in tables]
        method.on_start(data.train)
        method.step(batch, optimizer_for(method, 0.01, 0.0))
        for old, table in zip(before, tables, strict=True):
            moved = (table != old).any(dim=1)
            assert moved.any() and not moved.all(), name
        let_through.append(name)
    assert {"shared_bottom", "mmoe", "ple", "single_task", "frozen", "lora"} <= set(let_through)


def test_the_setting_is_part_of_a_configuration_only_where_it_is_given() -> None:
    assert "embedding_updates" not in config.resolve("mmoe", {"embedding_updates": "dense"})[0]
    assert config.resolve("mmoe", {"embedding_updates": "rows"})[0]["embedding_updates"] == "rows"
    with pytest.raises(BenchError, match="did you mean 'rows'"):
        config.resolve("mmoe", {"embedding_updates": "row"})
