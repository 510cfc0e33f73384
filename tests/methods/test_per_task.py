"""Methods that give each task text vectors of its own: their equations, what tasks share, and what they do not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baselines.balancers._gradient import GradientBalancer
from bench.errors import BenchError
from bench.text import encode
from bench.text.network import network as load_network
from bench.text.per_task import PerTask, TaskTower
from bench.training.contract import make, small, tiny_language_model
from methods.hyperformer import Hypernetwork, Written
from methods.mtl_lora import TaskLora, query_and_value

CONDITIONED = ("mtl_lora", "hyperformer")
# Parameters that start at zero, and hide what lies below them until they have moved.
CLOSED = ("up", "gain.weight", "shift.weight")


def made(name: str, **given: Any) -> Any:
    return make(name, small("sim-news").schema, **{"layers": 1, **given})


def opened(name: str, **given: Any) -> Any:
    """A method as it may be after some training: its adapters are no longer the identity."""
    method = made(name, **given)
    for path, p in method.named_parameters():
        if "tower.network" in path and path.endswith(CLOSED):
            nn.init.normal_(p, std=0.3)
    return method


def batch_of(rows: int = 30) -> Any:
    return next(small("sim-news").train.batches(rows, torch.Generator().manual_seed(0)))


def own_of(module: nn.Module) -> list[dict[str, nn.Parameter]]:
    """By task: the parameters that only it has in a language model."""
    lists = {n: m for n, m in module.named_modules() if isinstance(m, nn.ParameterList)}
    return [{n: m[i] for n, m in lists.items()} for i in range(len(next(iter(lists.values()))))]


def reached(loss: Tensor, tensors: list[Any]) -> list[bool]:
    """Which of some tensors a loss has a gradient for."""
    gradients = torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True)
    return [g is not None and bool(g.any()) for g in gradients]


def losses_of(method: Any, batch: Any) -> Tensor:
    """Those of a training pass, with the same random numbers each time."""
    torch.manual_seed(4)
    found: Tensor = method.losses(method.train()(batch), batch)
    return found


def test_mtl_lora_computes_its_equation() -> None:
    torch.manual_seed(0)
    layer = TaskLora(nn.Linear(3, 2), 2, rank=2, alpha=6, ups=2, temperature=0.5)
    x = torch.randn(4, 3)
    torch.testing.assert_close(layer(x), layer.layer(x))
    nn.init.normal_(layer.up)
    for matrix in layer.between:
        nn.init.normal_(matrix)
    given = {}
    for task in (0, 1):
        layer.task = task
        e = [math.exp(w / 0.5) for w in layer.weights[task].tolist()]
        by_hand = torch.zeros(4, 2)
        for row in range(4):
            low = layer.between[task] @ (layer.down @ x[row])
            added = sum((e[i] / sum(e) * (layer.up[i] @ low) for i in range(2)), torch.zeros(2))
            by_hand[row] = layer.layer.weight @ x[row] + layer.layer.bias + 6 / 2 * added
        given[task] = layer(x)
        torch.testing.assert_close(given[task], by_hand)
    assert (given[0] - given[1]).abs().max() > 0.1


def test_hyperformer_computes_its_equation() -> None:
    torch.manual_seed(0)
    source = Hypernetwork(2, 3, width=4, bottleneck=2, code=5)
    adapter = Written(nn.Linear(6, 4), source, (2, 1))
    x = torch.randn(7, 6)
    torch.testing.assert_close(adapter(x), adapter.layer(x))
    nn.init.normal_(source.gain.weight)
    nn.init.normal_(source.shift.weight)
    given = {}
    first, second = source.project[0], source.project[2]
    for task in (0, 1):
        source.task = task
        read = torch.cat([source.of_task[task], source.of_layer[2], source.of_place[1]])
        code = second.weight @ (first.weight @ read + first.bias).clamp(min=0) + second.bias
        down, up = (source.down.weight @ code).reshape(2, 4), (source.up.weight @ code).reshape(4, 2)
        rows = []
        for h in adapter.layer(x):
            z = down @ h
            inner = up @ (z * 0.5 * (1 + torch.erf(z / math.sqrt(2))))
            norm = (inner - inner.mean()) / (inner.var(correction=0) + 1e-5).sqrt()
            rows.append(h + (source.gain.weight @ code) * norm + source.shift.weight @ code)
        given[task] = adapter(x)
        torch.testing.assert_close(given[task], torch.stack(rows))
    assert (given[0] - given[1]).abs().max() > 0.1


def test_hyperformer_writes_another_adapter_for_each_place() -> None:
    network = made("hyperformer", layers=0).towers()[0].network
    adapters = [m for m in network.modules() if isinstance(m, Written)]
    assert [a.at for a in adapters] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert all(a.source[0] is network.hypernetwork for a in adapters)
    downs = [network.hypernetwork(*a.at)[0] for a in adapters]
    assert all((a - b).abs().max() > 1e-3 for i, a in enumerate(downs) for b in downs[:i])


@pytest.mark.parametrize("name", CONDITIONED)
def test_tasks_have_the_same_text_vectors_at_first_and_others_after_training(name: str) -> None:
    method = made(name, texts=16)
    part, items = method.towers()[0], torch.arange(1, 20)

    def vectors() -> list[Tensor]:
        method.eval()
        found = []
        for task in method.tasks:
            part.turn_to(task.name)
            found.append(part(items))
        return found

    first = vectors()
    for other in first[1:]:
        assert torch.equal(other, first[0])
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=0.01)
    for _ in range(3):
        method.train().step(batch_of(), optimizer)
    then = vectors()
    assert all((a - b).abs().max() > 1e-4 for i, a in enumerate(then) for b in then[:i])
    assert all((a - first[0]).abs().max() > 1e-4 for a in then)


@pytest.mark.parametrize("trunk", ["shared_bottom", "single_task"])
@pytest.mark.parametrize("name", CONDITIONED)
def test_a_tasks_loss_gives_the_other_tasks_own_factors_no_gradient(name: str, trunk: str) -> None:
    method = opened(name, trunk=trunk, texts=0)
    losses = losses_of(method, batch_of())
    towers = {task: tower for tower in method.towers() for task in tower.tasks}
    own = {task: own_of(tower.network)[tower.tasks.index(task)] for task, tower in towers.items()}
    assert len(own) == len(method.tasks)
    for i, task in enumerate(method.tasks):
        for other, factors in own.items():
            assert set(reached(losses[i], list(factors.values()))) == {other == task.name}


@pytest.mark.parametrize("name", CONDITIONED)
def test_an_output_reads_the_vectors_of_its_own_task(name: str) -> None:
    method, batch = made(name).eval(), batch_of()
    part = method.towers()[0]
    with torch.no_grad():
        before = method(batch)
        for i, task in enumerate(part.tasks):
            kept = part.get_buffer("store")[i].clone()
            part.get_buffer("store")[i] = kept.flip(1)
            changed = {t for t, output in method(batch).items() if not torch.equal(output, before[t])}
            assert changed == {task}
            part.get_buffer("store")[i] = kept


@pytest.mark.parametrize(
    ("trunk", "at"),
    [*((t, "representation") for t in ("shared_bottom", "ple", "stem", "single_task")), ("ple", "parameters")],
)
def test_a_balancer_with_weights_of_one_gives_the_gradient_of_the_sum(trunk: str, at: str) -> None:
    """So ``shared`` misses no way from a loss to a parameter, and has none twice."""
    method, batch = opened("mtl_lora", trunk=trunk, texts=0), batch_of()
    trained = {n: p for n, p in method.named_parameters() if p.requires_grad}
    wanted = torch.autograd.grad(losses_of(method, batch).sum(), list(trained.values()))
    method.balancer = GradientBalancer(method.tasks, at=at)
    method.backward(losses_of(method, batch))
    assert bool(method.shared) == (trunk != "single_task")
    for (path, p), gradient in zip(trained.items(), wanted, strict=True):
        torch.testing.assert_close(p.grad, gradient, atol=1e-6, rtol=1e-4, msg=path)


def test_no_two_tasks_read_one_representation() -> None:
    method = made("mtl_lora", texts=0)
    losses = losses_of(method, batch_of())
    assert len(method.shared) == len(losses)
    for state in method.shared:
        assert sum(reached(loss, [state])[0] for loss in losses) == 1


@pytest.mark.parametrize("name", CONDITIONED)
def test_models_of_a_single_task_trunk_know_one_task(name: str) -> None:
    method, batch = made(name, trunk="single_task", texts=0).train(), batch_of()
    assert [tower.tasks for tower in method.towers()] == [(t.name,) for t in method.tasks]
    method.backward(method.losses(method(batch), batch))
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
    counts = [tower.texts_encoded for tower in method.towers()]
    texts = method.schema.texts
    rows = torch.cat([batch.item, batch.history.flatten()]).unique().tolist()
    assert set(counts) == {len({texts[i] for i in rows} - {""})}, "a text passes each model once"


def test_texts_are_counted_and_kept_for_each_task() -> None:
    method, batch = opened("mtl_lora", texts=0).eval(), batch_of()
    part = method.towers()[0]
    rows = torch.cat([batch.item, batch.history.flatten()]).unique().tolist()
    distinct = len({method.schema.texts[i] for i in rows} - {""})
    with torch.no_grad():
        first = method(batch)
        assert part.texts_encoded == len(method.tasks) * distinct == part.get_buffer("fresh").sum()
        again = method(batch)
        assert part.texts_encoded == len(method.tasks) * distinct
    assert all(torch.equal(first[t], again[t]) for t in first)
    part.train()(torch.tensor([1]))
    assert not part.get_buffer("fresh").any(), "an update changes the vectors of all tasks"


def test_a_tower_starts_over_for_all_tasks() -> None:
    method = opened("mtl_lora").eval()
    part, items = method.towers()[0], torch.arange(1, 9)
    wanted = torch.from_numpy(encode.vectors(method.schema.texts, part.lm))[items]
    for task in part.tasks[:2]:
        part.turn_to(task)
        assert (part(items) - wanted).abs().max() > 1e-3
    part.restart(part.lm)
    for task in part.tasks:
        part.turn_to(task)
        torch.testing.assert_close(part(items), wanted, atol=1e-5, rtol=1e-4)


def test_a_tower_keeps_its_task_where_another_ones_is_named() -> None:
    schema = small("sim-news").schema

    class Marked(PerTask):
        def forward(self, hidden: Tensor) -> Tensor:
            return hidden + self.task * torch.arange(hidden.shape[-1])

    def adapt(net: nn.Module, *, tasks: int) -> nn.Module:
        net.encoder.layer[-1].output.LayerNorm = nn.Sequential(net.encoder.layer[-1].output.LayerNorm, Marked())
        return net

    part = TaskTower(["a", "b"], schema.texts, tiny_language_model(), adapt, top=1).eval()
    items = torch.arange(1, 5)
    a = part(items)
    part.turn_to("b")
    b = part(items)
    part.turn_to("c")
    assert torch.equal(part(items), b) and (a - b).abs().max() > 0.1


def test_query_and_value_of_a_model_that_peft_knows_no_names_for() -> None:
    network: Any = load_network(tiny_language_model())
    assert [name.rpartition(".")[2] for name in query_and_value(network)] == ["query", "value"] * 2
    network.config.model_type = "unheard-of"
    with pytest.raises(ValueError, match="unheard-of"):
        query_and_value(network)


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("mtl_lora", {"rank": 0}, "at least 1"),
        ("mtl_lora", {"ups": 0}, "at least 1"),
        ("mtl_lora", {"temperature": 0.0}, "above 0"),
        ("hyperformer", {"bottleneck": 0}, "at least 1"),
        ("hyperformer", {"code": 0}, "at least 1"),
        ("mtl_lora", {"trunk": "escm2", "trunk.estimator": "dr"}, "one pass"),
    ],
)
def test_a_setting_that_cannot_be(name: str, given: dict[str, Any], told: str) -> None:
    with pytest.raises(BenchError, match=told):
        make(name, small("sim-shop").schema, **given)
