"""Architectures that share by experts or stitches: each against its equation, computed once more term by term."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baselines.home import category
from bench.api import Batch, Task
from bench.training import contract
from bench.training.contract import small, states_what_is_shared, trains_every_parameter

# Every count differs from every other, so that a mix-up of two of them cannot hide.
SIZES: dict[str, dict[str, Any]] = {
    "omoe": {"experts": 3},
    "cgc": {"shared_experts": 3, "task_experts": 2},
    "ple": {"levels": 3, "shared_experts": 3, "task_experts": 2},
    "cross_stitch": {"depth": 2},
    "adatt": {"levels": 3, "task_experts": 2},
    "stem": {"shared_experts": 3, "task_experts": 2},
    "home": {"experts": 2, "rank": 3},
}
CASES = [
    *SIZES.items(),
    ("ple", {}),
    ("adatt", {}),
    ("adatt", {"levels": 1, "task_experts": 3}),
    ("home", {"depth": 2}),
    ("cross_stitch", {}),
    ("stem", {"features": "dcn"}),
]
IDS = [name + "".join(f"-{k}={v}" for k, v in given.items()) for name, given in CASES]


def made(name: str, dataset: str = "sim-news", **given: Any) -> Any:
    """A model in evaluation, with every weight, alpha and running moment moved away from its initial value."""
    model = contract.make(name, small(dataset).schema, **{"width": 16, "dropout": 0.0, "id_dropout": 0.0, **given})
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        for path, buffer in model.named_buffers():
            if path.endswith(("_mean", "_var")):
                buffer.add_(torch.rand_like(buffer))
    return model.eval()


def train_batch(dataset: str = "sim-news") -> Batch:
    return next(small(dataset).train.batches(120, torch.Generator().manual_seed(0)))


def linear(layer: Any, v: Tensor) -> Tensor:
    """W v + b, entry by entry of b."""
    out = torch.stack([(row * v).sum() for row in layer.weight])
    return out if layer.bias is None else out + layer.bias


def expert(layers: Any, v: Tensor) -> Tensor:
    """ReLU layers by hand."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            v = linear(layer, v).clamp(min=0)
    return v


def softmax(gate: Any, v: Tensor) -> Tensor:
    power = linear(gate, v).exp()
    return power / power.sum()


def total(weights: Tensor, states: list[Tensor]) -> Tensor:
    """sum_k w_k s_k; fails unless there is one weight a state."""
    assert len(weights) == len(states)
    out = torch.zeros_like(states[0])
    for weight, state in zip(weights, states, strict=True):
        out = out + weight * state
    return out


def omoe(model: Any, v: Tensor, task: Task) -> Tensor:
    return total(softmax(model.gate, v), [expert(e, v) for e in model.experts])


def ple(model: Any, v: Tensor, task: Task) -> Tensor:
    names = [t.name for t in model.tasks]
    shared, own = v, dict.fromkeys(names, v)
    for number, level in enumerate(model.levels, 1):
        common = [expert(e, shared) for e in level.common]
        specific = {n: [expert(e, own[n]) for e in level.own[n]] for n in names}
        if number < len(model.levels):
            shared = total(softmax(level.shared_gate, shared), common + [s for n in names for s in specific[n]])
        own = {n: total(softmax(level.gates[n], own[n]), common + specific[n]) for n in names}
    return own[task.name]


def cross_stitch(model: Any, v: Tensor, task: Task) -> Tensor:
    count = len(model.tasks)
    own = [v] * count
    for networks, alpha in zip(model.layers, model.alpha, strict=True):
        states = [expert(networks[s], own[s]) for s in range(count)]
        own = [total(alpha[t * count : (t + 1) * count], states) for t in range(count)]
    return own[model.tasks.index(task)]


def adatt(model: Any, v: Tensor, task: Task) -> Tensor:
    names = [t.name for t in model.tasks]
    own = dict.fromkeys(names, v)
    for level in model.levels:
        specific = {n: [expert(e, own[n]) for e in level.experts[n]] for n in names}
        every = [s for n in names for s in specific[n]]
        linear_weights = {n: level.residual[n] if len(specific[n]) > 1 else torch.ones(1) for n in names}
        own = {n: total(softmax(level.gates[n], own[n]), every) + total(linear_weights[n], specific[n]) for n in names}
    return own[task.name]


def home(model: Any, v: Tensor, task: Task) -> Tensor:
    def normalised(e: Any, u: Tensor) -> Tensor:
        u = u * 2 / (1 + (-linear(e.up, linear(e.down, u))).exp())
        for i in range(0, len(e.layers), 4):
            norm = e.layers[i + 1]
            mean, var = (norm.get_buffer(f"{task.scope}_{name}") for name in ("mean", "var"))
            u = (linear(e.layers[i], u) - mean) / (var + 1e-5).sqrt() * norm.weight + norm.bias
            u = u / (1 + (-u).exp())
        return u

    def unit(of: Any, u: Tensor, others: list[Tensor], own: list[Tensor]) -> Tensor:
        g = softmax(of.self_gate, u) if len(own) > 1 else 1 / (1 + (-linear(of.self_gate[0], u)).exp())
        return total(softmax(of.gate, u), others + own) + total(g, own)

    c = category(task)
    every = {k: [normalised(e, v) for e in experts] for k, experts in model.first_category.items()}
    common = [normalised(e, v) for e in model.first_shared]
    z = unit(model.category_units[c], v, common, every[c])
    z_shared = unit(model.shared_unit, v, [s for states in every.values() for s in states], common)
    others = [normalised(e, z) for e in model.second_category[c]]
    others += [normalised(e, z_shared) for e in model.second_shared]
    own = [normalised(e, z) for e in model.second_own[task.name]]
    return unit(model.task_units[task.name], torch.cat([z, z_shared]), others, own)


BY_HAND = {"omoe": omoe, "cgc": ple, "ple": ple, "cross_stitch": cross_stitch, "adatt": adatt, "home": home}


BY_STATE = [(case, label) for case, label in zip(CASES, IDS, strict=True) if case[0] in BY_HAND]  # STEM has no one x


@pytest.mark.parametrize(("name", "given"), [case for case, _ in BY_STATE], ids=[label for _, label in BY_STATE])
@torch.no_grad()
def test_represents_as_its_equation_says(name: str, given: dict[str, Any]) -> None:
    model = made(name, **given)
    generator = torch.Generator().manual_seed(1)
    for scope in ("pair", "user"):
        x = torch.randn(3, model.inputs.width, generator=generator)
        tasks = [t for t in model.tasks if t.scope == scope]
        for module in model.modules():
            if hasattr(module, "scope"):
                module.scope = scope
        states = model.represent(x, tasks)
        assert list(states) == [t.name for t in tasks]
        for task in tasks:
            by_hand = torch.stack([BY_HAND[name](model, row, task) for row in x])
            torch.testing.assert_close(states[task.name], by_hand, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_stem_answers_as_its_equation_says() -> None:
    model, batch = made("stem", **SIZES["stem"]), train_batch()
    outputs = model(batch)
    names = [t.name for t in model.tasks]
    common = model.inputs(batch)
    own = {n: model.own_inputs[n](batch) for n in names}
    for task in model.tasks:
        if task.scope == "user":  # its experts know the user side alone
            own[task.name] = own[task.name][1][batch.group.long()], own[task.name][1]
    for task in model.tasks:
        side = ("pair", "user").index(task.scope)
        for row in (0, 7):
            x, x_s = {n: own[n][side][row] for n in names}, common[side][row]
            states = [expert(e, x_s) for e in model.common]
            states += [expert(e, x[n]) for n in names for e in model.own[n]]
            state = total(softmax(model.gates[task.name], x[task.name] + x_s), states)
            wanted = linear(model.towers[task.name][-1], expert(model.towers[task.name][0], state))
            got = outputs[task.name][row]
            torch.testing.assert_close(got, wanted.view_as(got), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "given"), CASES, ids=IDS)
@pytest.mark.parametrize("dataset", ["sim-news", "sim-video"])
def test_all_trains_and_what_is_shared_carries_it(
    name: str, given: dict[str, Any], dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The contract again, with settings that are not the defaults."""
    data, make = small(dataset), contract.make
    monkeypatch.setattr(contract, "make", lambda name, schema: make(name, schema, **given))
    trains_every_parameter(name, data)
    states_what_is_shared(name, data)


@pytest.mark.parametrize(("name", "given"), CASES, ids=IDS)
def test_one_task_alone_works(name: str, given: dict[str, Any]) -> None:
    data = small("sim-news")
    for task in (data.schema.tasks[0], data.schema.tasks[-1]):
        model = contract.make(name, replace(data.schema, tasks=(task,)), **given).train()
        batch = train_batch()
        model.backward(model.losses(model(batch), batch))
        assert all(p.grad is not None for p in model.parameters())


def of_task(model: Any, batch: Batch, name: str, parameters: list[nn.Parameter]) -> list[Tensor]:
    """Gradients of one task's loss; zeros where it does not reach."""
    losses = model.losses(model(batch), batch)
    one = losses[[t.name for t in model.tasks].index(name)]
    found = torch.autograd.grad(one, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def test_ple_lets_the_shared_gate_see_every_expert_of_its_level() -> None:
    """One task's expert on level 1 reaches another task on level 2 through the shared unit, and no other way."""
    data = small("sim-news")
    a, *others = (t.name for t in data.schema.tasks)
    assert {t.scope for t in data.schema.tasks[1:]} == {"pair", "user"}
    for other in others:
        model, batch = made("ple", levels=2, task_experts=2, shared_experts=3), train_batch()
        reached = of_task(model, batch, a, list(model.levels[0].own[other].parameters()))
        assert any(g.abs().sum() > 0 for g in reached)
        with torch.no_grad():
            before = model(batch)[a]
            changed = copy.deepcopy(model)
            for parameter in changed.levels[0].own[other].parameters():
                parameter.add_(0.5)
            assert not torch.allclose(changed(batch)[a], before)
            at = 3 + 2 * (1 + others.index(other))
            for each in (model, changed):
                each.levels[0].shared_gate.bias[at : at + 2] = -1e9  # the shared gate turns away from these experts
            assert torch.equal(changed(batch)[a], model(batch)[a])
            assert not torch.allclose(changed(batch)[other], model(batch)[other])


def test_ple_has_no_shared_unit_that_nobody_reads() -> None:
    for levels in (2, 3):
        gates = [level.shared_gate is not None for level in made("ple", levels=levels).levels]
        assert gates == [True] * (levels - 1) + [False]
    assert made("cgc").levels[0].shared_gate is None


def test_stem_trains_no_other_tasks_experts_or_inputs() -> None:
    model, batch = made("stem", **SIZES["stem"]), train_batch()
    for task in model.tasks:
        for other in model.tasks:
            for part in (model.own[other.name], model.own_inputs[other.name]):
                moved = any(g.abs().sum() > 0 for g in of_task(model, batch, task.name, list(part.parameters())))
                assert moved == (task is other), (task.name, other.name)
        for part in (model.common, model.inputs):
            assert any(g.abs().sum() > 0 for g in of_task(model, batch, task.name, list(part.parameters())))


def test_stem_hears_the_experts_of_other_tasks_forward() -> None:
    model, batch = made("stem"), train_batch()
    first, second = model.tasks[0].name, model.tasks[1].name
    with torch.no_grad():
        before = model(batch)[first]
        for parameter in model.own[second].parameters():
            parameter.add_(0.5)
        assert not torch.allclose(model(batch)[first], before)


def test_adatt_residual_is_the_identity_for_one_expert() -> None:
    model = made("adatt", levels=1, task_experts=1)
    assert not list(model.levels[0].residual.parameters())
    x = torch.randn(4, model.inputs.width, generator=torch.Generator().manual_seed(1))
    tasks = [t for t in model.tasks if t.scope == "pair"]
    for i, task in enumerate(model.tasks):
        with torch.no_grad():  # a gate that sees only the next task's expert leaves the residual to be told apart
            model.levels[0].gates[task.name].bias[:] = -1e9
            model.levels[0].gates[task.name].bias[(i + 1) % len(model.tasks)] = 0.0
    states = model.represent(x, tasks)
    experts = [model.levels[0].experts[t.name][0](x) for t in model.tasks]
    for task in tasks:
        i = model.tasks.index(task)
        torch.testing.assert_close(states[task.name], experts[i] + experts[(i + 1) % len(experts)])


def test_adatt_residual_starts_within_its_bound() -> None:
    model = contract.make("adatt", small("sim-news").schema, task_experts=4)
    start = torch.cat([v.detach() for level in model.levels for v in level.residual.values()])
    assert start.abs().max() <= 0.5 < 2 * start.abs().max()


def test_cross_stitch_with_identity_units_is_separate_networks() -> None:
    model = made("cross_stitch", depth=3)
    count = len(model.tasks)
    with torch.no_grad():
        for alpha in model.alpha:
            alpha.copy_(torch.eye(count).flatten())
    x = torch.randn(4, model.inputs.width, generator=torch.Generator().manual_seed(1))
    tasks = [t for t in model.tasks if t.scope == "pair"]
    states = model.represent(x, tasks)
    for task in tasks:
        alone = nn.Sequential(*(layer[model.tasks.index(task)] for layer in model.layers))
        torch.testing.assert_close(states[task.name], alone(x))


def test_cross_stitch_units_start_mostly_their_own() -> None:
    model = contract.make("cross_stitch", small("sim-news").schema, depth=2)
    count = len(model.tasks)
    for alpha in model.alpha:
        square = alpha.detach().view(count, count)
        torch.testing.assert_close(square.diagonal(), torch.full((count,), 0.9))
        torch.testing.assert_close(square.sum(dim=1), torch.ones(count))


def test_home_masks_experts_of_other_categories() -> None:
    """A task never reads the second layer of another category; the first it hears through the shared unit alone."""
    model, batch = made("home", "sim-video", experts=2), train_batch("sim-video")
    pairs = {category(t): t for t in model.tasks}
    assert len(pairs) > 1
    for c, task in pairs.items():
        for other in pairs:
            for part, reached in (
                (model.second_category[other], c == other),
                (model.category_units[other], c == other),
                (model.first_category[other], True),
            ):
                moved = any(g.abs().sum() > 0 for g in of_task(model, batch, task.name, list(part.parameters())))
                assert moved == reached, (task.name, other)
