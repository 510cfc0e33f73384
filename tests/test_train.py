"""Losses by hand, the training loop, its early stopping, and that nothing unseen leaks into it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import check, metrics, score, train
from bench.api import Batch, Items, Method, Task, group_softmax_loss, task_loss
from bench.data.prepare import Data
from bench.nn import Dropout, HistoryAttention, base_rate

NAN = math.nan


def batch(labels: dict[str, list[float]], group: list[int] | None = None) -> Batch:
    group = group or list(range(len(next(iter(labels.values())))))
    empty = torch.zeros(max(group) + 1, 0)
    return Batch(
        user_cat=empty.int(),
        user_num=empty,
        history=empty.int(),
        item=torch.zeros(len(group), dtype=torch.int32),
        pair_cat=torch.zeros(len(group), 0, dtype=torch.int32),
        pair_num=torch.zeros(len(group), 0),
        group=torch.tensor(group),
        items=Items(torch.zeros(1, 0, dtype=torch.int32), torch.zeros(1, 0)),
        labels={k: torch.tensor(v) for k, v in labels.items()},
    )


def test_losses_are_means_over_defined_rows() -> None:
    output = torch.tensor([0.0, 2.0, -1.0], requires_grad=True)
    binary = task_loss(Task("y", "binary"), output, batch({"y": [1.0, NAN, 0.0]}))
    torch.testing.assert_close(binary, torch.tensor((math.log(2) + math.log1p(math.exp(-1))) / 2))
    squared = task_loss(Task("y", "regression"), output, batch({"y": [1.0, NAN, 2.0]}))
    torch.testing.assert_close(squared, torch.tensor((1.0 + 9.0) / 2))
    (binary + squared).backward()
    assert output.grad is not None
    assert output.grad[1] == 0 and output.grad.isfinite().all()


def test_multiclass_loss() -> None:
    task = Task("y", "multiclass", scope="user", classes=("a", "b", "c"))
    output = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    wanted = F.cross_entropy(output[[0, 2]], torch.tensor([2, 0]))
    torch.testing.assert_close(task_loss(task, output, batch({"y": [2.0, NAN, 0.0]})), wanted)


def test_a_batch_without_labels_gives_zero_loss_and_zero_gradient() -> None:
    for kind in ("binary", "regression", "softmax"):
        output = torch.ones(2, requires_grad=True)
        loss = task_loss(Task("y", kind), output, batch({"y": [NAN, NAN]}))
        loss.backward()
        assert loss == 0 and output.grad is not None and (output.grad == 0).all()


def test_softmax_within_groups_is_cross_entropy_when_one_row_is_positive() -> None:
    score = torch.randn(12, generator=torch.Generator().manual_seed(1), requires_grad=True)
    label = torch.tensor([0, 1, 0, 0] * 3).float()
    group = torch.tensor([0] * 4 + [1] * 4 + [2] * 4)
    loss = group_softmax_loss(score, label, group, 3)
    wanted = F.cross_entropy(score.view(3, 4), torch.tensor([1, 1, 1]))
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(x, score, retain_graph=True)[0] for x in (loss, wanted)))


def test_softmax_within_groups_by_hand() -> None:
    """Each positive against the negatives alone; groups of one kind say nothing; undefined rows do not take part."""
    score = torch.tensor([1.0, 2.0, 0.5, 3.0, 4.0, 9.0], requires_grad=True)
    label = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, NAN])
    group = torch.tensor([0, 0, 0, 1, 2, 0])
    loss = group_softmax_loss(score, label, group, 3)
    wanted = sum(-math.log(math.exp(s) / (math.exp(s) + math.exp(0.5))) for s in (1.0, 2.0)) / 2
    assert math.isclose(loss.item(), wanted, rel_tol=1e-6)
    loss.backward()
    assert score.grad is not None and score.grad[3:].tolist() == [0.0, 0.0, 0.0]


def test_softmax_within_groups_is_stable() -> None:
    score = torch.tensor([1000.0, -1000.0, 1000.0, -1000.0], requires_grad=True)
    loss = group_softmax_loss(score, torch.tensor([0.0, 1.0, 1.0, 0.0]), torch.tensor([0, 0, 1, 1]), 2)
    loss.backward()
    assert loss == 1000.0 and score.grad is not None and score.grad.isfinite().all()


def test_base_rates_minimise_the_loss() -> None:
    label = torch.tensor([1.0, 0.0, 0.0, NAN, 1.0, 0.0])
    binary, value = Task("y", "binary"), Task("y", "regression")
    torch.testing.assert_close(base_rate(binary, label), torch.tensor([0.4]).logit())
    torch.testing.assert_close(base_rate(value, label), torch.tensor([0.4]))
    assert base_rate(Task("y", "softmax"), label) is None
    assert base_rate(binary, torch.tensor([NAN])) is None


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_expectation(rate: float) -> None:
    torch.manual_seed(0)
    layer, x = Dropout(rate), torch.ones(1001, 999, requires_grad=True)
    y = layer(x)
    dropped = round(rate * 256) / 256
    n = y.numel()
    assert abs((y == 0).float().mean().item() - dropped) < 4 * math.sqrt(0.25 / n)
    assert abs(y.mean().item() - 1) < 4 * math.sqrt(dropped / (1 - dropped) / n) + 1e-6
    assert y.detach().unique().numel() == (2 if rate else 1)
    for column in (0, 7):  # every byte of a word is as random as the others
        assert abs((y.flatten()[column::8] == 0).float().mean().item() - dropped) < 4 * math.sqrt(2 / n)
    y.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, y.detach())
    assert torch.equal(layer.eval()(x), x)
    with pytest.raises(ValueError, match="below 1"):
        Dropout(1.0)


def test_history_attention_ignores_padding() -> None:
    torch.manual_seed(0)
    attention = HistoryAttention(4)
    states = torch.randn(2, 3, 4)
    present = torch.tensor([[False, True, True], [False, False, False]])
    pooled = attention(states, present)
    torch.testing.assert_close(pooled[0], attention(states[:1, 1:], present[:1, 1:])[0])
    assert (pooled[1] == 0).all()


def test_fit_cannot_see_the_test_part() -> None:
    assert list(inspect.signature(train.fit).parameters)[:3] == ["method", "train", "valid"]
    assert not any("test" in name for name in inspect.signature(train.fit).parameters)
    source = inspect.getsource(train.fit)
    assert "test" not in source


class Scripted(Method):
    """Its one weight counts epochs; its validation quality follows a script."""

    def __init__(self, data: Data, script: Mapping[str, list[float]], apart: bool) -> None:
        super().__init__(data.schema)
        self.script, self.apart = script, apart
        self.counters = nn.ModuleDict({t.name: nn.Linear(1, 1) for t in self.tasks})
        self.epoch = 0
        self.modes: list[bool] = []

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        raise AssertionError("not needed")

    def step(self, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
        self.modes.append(self.training)
        return torch.zeros(len(self.tasks))

    def on_epoch(self, epoch: int, valid: Mapping[str, float]) -> None:
        self.epoch = epoch

    def parts(self) -> list[tuple[tuple[Task, ...], nn.Module]]:
        return [((t,), self.counters[t.name]) for t in self.tasks] if self.apart else super().parts()


def run_script(
    script: dict[str, list[float]], apart: bool, patience: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[Scripted, train.Fit]:
    data = check.small("sim-news")
    method = Scripted(data, script, apart)

    def evaluate(model: Scripted, split: object) -> dict[str, float]:
        model.eval()
        for layer in model.counters.values():
            layer.weight.data.fill_(model.epoch + 1)
        return {t.name: script.get(t.name, [0.5] * 99)[model.epoch] for t in model.tasks}

    def scored(split: object, predictions: Mapping[str, float], **_: object) -> score.Scores:
        return {t.name: {t.metrics[0]: predictions[t.name]} for t in data.schema.tasks}

    monkeypatch.setattr(train, "evaluate", evaluate)
    monkeypatch.setattr(train, "score", scored)
    monkeypatch.setattr(train, "chance", lambda a, b: {t.name: 0.5 for t in data.schema.tasks})
    done = train.fit(
        method, data.train, data.valid, lr=0.1, weight_decay=0.0, batch_size=64, epochs=6, patience=patience, seed=0
    )
    return method, done


def test_the_best_epoch_is_restored_when_training_stops_early(monkeypatch: pytest.MonkeyPatch) -> None:
    method, done = run_script({"click": [0.6, 0.9, 0.7, 0.6, 0.6, 0.6]}, False, 2, monkeypatch)
    assert len(done.curve) == 4
    assert set(done.best_epoch.values()) == {2}
    assert {layer.weight.item() for layer in method.counters.values()} == {2.0}
    assert all(method.modes)  # training mode in every epoch, though evaluation switches it off


def test_the_best_epoch_is_restored_when_training_runs_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    method, done = run_script({"click": [0.6, 0.5, 0.5, 0.5, 0.9, 0.8]}, False, 99, monkeypatch)
    assert len(done.curve) == 6
    assert {layer.weight.item() for layer in method.counters.values()} == {5.0}


def test_parts_keep_their_own_best_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    script = {"click": [0.6, 0.7, 0.8, 0.1, 0.1, 0.1], "rec": [0.9, 0.6, 0.6, 0.6, 0.6, 0.6]}
    method, done = run_script(script, True, 2, monkeypatch)
    assert done.best_epoch["click"] == 3 and done.best_epoch["rec"] == 1
    assert method.counters["click"].weight.item() == 3.0 and method.counters["rec"].weight.item() == 1.0
    assert len(done.curve) == 5  # all parts have run out of patience


def test_skill_counts_every_task_alike() -> None:
    tasks = (Task("a", "binary"), Task("b", "regression"))
    scores: score.Scores = {"a": {"auc": 0.75}, "b": {"rmse": 0.5}}
    constant: score.Scores = {"a": {"auc": 0.5}, "b": {"rmse": 2.0}}
    assert train.mean_skill(tasks, scores, constant) == (0.5 + 0.75) / 2
    scores["b"]["rmse"] = None
    assert train.mean_skill(tasks, scores, constant) == 0.5


def test_divergence_is_an_outcome() -> None:
    data = check.small("sim-news")
    method = check.make("shared_bottom", data.schema)
    with pytest.raises(train.Diverged, match="finite"):
        train.fit(
            method, data.train, data.valid, lr=1e30, weight_decay=0.0, batch_size=64, epochs=3, patience=3, seed=0
        )


def test_weight_decay_spares_biases_and_embeddings() -> None:
    method = check.make("shared_bottom", check.small("sim-news").schema)
    optimizer = train.optimizer_for(method, 0.1, 0.5)
    decayed = {id(p) for p in optimizer.param_groups[0]["params"]}
    assert optimizer.param_groups[0]["weight_decay"] == 0.5
    assert optimizer.param_groups[1]["weight_decay"] == 0.0
    table = {id(m.weight) for m in method.modules() if isinstance(m, nn.Embedding)}
    for name, p in method.named_parameters():
        assert (id(p) in decayed) == (p.ndim > 1 and id(p) not in table), name


def test_the_oracle_beats_chance_and_chance_is_chance() -> None:
    data = check.small("sim-news")
    found = score.references(data.train, data.test)
    for task in data.schema.tasks:
        name = task.metrics[0]
        oracle, chance = (found[k]["test"][task.name][name] for k in ("oracle", "chance"))
        assert metrics.skill(name, oracle, chance) > 0, task.name
    assert found["chance"]["test"]["click"]["auc"] == 0.5


def test_slices_score_only_unseen_rows() -> None:
    data = check.small("sim-news")
    predictions = score.oracle(data.test)
    assert predictions is not None
    cold = data.test.cold_item.numpy()
    found = score.slices(data.test, predictions)["cold_item"]
    assert found["rows"] == int(cold.sum())
    label = data.test.labels["click"].numpy()
    assert found["metrics"]["click"]["auc"] == metrics.auc(label[cold], predictions["click"][cold])
    assert "interest" not in found["metrics"]  # a user-scope task knows no item
