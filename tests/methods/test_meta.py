"""Meta-learning and the controller: updates by hand, decisions explained, nothing learnt from validation."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baselines.metaheac import halves
from bench.api import Batch, Method, Task
from bench.data.tensors import Split
from bench.suites.specify import specify
from bench.training import contract, loop
from bench.training.contract import SMALL, small, tiny_language_model
from bench.training.loop import Fit
from bench.training.optimizer import optimizer_for
from bench.training.recipe import Recipe
from methods.auto_lambda import AutoLambda
from methods.controller import FASTER, LANGUAGE_MODEL, SGD, SGD_RATE, SLOWER, TRUNK, Action, Controller
from tests.support.runs import made

STILL = {"trunk.dropout": 0.0, "id_dropout": 0.0, "texts": 0}
LR = 0.05


def still(name: str, **settings: Any) -> Any:
    """A method without any randomness in its forward pass."""
    method = contract.make(name, small("sim-news").schema, **STILL, **settings).train()
    for tower in method.towers():
        tower.network.eval()
    return method


def a_batch(rows: int = 48) -> Batch:
    return next(small("sim-news").train.batches(rows, torch.Generator().manual_seed(0)))


def trained(method: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in method.named_parameters() if p.requires_grad}


def descend(method: Any, batch: Batch, rate: float, task: int | None = None) -> Any:
    """A copy after one step of gradient descent on a batch."""
    for m in (method, method.model):
        m.shared = []  # what a graph hangs on cannot be copied
    moved = copy.deepcopy(method)
    losses = moved.losses(moved(batch), batch)
    (losses.sum() if task is None else losses[task]).backward()
    with torch.no_grad():
        for p in trained(moved).values():
            if p.grad is not None:
                p -= rate * p.grad
                p.grad = None
    return moved


def assert_same(method: nn.Module, wanted: dict[str, Tensor], start: dict[str, Tensor]) -> None:
    moved = 0
    for name, p in trained(method).items():
        torch.testing.assert_close(p.detach(), wanted[name], atol=2e-6, rtol=1e-4)
        moved += int(not torch.equal(p.detach(), start[name]))
    assert moved > 10


@pytest.mark.parametrize("over", ["users", "tasks"])
def test_an_update_of_fomaml_by_hand(over: str) -> None:
    method, batch, inner = still("fomaml", over=over, inner_lr=0.5), a_batch(), 0.5
    start = {name: p.detach().clone() for name, p in trained(method).items()}
    wanted = {name: p.clone() for name, p in start.items()}
    plain = copy.deepcopy(wanted)
    parts = halves(batch, method.tasks)
    assert parts is not None
    everything: Sequence[int | None] = [None] if over == "users" else range(len(method.tasks))
    for support, query in (parts, parts[::-1]):
        for target, rate, tasks in ((wanted, inner, everything), (plain, 0.0, [None])):
            for task in tasks:
                there = descend(method, support, rate, task)
                losses = there.losses(there(query), query)
                (losses.sum() if task is None else losses[task]).backward()
                for name, p in trained(there).items():
                    if p.grad is not None:
                        target[name] -= LR * p.grad / 2
    assert any((wanted[name] - plain[name]).abs().max() > 1e-5 for name in start)  # the inner step matters
    method.step(batch, torch.optim.SGD(trained(method).values(), lr=LR))
    assert_same(method, wanted, start)


@pytest.mark.parametrize("over", ["users", "tasks"])
def test_an_update_of_reptile_by_hand(over: str) -> None:
    method, batch = still("reptile", over=over, inner_steps=3, step_size=0.25), a_batch()
    start = {name: p.detach().clone() for name, p in trained(method).items()}
    parts = halves(batch, method.tasks)
    assert parts is not None
    inner = [(part, None) for part in parts] if over == "users" else [(batch, i) for i in range(len(method.tasks))]
    wanted = {name: p.clone() for name, p in start.items()}
    for of, task in inner:
        there, pieces = method, halves(of, method.tasks)
        assert pieces is not None
        for i in (0, 1, 0):
            there = descend(there, pieces[i], LR, task)
        for name, p in trained(there).items():
            wanted[name] += 0.25 * (p.detach() - start[name]) / len(inner)
    method.step(batch, torch.optim.SGD(trained(method).values(), lr=LR))
    assert_same(method, wanted, start)


class Quadratic(Method):
    """L_t = |theta - c_t|^2 / 2 with c_t in the labels."""

    def __init__(self, schema: Any) -> None:
        super().__init__(schema)
        self.theta = nn.Parameter(torch.tensor([1.0, 2.0]))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {t.name: self.theta for t in self.tasks}

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        return torch.stack([(outputs[t.name] - batch.labels[t.name]).square().sum() / 2 for t in self.tasks])


class Toy(AutoLambda):
    """Auto-Lambda on two quadratics."""

    def __init__(self) -> None:
        schema: Any = SimpleNamespace(tasks=small("sim-news").schema.tasks[:2])
        Method.__init__(self, schema)
        self.model = Quadratic(schema)
        self.inner_lr, self.weight_lr = 0.1, 0.01
        self.register_buffer("weights", torch.ones(2), persistent=False)
        self.decisions = []
        self.meta = object()

    def meta_batch(self, size: int) -> Batch:
        return self.targets([4.0, 0.0], [4.0, 1.0])

    def targets(self, *at: list[float]) -> Batch:
        labels = {t.name: torch.tensor(c) for t, c in zip(self.tasks, at, strict=True)}
        return SimpleNamespace(labels=labels, item=torch.zeros(1))  # type: ignore[return-value]


def test_auto_lambda_finds_the_gradient_of_its_weights() -> None:
    toy = Toy()
    toy.get_buffer("weights").copy_(torch.tensor([0.5, 2.0]))
    theta = torch.tensor([1.0, 2.0])
    g = theta - torch.tensor([[3.0, 0.0], [-3.0, 5.0]])
    ahead = theta - 0.1 * (0.5 * g[0] + 2.0 * g[1])
    there = 2 * ahead - torch.tensor([8.0, 1.0])
    found = toy.gradient(toy.targets([3.0, 0.0], [-3.0, 5.0]), toy.meta_batch(1))
    torch.testing.assert_close(found, -0.1 * g @ there)


def test_auto_lambda_weighs_the_task_that_helps() -> None:
    """What is judged lies where the first task pulls; the second pulls away from it."""
    toy = Toy()
    toy.on_start(None)
    optimizer = torch.optim.SGD([toy.model.theta], lr=0.01)
    for _ in range(50):
        losses = toy.step(toy.targets([3.0, 0.0], [-3.0, 5.0]), optimizer)
    first, second = toy.get_buffer("weights").tolist()
    assert first > 1.2 and second < 0.8
    equal = Toy()
    equal.meta = None
    for _ in range(50):
        equal.step(equal.targets([3.0, 0.0], [-3.0, 5.0]), torch.optim.SGD([equal.model.theta], lr=0.01))
    assert toy.model.theta[0] > equal.model.theta[0] + 0.1  # nearer to what is judged
    toy.on_meta(1, {"x": 0.5}, {})
    (entry,) = toy.decisions
    assert [(c["from"], c["to"]) for c in entry["changes"]] == [(1.0, first), (1.0, second)]
    with torch.no_grad():  # what is reported of training has no weights in it
        toy.get_buffer("weights").fill_(7.0)
        toy.meta = None
        plain = toy.model.losses(toy.model(toy.targets([3.0, 0.0], [-3.0, 5.0])), toy.targets([3.0, 0.0], [-3.0, 5.0]))
    losses = toy.step(toy.targets([3.0, 0.0], [-3.0, 5.0]), optimizer)
    torch.testing.assert_close(losses, plain)


def fit(method: Method, **given: Any) -> Fit:
    data = small("sim-news")
    settings = {"lr": 0.01, "weight_decay": 0.0, "batch_size": 256, "epochs": 3, "patience": 99, **given}
    return loop.fit(method, settings.pop("train", data.train), settings.pop("valid", data.valid), Recipe(**settings))


@pytest.mark.parametrize("name", ["auto_lambda", "controller"])
def test_meta_validation_is_the_latest_share_of_training_and_nothing_else(name: str) -> None:
    data = small("sim-news")
    train, later = data.train.cut(60)[0], data.valid.groups
    groups = train.groups
    marked = replace(train, user_num=torch.arange(groups).float()[:, None])
    valid = replace(data.valid, user_num=1e6 + torch.arange(later).float()[:, None])
    width = data.train.user_num.shape[1]
    method = contract.make(name, data.schema)
    seen: dict[str, set[float]] = {"update": set(), "meta": set(), "valid": set()}
    forward = method.model.forward

    def watched(batch: Batch) -> dict[str, Tensor]:
        kind = "update" if method.training and batch.labels else "meta"
        marks = set(batch.user_num[:, 0].tolist())
        seen["valid" if min(marks) >= 1e6 else kind].update(marks)
        return forward(replace(batch, user_num=torch.zeros(len(batch.user_num), width)))

    method.model.forward = watched
    if name == "auto_lambda":  # its meta batches are seen in training, too
        gradient = method.gradient

        def apart(batch: Batch, meta: Batch) -> Tensor:
            seen["meta"].update(meta.user_num[:, 0].tolist())
            return gradient(batch, replace(meta, user_num=torch.full_like(meta.user_num, 1e6)))

        method.gradient = apart
    fit(method, train=marked, valid=valid, epochs=2)
    first = round(0.9 * groups)
    assert seen["update"] == set(map(float, range(first)))
    assert seen["meta"] == set(map(float, range(first, groups)))
    assert method.meta.groups == groups - first
    torch.testing.assert_close(method.meta.history, train.history[first:])


def controller(**settings: Any) -> Any:
    method = contract.make("controller", small("sim-news").schema, **settings)
    method.meta = small("sim-news").valid  # any part will do
    method.on_start(small("sim-news").train)
    return method


def rates_in_force(method: Any, lr: float) -> dict[str, float]:
    """From the optimiser's groups, relative to the configured rates."""
    found = {id(p): g["lr"] for g in optimizer_for(method, lr, 0.0).param_groups for p in g["params"]}
    tower = method.towers()[0]
    result = {LANGUAGE_MODEL: found[id(next(p for p in tower.network.parameters() if p.requires_grad))] / method.lm_lr}
    result[TRUNK] = found[id(_trunk(method))] / lr
    for name, head in method.model.towers.items():
        result[f"rate of head {name}"] = found[id(next(head.parameters()))] / lr
    return result


def _trunk(method: Any) -> Tensor:
    return method.model.inputs.project.weight


def test_every_decision_is_in_force_and_explained() -> None:
    method, names = controller(), [t.name for t in small("sim-news").schema.tasks]
    script = [0.1, 0.2, 0.3, 0.05, 0.3, 0.3]  # skill: rises three times, falls below its best, stands still twice
    levels = {**dict.fromkeys(method.levels, 1.0)}
    kept: dict[int, Tensor] = {}
    for epoch, value in enumerate(script, start=1):
        with torch.no_grad():
            _trunk(method).fill_(float(epoch))
        kept[epoch] = _trunk(method).detach().clone()
        read = dict.fromkeys(names, value / 2)
        method.on_meta(epoch, read, dict.fromkeys(names, value))
        entry = method.decisions[-1]
        assert entry["epoch"] == epoch and entry["metrics"] == read and entry["why"]
        for change in entry["changes"]:
            if change["what"] in levels:
                assert change["from"] == levels[change["what"]] != change["to"]
                levels[change["what"]] = change["to"]
        factor = SGD_RATE if method.optimizer is SGD else 1.0
        found = rates_in_force(method, 0.01)
        assert found == pytest.approx({k: factor * levels[k] for k in found})
        weights = dict(zip(names, method.get_buffer("weights").tolist(), strict=True))
        assert weights == pytest.approx({n: levels[f"weight of {n}"] for n in names})
    whats = [[c["what"] for c in d["changes"]] for d in method.decisions]
    assert whats[0] == [] and method.decisions[0]["why"] == "no rule applies"
    assert whats[1] == whats[2] == [LANGUAGE_MODEL, TRUNK]  # rose twice in a row, and once more
    assert whats[3] == [LANGUAGE_MODEL, TRUNK, *(f"rate of head {n}" for n in names), "model"]
    assert "below that of epoch 3" in method.decisions[3]["why"]
    assert levels[TRUNK] == FASTER * FASTER * SLOWER
    assert whats[4] == [] and whats[5] == ["optimizer"] and method.optimizer is SGD
    assert torch.equal(_trunk(method), kept[6])
    method.on_meta(7, {}, dict.fromkeys(names, 0.0))
    assert torch.equal(_trunk(method), kept[3])  # the best epoch's weights
    assert method.decisions[-1]["changes"][-1] == {
        "what": "model",
        "from": "the present weights",
        "to": "those of epoch 3",
    }


def test_tasks_that_pull_apart() -> None:
    method = controller()
    first, second, *rest = [t.name for t in method.tasks]
    action = method.judge({first: 0.2, second: -0.1, **dict.fromkeys(rest, 0.0)})
    assert action.factors == {
        f"rate of head {second}": SLOWER,
        f"weight of {second}": FASTER,
        LANGUAGE_MODEL: SLOWER,
    }
    assert not action.back and not action.switch
    levels = method._moved(action.factors)
    weights = [v for k, v in levels.items() if k.startswith("weight")]
    assert sum(weights) == pytest.approx(len(weights)) and levels[f"weight of {second}"] > levels[f"weight of {first}"]


def test_a_loss_that_is_not_finite_is_undone_at_once() -> None:
    method, batch = controller(), a_batch()
    start = _trunk(method).detach().clone()
    optimizer = optimizer_for(method.train(), 0.01, 0.0)
    with torch.no_grad():
        _trunk(method).fill_(torch.nan)
    losses = method.step(batch, optimizer)
    assert losses.isfinite().all()
    assert (_trunk(method) - start).abs().max() <= 0.0051  # one step of Adam at half the rate
    assert method.decisions[-1]["why"] == "a loss is not finite"
    assert rates_in_force(method, 0.01)[TRUNK] == SLOWER


def test_the_engine_changes_the_optimizer_when_the_method_does() -> None:
    method, kinds = contract.make("controller", small("sim-news").schema, tolerance=0.1), []
    step = type(method).step

    class Watched(type(method)):  # type: ignore[misc]
        def judge(self, gains: Any) -> Action:
            return Action(switch=self.epoch == 1)

        def step(self, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
            kinds.append((self.epoch, type(optimizer).__name__))
            return step(self, batch, optimizer)

    method.__class__ = Watched
    fit(method, grad_clip=1.0)
    assert set(kinds) == {(0, "AdamW"), (1, "SGD"), (2, "SGD")}


def regression(of: Split, seed: int) -> Split:
    """Two curved functions of four numbers, with noise, in place of a part's inputs and labels."""
    generator = torch.Generator().manual_seed(seed)
    x, noise = (torch.randn(of.rows, n, generator=generator) for n in (4, 2))
    labels = {"a": (x[:, 0] * x[:, 1]).tanh() + x[:, 2] + 0.1 * noise[:, 0], "b": x[:, 0] - x[:, 3] + 0.1 * noise[:, 1]}
    schema = replace(of.schema, tasks=(Task("a", "regression"), Task("b", "regression")))
    return replace(of, schema=schema, pair_num=x, labels=labels, truth={})


class Regressor(Method):
    """One hidden layer, two outputs."""

    def __init__(self, schema: Any) -> None:
        super().__init__(schema)
        self.bottom = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return dict(zip("ab", self.bottom(batch.pair_num).unbind(1), strict=True))


class Controlled(Controller):
    """The controller on that network, without a language model."""

    def __init__(self, schema: Any) -> None:
        Method.__init__(self, schema)
        self.model, self.decisions = Regressor(schema), []
        self.register_buffer("weights", torch.ones(2), persistent=False)
        self.control, self.tolerance = "metrics", 0.005
        self._begin()


def test_the_controller_recovers_from_a_rate_ten_times_too_high() -> None:
    data = small("sim-news")
    first, later = regression(data.train, 0), regression(data.valid, 1)

    def error(make: Callable[[Any], Method], lr: float) -> tuple[float, Method]:
        torch.manual_seed(0)
        method = make(first.schema)
        curve = fit(method, train=first, valid=later, lr=lr, batch_size=64, epochs=15).curve
        return min(sum(epoch["valid"].values()) for epoch in curve), method

    (right, _), (fixed, _), (found, method) = error(Regressor, 0.1), error(Regressor, 1.0), error(Controlled, 1.0)
    assert fixed > 1.5 * right, (right, fixed, found)
    assert fixed - found > 0.9 * (fixed - right), (right, fixed, found)  # it makes up for most of what was lost
    slowed = [d for d in method.decisions if {"what": "model"}.items() <= (d["changes"] or [{}])[-1].items()]
    assert slowed and method.levels[TRUNK] < 0.5


def piloted(control: str, actions: Sequence[Action]) -> Any:
    """A control whose two first trainings did ``actions``, the second one in reverse."""
    method = controller(control=control)
    copies = method.pilots()
    assert [c.control for c in copies] == ["metrics", "metrics"]
    for copied, own in zip(copies, (actions, actions[::-1]), strict=True):
        copied.meta = method.meta
        copied.on_start(small("sim-news").train)
        todo = iter(own)
        copied.judge = lambda gains, todo=todo: next(todo)
        for epoch in range(1, len(own) + 1):
            copied.on_meta(epoch, {}, {})
    method.on_pilots(copies)
    return method


ACTIONS = [
    Action({TRUNK: SLOWER}),
    Action({TRUNK: SLOWER, LANGUAGE_MODEL: FASTER}),
    Action({TRUNK: FASTER}, switch=True),
    Action(back=True),
]


def test_random_control_has_the_marginals_of_the_controller() -> None:
    method = piloted("random", ACTIONS)
    torch.manual_seed(0)
    drawn = [method.draw() for _ in range(4000)]
    marginals: list[Callable[[Action], Any]] = [
        lambda a: a.factors.get(TRUNK, 1.0),
        lambda a: a.factors.get(LANGUAGE_MODEL, 1.0),
        lambda a: a.switch,
        lambda a: a.back,
    ]
    for of in marginals:
        wanted, found = Counter(map(of, ACTIONS)), Counter(map(of, drawn))
        assert set(found) == set(wanted)
        for value, count in wanted.items():
            assert abs(found[value] / 4000 - count / 4) < 4 * (0.25 / 4000) ** 0.5
    torch.manual_seed(0)
    method.on_meta(1, {}, {})
    assert method.actions[-1].factors == drawn[0].factors and "drawn from 8 epochs" in method.decisions[-1]["why"]


def test_replay_follows_the_mean_schedule_and_reads_nothing() -> None:
    method = piloted("replay", ACTIONS)
    # Levels of the trunk: 0.5, 0.25, 0.375, 0.375 in the one, 1, 1.5, 0.75, 0.375 in the other.
    wanted = [0.5**0.5, 0.375**0.5, (0.375 * 0.75) ** 0.5, 0.375, 0.375]
    for epoch, level in enumerate(wanted, start=1):
        method.on_meta(epoch, {"click": 0.9}, {"click": 0.8})
        assert method.levels[TRUNK] == pytest.approx(level)
        assert method.decisions[-1]["metrics"] == {}
    assert method.optimizer is SGD  # both trainings ended with it
    assert all(c["what"] != "model" for d in method.decisions for c in d["changes"])


@pytest.mark.parametrize("control", ["metrics", "random", "replay"])
def test_the_record_has_the_decisions(control: str) -> None:
    given, knobs = {"lm": tiny_language_model(), "control": control}, {**SMALL, "groups": 60}
    spec = specify("sim-news", "controller", given=given, knobs=knobs, budget={"epochs": 2, "patience": 2})
    record, _ = made(spec)
    assert record["status"] == "ok", record["error"]
    assert [d["epoch"] for d in record["decisions"]] == [1, 2]
    words = {"metrics": "", "random": "drawn from 4 epochs", "replay": "mean of the first trainings"}
    assert all(words[control] in d["why"] for d in record["decisions"])
    again, _ = made(spec)
    assert again["decisions"] == record["decisions"] and again["metrics"] == record["metrics"]
