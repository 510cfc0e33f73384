"""The contract, over the whole registry: what `bench check` runs on one method, for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from baselines.balancers.static import Static
from bench import api, registry
from bench.data.load import Data
from bench.errors import BenchError
from bench.spec import config
from bench.training.build import declines
from bench.training.contract import (
    ON_DATA,
    TASK_SETS,
    answers_every_task,
    declares_its_space,
    keeps_user_scope,
    learns,
    make,
    repeats_itself,
    saves_and_loads,
    small,
    states_what_is_shared,
    trains_every_parameter,
    treats_groups_apart,
)
from methods._tuned import Tuned
from tests.support.alike import LIKE_LORA

METHODS = sorted(registry.methods())
ARCHITECTURES = [n for n in METHODS if not (cls := registry.load_method(n)).reference and not cls.trunk]
ON_TRUNK = [n for n in METHODS if registry.load_method(n).trunk]
BALANCERS = sorted(registry.entries("balancers"))
ROOT = registry.ROOT


@pytest.mark.parametrize("name", METHODS)
def test_space_agrees_with_signature(name: str) -> None:
    declares_its_space(name)


ADAPTED = LIKE_LORA | {"hyperformer"}
TRAINED = (repeats_itself, saves_and_loads, learns)  # they share one training


def _cases() -> Iterator[object]:
    """Everything on every task set. Left to `make slow`: two of the three where a language model is trained, training
    on two of the three elsewhere, and training of those that differ from LoRA only in what they adapt."""
    for name in METHODS:
        tuned = issubclass(registry.load_method(name), Tuned)
        for dataset in TASK_SETS:
            trains = dataset == ("sim-news" if tuned else "sim-shop")
            whole = trains and name not in ADAPTED
            rest = [aspect for aspect in ON_DATA if aspect not in TRAINED]
            if whole:
                yield pytest.param(name, dataset, ON_DATA, id=f"{name}-{dataset}")
            else:
                yield pytest.param(
                    name, dataset, rest, id=f"{name}-{dataset}", marks=[pytest.mark.slow] * (tuned and not trains)
                )
                yield pytest.param(name, dataset, TRAINED, id=f"{name}-{dataset}-trained", marks=pytest.mark.slow)


@pytest.mark.parametrize(("name", "dataset", "aspects"), list(_cases()))
def test_method_keeps_the_contract(name: str, dataset: str, aspects: Sequence[Callable[[str, Data], None]]) -> None:
    data = small(dataset)
    if registry.load_method(name).declines(data.schema):
        pytest.skip("declined")  # a funnel method on data without a funnel
    for aspect in aspects:
        aspect(name, data)


@pytest.mark.parametrize("trunk", ARCHITECTURES)
def test_frozen_takes_any_architecture(trunk: str) -> None:
    declined = registry.load_method(trunk).declines(small("sim-news").schema)
    data = small("sim-shop" if declined else "sim-news")  # a funnel method needs the shop
    method = make("frozen", data.schema, trunk=trunk)
    batch = next(data.train.batches(256, torch.Generator().manual_seed(0)))
    method.backward(method.losses(method(batch), batch))
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
    assert [t for tasks, _ in method.parts() for t in tasks] == list(data.schema.tasks)


def _pairs() -> list[tuple[str, str]]:
    """One balancer of each family on every architecture, and every balancer on shared-bottom.

    A balancer sees losses and shared representations alone: what one of its family gets from a method, all get.
    A method on a trunk leaves the balancer to it, or calls it as it does: one of each kind shows that.
    """
    family = {}
    for name in BALANCERS:
        cls = registry.load_balancer(name)
        family[cls.__bases__, cls.weighs, cls.looks_again, bool(cls.of)] = name
    chosen = {(n, b) for n in ARCHITECTURES for b in family.values()} | {("shared_bottom", b) for b in BALANCERS}
    return sorted(
        chosen
        | {(n, b) for n in ON_TRUNK for b in ("uncertainty", "pcgrad", "metabalance")[: 1 if n in ADAPTED else 3]}
    )


@pytest.mark.parametrize(("name", "balancer"), _pairs())
def test_any_balancer_with_any_method(name: str, balancer: str) -> None:
    data = small("sim-shop")
    method = make(name, data.schema, balancer=balancer)
    assert isinstance(method.balancer, registry.load_balancer(balancer))
    batch = next(data.train.batches(256, torch.Generator().manual_seed(0)))
    method.backward(method.losses(method(batch), batch))
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


def test_the_balancer_decides_the_gradients() -> None:
    """With all weight on one task, that task's gradient is all that is left."""
    data = small("sim-news")
    batch = next(data.train.batches(256, torch.Generator().manual_seed(0)))
    weights = {t.name: float(t.name == "click") for t in data.schema.tasks}
    weighted = make("shared_bottom", data.schema, balancer="static", **{"balancer.weights": weights}).eval()
    weighted.backward(weighted.losses(weighted(batch), batch))
    alone = make("shared_bottom", data.schema).eval()
    torch.autograd.backward(alone.losses(alone(batch), batch)[0])
    for (path, a), b in zip(weighted.named_parameters(), alone.parameters(), strict=True):
        wanted = torch.zeros_like(a) if b.grad is None else b.grad
        torch.testing.assert_close(a.grad, wanted, msg=path)


def broken(fault: str) -> type[api.Method]:
    """Shared-bottom with one fault."""
    unseeded = torch.Generator()

    class Broken(registry.load_method("shared_bottom")):
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

    return Broken


def test_each_check_can_fail() -> None:
    """Every check rejects a method that breaks exactly what it looks at."""
    data = small("sim-news")
    catches = {
        "missing task": answers_every_task,
        "idle parameter": trains_every_parameter,
        "candidate in user scope": keeps_user_scope,
        "batch statistics": treats_groups_apart,
        "past shared": states_what_is_shared,
        "unseeded": repeats_itself,
        "hidden state": saves_and_loads,
        "climbs the loss": learns,
    }
    assert set(catches.values()) == set(ON_DATA)
    classes = {fault: broken(fault) for fault in catches}
    with pytest.MonkeyPatch.context() as patch:
        for fault, aspect in catches.items():
            patch.setattr(registry, "load_method", lambda name, fault=fault: classes[fault])
            with pytest.raises(AssertionError, match=r"\w+ \w+"):
                aspect("broken", data)


def test_two_methods_are_not_the_same() -> None:
    met = set()
    for dataset in ("sim-news", "sim-shop"):  # one has texts, the other a funnel
        data = small(dataset)
        batch = next(data.test.inputs(64))
        update = next(data.train.batches(256, torch.Generator().manual_seed(0)))
        outputs: dict[str, Tensor] = {}
        for name in METHODS:
            cls = registry.load_method(name)
            if cls.declines(data.schema) or issubclass(cls, Tuned):  # see tests/test_tuning.py
                continue
            method = make(name, data.schema)
            method.on_start(data.train)
            if any(p.requires_grad for p in method.parameters()):  # two may differ in their losses alone
                method.step(update, torch.optim.SGD(method.parameters(), lr=0.1))
            with torch.no_grad():
                output = method.eval()(batch)["click"]
            for other, seen in outputs.items():
                assert not torch.equal(output, seen), f"{name} and {other} predict the same"
            outputs[name] = output
        met |= outputs.keys()
    assert met == {n for n in METHODS if not issubclass(registry.load_method(n), Tuned)}


def test_a_trunk_declines_for_the_method_on_it() -> None:
    schema = small("sim-news").schema
    given, _ = config.resolve("frozen", {"trunk": "esmm"})
    assert declines("frozen", given, schema) == registry.load_method("esmm").declines(schema) != ""
    assert declines("frozen", given, small("sim-shop").schema) == ""


def test_mmoe_mixes_experts_by_its_own_gates() -> None:
    """h_t = sum_k softmax(W_t x)_k E_k(x), computed once more term by term (Ma et al. 2018, eq. 6-7)."""
    data = small("sim-news")
    model = make("mmoe", data.schema, experts=3, width=16).eval()
    x = torch.randn(5, model.inputs.width, generator=torch.Generator().manual_seed(1))
    tasks = [t for t in data.schema.tasks if t.scope == "pair"]
    states = model.represent(x, tasks)
    for task in tasks:
        gate = torch.softmax(x @ model.gates[task.name].weight.T + model.gates[task.name].bias, dim=1)
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
    data = small("sim-news")
    with pytest.raises(BenchError, match="'nope'"):
        make("mmoe", data.schema, balancer="static", **{"balancer.weights": {"nope": 1.0}})


def test_popularity_counts_training_labels() -> None:
    data = small("sim-news")
    method = make("popularity", data.schema, shrinkage=2.0)
    method.on_start(data.train)
    click, item = data.train.labels["click"], data.train.item
    row = int(item[0])
    mine = click[item == row]
    wanted = (mine.sum() + 2.0 * click.mean()) / (len(mine) + 2.0)
    torch.testing.assert_close(method.get_buffer("of_click")[row].sigmoid(), wanted[None])


def test_popularity_of_classes() -> None:
    """A multi-class label of a row: each item's shares of the classes, shrunk towards those of all rows."""
    data = small("sim-news")
    task = api.Task("mood", "multiclass", classes=("bad", "fair", "good"))
    schema = replace(data.schema, tasks=(task,))
    label = (torch.arange(data.train.rows) % 7).remainder(3).float()
    train = replace(data.train, schema=schema, labels={"mood": label})
    method = make("popularity", schema, shrinkage=2.0)
    method.on_start(train)
    row = int(train.item[0])
    mine = torch.nn.functional.one_hot(label[train.item == row].long(), 3).float()
    everyone = torch.nn.functional.one_hot(label.long(), 3).float().mean(dim=0)
    batch = next(train.inputs(64))
    torch.testing.assert_close(method(batch)["mood"][0].exp(), (mine.sum(0) + 2.0 * everyone) / (len(mine) + 2.0))
