"""The contract, over the whole registry: what `bench check` runs on one method, for all of them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from torch import Tensor

from baselines.balancers.static import Static
from bench import api, check, config, registry
from bench.errors import BenchError

METHODS = sorted(registry.methods())
BALANCERS = sorted(registry.entries("balancers"))
ROOT = registry.ROOT


@pytest.mark.parametrize("name", METHODS)
def test_space_agrees_with_signature(name: str) -> None:
    check.declares_its_space(name)


@pytest.mark.parametrize("dataset", check.TASK_SETS)
@pytest.mark.parametrize("aspect", check.ON_DATA, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", METHODS)
def test_method_keeps_the_contract(name: str, aspect: object, dataset: str) -> None:
    data = check.small(dataset)
    if registry.load_method(name).declines(data.schema):
        pytest.skip("declined")  # a funnel method on data without a funnel
    aspect(name, data)


@pytest.mark.parametrize("trunk", [n for n in METHODS if not registry.load_method(n).reference and n != "frozen"])
def test_frozen_takes_any_architecture(trunk: str) -> None:
    data = check.small("sim-news")
    method = check.make("frozen", data.schema, trunk=trunk)
    batch = next(data.train.batches(256, torch.Generator().manual_seed(0)))
    method.backward(method.losses(method(batch), batch))
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
    assert [t for tasks, _ in method.parts() for t in tasks] == list(data.schema.tasks)


@pytest.mark.parametrize("balancer", BALANCERS)
@pytest.mark.parametrize("name", [n for n in METHODS if not registry.load_method(n).reference])
def test_any_balancer_with_any_method(name: str, balancer: str) -> None:
    data = check.small("sim-shop")
    method = check.make(name, data.schema, balancer=balancer)
    assert isinstance(method.balancer, registry.load_balancer(balancer))
    batch = next(data.train.batches(256, torch.Generator().manual_seed(0)))
    method.backward(method.losses(method(batch), batch))
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


def test_the_balancer_decides_the_gradients() -> None:
    """With all weight on one task, that task's gradient is all that is left."""
    data = check.small("sim-news")
    batch = next(data.train.batches(256, torch.Generator().manual_seed(0)))
    weights = {t.name: float(t.name == "click") for t in data.schema.tasks}
    weighted = check.make("shared_bottom", data.schema, balancer="static", **{"balancer.weights": weights}).eval()
    weighted.backward(weighted.losses(weighted(batch), batch))
    alone = check.make("shared_bottom", data.schema).eval()
    torch.autograd.backward(alone.losses(alone(batch), batch)[0])
    for (path, a), b in zip(weighted.named_parameters(), alone.parameters(), strict=True):
        wanted = torch.zeros_like(a) if b.grad is None else b.grad
        torch.testing.assert_close(a.grad, wanted, msg=path)


def test_each_check_can_fail() -> None:
    """Every check rejects a method that breaks exactly what it looks at."""
    data = check.small("sim-news")
    base = registry.load_method("shared_bottom")

    class Broken(base):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            if fault == "idle parameter":
                self.unused = torch.nn.Linear(2, 2)
            self.calls = 0

        def forward(self, batch: api.Batch) -> dict[str, Tensor]:
            outputs: dict[str, Tensor] = super().forward(batch)
            interest = outputs["interest"]
            if fault == "missing task":
                del outputs["interest"]
            elif fault == "candidate in user scope":
                outputs["interest"] = interest + batch.item[: len(interest)].float().unsqueeze(1)
            elif fault == "batch statistics":
                outputs["click"] = outputs["click"] - outputs["click"].mean()
            elif fault == "hidden state":
                self.calls += 1
                outputs["click"] = outputs["click"] + 0.1 * self.calls
            elif fault == "past shared":
                outputs["click"] = outputs["click"] + self.inputs(batch)[0].sum(1)
            elif fault == "unseeded":
                outputs["click"] = outputs["click"] + torch.rand((), generator=unseeded)
            return outputs

        def backward(self, losses: Tensor) -> None:
            super().backward(-losses if fault == "climbs the loss" else losses)

    unseeded = torch.Generator()
    catches = {
        "missing task": check.answers_every_task,
        "idle parameter": check.trains_every_parameter,
        "candidate in user scope": check.keeps_user_scope,
        "batch statistics": check.treats_groups_apart,
        "past shared": check.states_what_is_shared,
        "unseeded": check.repeats_itself,
        "hidden state": check.saves_and_loads,
        "climbs the loss": check.learns,
    }
    assert set(catches.values()) == set(check.ON_DATA)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "load_method", lambda name: Broken)
        for fault, aspect in catches.items():  # noqa: B007 (the class above reads it)
            with pytest.raises(AssertionError, match=r"\w+ \w+"):
                aspect("broken", data)


def test_two_methods_are_not_the_same() -> None:
    data = check.small("sim-news")
    batch = next(data.test.inputs(64))
    outputs = {}
    for name in METHODS:
        method = check.make(name, data.schema).eval()
        method.on_start(data.train)
        with torch.no_grad():
            outputs[name] = method(batch)["click"]
    for i, a in enumerate(METHODS):
        for b in METHODS[i + 1 :]:
            assert not torch.equal(outputs[a], outputs[b]), f"{a} and {b} predict the same"


def test_parameter_counts_follow_their_formulas() -> None:
    data = check.small("sim-news")
    schema, width, tower, embedding = data.schema, 32, 16, 8
    settings = {"width": width, "tower": tower, "embedding": embedding, "depth": 1}
    inputs = config.build("shared_bottom", config.resolve("shared_bottom", settings)[0], schema).inputs
    item = len(schema.side("item")) * embedding + len(schema.side("item", "numerical"))
    assert inputs.candidate_width == 2 * item + len(schema.side("pair")) * embedding
    coded = sum(schema.cardinality.values()) * embedding + (item * 32 + 32) + 32
    read = inputs.width

    def layer(a: int, b: int) -> int:
        return a * b + b

    heads = sum(layer(width, tower) + layer(tower, t.outputs) for t in schema.tasks)
    wanted = {
        "shared_bottom": coded + layer(read, width) + heads,
        "mmoe": coded + 3 * layer(read, width) + len(schema.tasks) * layer(read, 3) + heads,
        "single_task": len(schema.tasks) * (coded + layer(read, width)) + heads,
    }
    for name, count in wanted.items():
        given = settings | ({"experts": 3} if name == "mmoe" else {})
        model = config.build(name, config.resolve(name, given)[0], schema)
        assert sum(p.numel() for p in model.parameters()) == count, name


def test_mmoe_mixes_experts_by_its_own_gates() -> None:
    """h_t = sum_k softmax(W_t x)_k E_k(x), computed once more term by term (Ma et al. 2018, eq. 6-7)."""
    data = check.small("sim-news")
    model = check.make("mmoe", data.schema, experts=3, width=16).eval()
    x = torch.randn(5, model.inputs.width, generator=torch.Generator().manual_seed(1))
    tasks = [t for t in data.schema.tasks if t.scope == "pair"]
    states = model.represent(x, tasks)
    for task in tasks:
        gate = torch.softmax(model.gates[task.name](x), dim=1)
        by_hand = sum(gate[:, k : k + 1] * model.experts[k](x) for k in range(3))
        torch.testing.assert_close(states[task.name], by_hand)


def test_static_weights() -> None:
    tasks = (api.Task("a", "binary"), api.Task("b", "regression"))
    losses = torch.tensor([2.0, 3.0])
    assert Static(tasks).combine(losses) == 5.0
    assert Static(tasks, weights={"b": 0.5}).combine(losses) == 3.5
    with pytest.raises(ValueError, match="'c'"):
        Static(tasks, weights={"c": 1.0})
    with pytest.raises(ValueError, match="at least 0"):
        Static(tasks, weights={"a": -1.0})


def test_a_wrong_weight_is_the_users_error() -> None:
    data = check.small("sim-news")
    with pytest.raises(BenchError, match="'nope'"):
        check.make("mmoe", data.schema, balancer="static", **{"balancer.weights": {"nope": 1.0}})


def test_popularity_counts_training_labels() -> None:
    data = check.small("sim-news")
    method = check.make("popularity", data.schema, shrinkage=2.0)
    method.on_start(data.train)
    click, item = data.train.labels["click"], data.train.item
    row = int(item[0])
    mine = click[item == row]
    wanted = (mine.sum() + 2.0 * click.mean()) / (len(mine) + 2.0)
    torch.testing.assert_close(method.get_buffer("of_click")[row].sigmoid(), wanted)


ALLOWED = {
    "bench/api.py": set(),
    "bench/metrics.py": set(),
    "bench/spec.py": set(),
    "bench/errors.py": set(),
    "bench/stats.py": {"bench.errors"},
    "bench/leaderboard.py": {"bench.errors", "bench.metrics", "bench.spec", "bench.stats"},
    "bench/render.py": {"bench.leaderboard"},
    "bench/nn.py": {"bench.api"},
}


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{a.name}" for a in node.names} if node.module == "bench" else {node.module}
            found |= names
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
    return {name for name in found if name.split(".")[0] in ("bench", "baselines", "methods")}


def test_imports_point_one_way() -> None:
    for file, allowed in ALLOWED.items():
        assert _imports(ROOT / file) <= allowed, file
    for folder in ("baselines", "methods"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in _imports(path):
                ok = name in ("bench.api", "bench.nn") or name.startswith(("bench.text", "baselines", "methods"))
                assert ok, f"{path.name} imports {name}"
    for path in (ROOT / "bench").rglob("*.py"):
        imported = _imports(path)
        assert "bench.cli" not in imported, path
        assert not any(name.startswith(("baselines", "methods")) for name in imported), path
    for path in (ROOT / "bench" / "datasets").glob("*.py"):
        assert _imports(path) <= {"bench.api", "bench.errors"} | {
            n for n in _imports(path) if n.startswith("bench.data")
        }
