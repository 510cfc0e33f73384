"""Losses by hand, the training loop, its early stopping, and that nothing unseen leaks into it."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import metrics, registry
from bench.api import Batch, Items, Method, Task, task_loss
from bench.data.load import Data
from bench.errors import Diverged
from bench.kinds import KINDS
from bench.nn import BatchNorm, Dropout, Gate, HistoryAttention, base_rate, mlp, mlps
from bench.nn.features import FeatureInputs
from bench.nn.norms import FusedLayer
from bench.nn.schedule import rate as factor
from bench.spec import config, derive_seed
from bench.spec.settings import COMMON
from bench.suites.specify import specify
from bench.training import loop, predict, score
from bench.training.build import build
from bench.training.contract import (
    ON_DATA,
    SMALL,
    answers_every_task,
    keeps_user_scope,
    learns,
    make,
    repeats_itself,
    saves_and_loads,
    small,
    trains_every_parameter,
)
from bench.training.loop import Fit, fit
from bench.training.optimizer import optimizer_for
from bench.training.predict import EVALUATION_ROWS
from bench.training.recipe import Recipe
from bench.training.skill import mean_skill
from tests.support.runs import made

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
    loss = KINDS["softmax"].loss(score, label, group, 3)
    wanted = F.cross_entropy(score.view(3, 4), torch.tensor([1, 1, 1]))
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(x, score, retain_graph=True)[0] for x in (loss, wanted)))


def test_softmax_within_groups_by_hand() -> None:
    """Each positive against the negatives alone; groups of one kind say nothing; undefined rows do not take part."""
    score = torch.tensor([1.0, 2.0, 0.5, 3.0, 4.0, 9.0], requires_grad=True)
    label = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, NAN])
    group = torch.tensor([0, 0, 0, 1, 2, 0])
    loss = KINDS["softmax"].loss(score, label, group, 3)
    wanted = sum(-math.log(math.exp(s) / (math.exp(s) + math.exp(0.5))) for s in (1.0, 2.0)) / 2
    assert math.isclose(loss.item(), wanted, rel_tol=1e-6)
    loss.backward()
    assert score.grad is not None and score.grad[3:].tolist() == [0.0, 0.0, 0.0]


def test_softmax_within_groups_is_stable() -> None:
    score = torch.tensor([1000.0, -1000.0, 1000.0, -1000.0], requires_grad=True)
    loss = KINDS["softmax"].loss(score, torch.tensor([0.0, 1.0, 1.0, 0.0]), torch.tensor([0, 0, 1, 1]), 2)
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


@pytest.mark.parametrize("dataset", ["sim-shop", "sim-news"])  # without and with a history
def test_parts_from_one_gather_are_those_of_one_gather_each_to_the_bit(dataset: str) -> None:
    """Vectors, the gradient of the table, and which ids are dropped."""
    data = small(dataset)
    inputs = make("shared_bottom", data.schema, id_dropout=0.3).train().inputs
    batch = next(data.train.batches(500, torch.Generator().manual_seed(0)))
    parts = [
        ("item", batch.items.cat[batch.item], batch.items.num[batch.item]),
        ("pair", batch.pair_cat, batch.pair_num),
        ("user", batch.user_cat, batch.user_num),
    ]
    found = []
    for gathers in ([parts], [[part] for part in parts]):
        torch.manual_seed(0)
        vectors = [v for gather in gathers for v in inputs.embed(*gather)]
        torch.manual_seed(1)
        loss = sum((torch.randn_like(v) * v).sum() for v in vectors)
        found.append([*vectors, *torch.autograd.grad(loss, inputs.table.weight)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True)) and found[0][-1].any()


def test_rows_of_the_table_have_an_embedding_layers_gradient_to_the_bit() -> None:
    data = small("sim-shop")
    method = make("shared_bottom", data.schema)
    inputs, batch = method.inputs, next(data.train.batches(500, torch.Generator().manual_seed(0)))
    codes, numbers = batch.items.cat[batch.item], batch.items.num[batch.item]
    weights = torch.randn(len(codes), codes.shape[1] * inputs.table.embedding_dim)
    (ours,) = torch.autograd.grad(
        inputs.eval().embed(("item", codes, numbers))[0][:, : weights.shape[1]], inputs.table.weight, weights
    )
    looked_up = F.embedding(codes + inputs.item_offset, inputs.table.weight)
    (theirs,) = torch.autograd.grad(looked_up.flatten(1), inputs.table.weight, weights)
    assert torch.equal(ours, theirs) and theirs.any()


def test_history_attention_ignores_padding() -> None:
    torch.manual_seed(0)
    attention = HistoryAttention(4)
    states = torch.randn(2, 3, 4)
    present = torch.tensor([[False, True, True], [False, False, False]])
    pooled = attention(states, present)
    torch.testing.assert_close(pooled[0], attention(states[:1, 1:], present[:1, 1:])[0])
    assert (pooled[1] == 0).all()


def test_fit_cannot_see_the_test_part() -> None:
    assert list(inspect.signature(fit).parameters)[:3] == ["method", "train", "valid"]
    assert not any("test" in name for name in inspect.signature(fit).parameters)
    source = inspect.getsource(fit) + inspect.getsource(loop._Training)
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
        optimizer.step()  # no gradient: nothing moves
        return torch.zeros(len(self.tasks))

    def on_epoch(self, epoch: int, valid: Mapping[str, float]) -> None:
        self.epoch = epoch

    def parts(self) -> list[tuple[tuple[Task, ...], nn.Module]]:
        return [((t,), self.counters[t.name]) for t in self.tasks] if self.apart else super().parts()


def run_script(
    script: dict[str, list[float]], apart: bool, patience: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[Scripted, Fit]:
    data = small("sim-news")
    method = Scripted(data, script, apart)

    def evaluate(model: Scripted, split: object) -> dict[str, float]:
        model.eval()
        for layer in model.counters.values():
            layer.weight.data.fill_(model.epoch + 1)
        return {t.name: script.get(t.name, [0.5] * 99)[model.epoch] for t in model.tasks}

    def scored(split: object, predictions: Mapping[str, float], **_: object) -> score.Scores:
        return {t.name: {t.metrics[0]: predictions[t.name]} for t in data.schema.tasks}

    monkeypatch.setattr("bench.training.predict.evaluate", evaluate)
    monkeypatch.setattr("bench.training.skill.score", scored)
    monkeypatch.setattr("bench.training.loop.score", scored)
    monkeypatch.setattr("bench.training.skill.chance", lambda a, b: {t.name: 0.5 for t in data.schema.tasks})
    done = fit(
        method, data.train, data.valid, Recipe(lr=0.1, weight_decay=0.0, batch_size=64, epochs=6, patience=patience)
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
    assert mean_skill(tasks, scores, constant) == (0.5 + 0.75) / 2
    scores["b"]["rmse"] = None
    assert mean_skill(tasks, scores, constant) == 0.5


def test_divergence_is_an_outcome() -> None:
    data = small("sim-news")
    method = make("shared_bottom", data.schema)
    with pytest.raises(Diverged, match="finite"):
        fit(method, data.train, data.valid, Recipe(lr=1e30, weight_decay=0.0, batch_size=64, epochs=3, patience=3))


def test_weight_decay_spares_biases_and_embeddings() -> None:
    method = make("shared_bottom", small("sim-news").schema)
    optimizer = optimizer_for(method, 0.1, 0.5)
    decayed = {id(p) for p in optimizer.param_groups[0]["params"]}
    assert optimizer.param_groups[0]["weight_decay"] == 0.5
    assert optimizer.param_groups[1]["weight_decay"] == 0.0
    table = {id(m.weight) for m in method.modules() if isinstance(m, nn.Embedding)}
    for name, p in method.named_parameters():
        assert (id(p) in decayed) == (p.ndim > 1 and id(p) not in table), name


def test_the_oracle_beats_chance_and_chance_is_chance() -> None:
    data = small("sim-news")
    found = score.references(data.train, data.test)
    for task in data.schema.tasks:
        name = task.metrics[0]
        oracle, chance = (found[k]["test"][task.name][name] for k in ("oracle", "chance"))
        assert metrics.skill(name, oracle, chance) > 0, task.name
    assert found["chance"]["test"]["click"]["auc"] == 0.5


def test_slices_score_only_unseen_rows() -> None:
    data = small("sim-news")
    predictions = score.oracle(data.test)
    assert predictions is not None
    cold = data.test.cold_item.numpy()
    found = score.slices(data.test, predictions)["cold_item"]
    assert found["rows"] == int(cold.sum())
    label = data.test.labels["click"].numpy()
    assert found["metrics"]["click"]["auc"] == metrics.auc(label[cold], predictions["click"][cold])
    assert "interest" not in found["metrics"]  # a user-scope task knows no item


# Settings that all methods have


def common(monkeypatch: pytest.MonkeyPatch, **given: object) -> None:
    """Other defaults for the settings common to all methods."""
    for key, value in given.items():
        assert key in COMMON
        monkeypatch.setitem(COMMON, key, value)


# All of them on one trunk, and one of each kind where inputs or norms are built otherwise: for experts, for independent
# parts, on a language model.
@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("mmoe", {"features": "dcn", "norm": "batch"}),
        ("shared_bottom", {"features": "fm", "norm": "batch_fused"}),
        ("frozen", {"features": "dcn", "norm": "layer"}),
    ],
    ids=str,
)
def test_the_contract_holds_with_every_input_layer_and_norm(
    name: str, given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = make(name, small("sim-news").schema)
    common(monkeypatch, **given)
    changed = make(name, small("sim-news").schema)
    assert sum(p.numel() for p in changed.parameters()) > sum(p.numel() for p in plain.parameters())
    for aspect in ON_DATA:
        aspect(name, small("sim-news"))


def side_vectors(inputs: FeatureInputs, x: Tensor, side: str) -> list[Tensor]:
    """The vectors of all fields of one row, numbers times their trained vectors, one by one."""
    fields, found, start, number = inputs.interactions[side].fields, [], 0, 0
    for coded, numbers in fields.counts:
        for _ in range(coded):
            found.append(x[start : start + fields.embedding])
            start += fields.embedding
        for _ in range(numbers):
            found.append(x[start] * inputs.interactions[side].numbers[number])
            start, number = start + 1, number + 1
    assert start == len(x) and number == len(inputs.interactions[side].numbers)
    return found


@pytest.mark.parametrize("dataset", ["sim-news", "sim-shop"])
def test_factorisation_machine_by_hand(dataset: str) -> None:
    """The sum of the products of all pairs of fields (Rendle, ICDM 2010, lemma 3.1), pair by pair."""
    data = small(dataset)
    inputs = make("shared_bottom", data.schema, features="fm").eval().inputs
    batch = next(data.test.inputs(64))
    user, candidate = inputs.concatenated(batch)
    got_user, got_candidate = inputs.sides(batch)
    rows = {"user": (user, got_user), "pair": (torch.cat([user[batch.group], candidate], dim=1), got_candidate)}
    for side, (x, got) in rows.items():
        for row in (0, len(x) // 2, len(x) - 1):
            vectors = side_vectors(inputs, x[row], side)
            wanted = sum((a * b for i, a in enumerate(vectors) for b in vectors[i + 1 :]), torch.zeros(16))
            torch.testing.assert_close(got[row], torch.cat([x[row], wanted]))


def test_cross_network_by_hand() -> None:
    data = small("sim-news")
    inputs = make("shared_bottom", data.schema, features="dcn").eval().inputs
    batch = next(data.test.inputs(64))
    user, candidate = inputs.concatenated(batch)
    got_user, got_candidate = inputs.sides(batch)
    rows = {"user": (user[3], got_user[3]), "pair": (torch.cat([user[batch.group[7]], candidate[7]]), got_candidate[7])}
    for side, (x0, got) in rows.items():
        x = x0.tolist()
        for layer in inputs.interactions[side].layers:
            w, b = layer.weight.tolist(), layer.bias.tolist()
            x = [x0[i].item() * (sum(w[i][j] * x[j] for j in range(len(x))) + b[i]) + x[i] for i in range(len(x))]
        torch.testing.assert_close(got, torch.tensor(x), atol=1e-5, rtol=1e-4)


def test_running_moments_are_those_of_the_training_batches_of_each_scope() -> None:
    """Recomputed from what the layer was given; evaluation then uses them, whatever rows it sees."""
    data = small("sim-news")
    method = make("shared_bottom", data.schema, norm="batch")
    layer = method.bottom[1]
    assert isinstance(layer, BatchNorm)
    seen: dict[str, list[Tensor]] = {"pair": [], "user": []}

    def note(layer: BatchNorm, args: tuple[Tensor]) -> None:
        if layer.training:
            seen[layer.scope].append(args[0].detach().double())

    handle = layer.register_forward_pre_hook(note)
    optimizer = optimizer_for(method.train(), 0.01, 0.0)
    for epoch in range(3):
        for batch in data.train.batches(64, torch.Generator().manual_seed(epoch)):
            method.step(batch, optimizer)
    handle.remove()
    assert len(seen["pair"]) == len(seen["user"]) > 20
    for scope, batches in seen.items():
        mean, var = batches[0].mean(0), batches[0].var(0)
        for i, x in enumerate(batches[1:], 2):
            share = max(1 / i, 0.1)
            if len(x) > 1:
                mean, var = (1 - share) * mean + share * x.mean(0), (1 - share) * var + share * x.var(0)
        torch.testing.assert_close(layer.get_buffer(f"{scope}_mean").double(), mean, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(layer.get_buffer(f"{scope}_var").double(), var, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(layer.user_mean, layer.pair_mean, atol=0.01)

    method.eval()
    given: list[tuple[str, Tensor, Tensor]] = []
    layer.register_forward_hook(lambda layer, args, out: given.append((layer.scope, args[0], out)))
    method(next(data.test.inputs(10**9)))
    assert [scope for scope, _, _ in given] == ["pair", "user"]
    for scope, x, out in given:
        mean, var = layer.get_buffer(f"{scope}_mean"), layer.get_buffer(f"{scope}_var")
        wanted = F.batch_norm(x, mean, var, layer.weight, layer.bias, eps=1e-5)
        torch.testing.assert_close(out, wanted)
        assert out.mean(0).abs().mean() < 0.5 and 0.5 < out.std(0).mean() < 2  # test rows are much like training rows


def test_batch_norm_is_torch_s() -> None:
    torch.manual_seed(0)
    ours, theirs = BatchNorm(5), nn.BatchNorm1d(5, momentum=None)
    for _ in range(4):
        x = torch.randn(7, 5) * 3 + 1
        torch.testing.assert_close(ours(x), theirs(x))
    one = torch.randn(1, 5)
    ours(one)  # a single row has no variance: it leaves the moments alone
    torch.testing.assert_close(ours(one), theirs.eval()(one))
    torch.testing.assert_close(ours.eval()(x), theirs(x))
    ours.scope = "user"
    assert not torch.allclose(ours(x), theirs(x))


@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_the_fused_norm_is_norm_relu_and_dropout(rate: float) -> None:
    """Outputs, gradients of input and parameters, and running moments; at evaluation and for a single row too."""
    torch.manual_seed(0)
    plain, fused = mlp(19, 24, 2, rate), mlp(19, 24, 2, rate)
    plain.normalise("batch")
    fused.normalise("batch_fused")
    assert [type(layer) for layer in fused] == [FusedLayer] * 2
    for norm in (layer for layer in plain if isinstance(layer, BatchNorm)):
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
    order = [0, 1, 4, 5]  # linear and norm of both layers
    inside = [part for layer in fused for part in (layer.linear, layer.norm)]
    for i, layer in zip(order, inside, strict=True):
        layer.load_state_dict(plain[i].state_dict())
    inputs = torch.randn(64, 19) * 3 + 1
    found = []
    for layers in (plain, fused):
        x = inputs.clone().requires_grad_()
        torch.manual_seed(1)
        y = layers(x)
        y.square().sum().backward()
        found.append((y, x.grad))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-3)
    for i, layer in zip(order, inside, strict=True):
        for (name, ours), theirs in zip(layer.named_parameters(), plain[i].parameters(), strict=True):
            # The norm hides a linear layer's bias: its gradient is 0 but for rounding.
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-2, msg=f"{i} {name}")
        torch.testing.assert_close(dict(layer.named_buffers()), dict(plain[i].named_buffers()), rtol=1e-4, atol=1e-4)
    one = torch.randn(1, 19)
    torch.manual_seed(2)
    wanted = plain(one)
    torch.manual_seed(2)
    torch.testing.assert_close(fused(one), wanted, rtol=1e-4, atol=1e-4)
    with torch.inference_mode():
        torch.testing.assert_close(fused.eval()(inputs), plain.eval()(inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_fused_experts_share_what_they_read(kind: torch.dtype) -> None:
    """Their common input is padded, and under autocast converted, once: outputs and gradients are each expert's own."""
    torch.manual_seed(0)
    experts = mlps(3, 19, 16, 2, 0.0)
    for expert in experts:
        expert.normalise("batch_fused")
    exact = {"rtol": 1e-5, "atol": 1e-5} if kind is torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    together, alone = (torch.arange(19 * 32.0).view(32, 19).sin().requires_grad_() for _ in range(2))
    weights = torch.randn(32, 3, 16)
    with torch.autocast("cpu", kind, enabled=kind is not torch.float32):
        found = experts(together)
        wanted = [expert(alone) for expert in experts]
    assert found.dtype == kind and found.shape == (32, 3, 16)
    torch.testing.assert_close(found, torch.stack(wanted, dim=1), rtol=0, atol=0)
    (found * weights).sum().backward()
    gradients = [p.grad for p in experts.parameters()]
    experts.zero_grad(set_to_none=True)
    (torch.stack(wanted, dim=1) * weights).sum().backward()
    torch.testing.assert_close(gradients, [p.grad for p in experts.parameters()])
    torch.testing.assert_close(together.grad, alone.grad, **exact)
    experts.eval()
    with torch.inference_mode():
        torch.testing.assert_close(experts(alone)[:, 1], experts[1](alone))


def test_fused_layers_are_evaluated_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same predictions; the other norms keep the number of rows that their first records had."""
    data = small("sim-news")
    asked: list[int] = []
    inputs = type(data.test).inputs

    def noted(self: Any, size: int) -> Any:
        asked.append(size)
        return inputs(self, size)

    monkeypatch.setattr(type(data.test), "inputs", noted)
    plain, fused = (make("mmoe", data.schema, norm=norm) for norm in ("batch", "batch_fused"))
    predict.evaluate(plain, data.test)
    once = predict.evaluate(fused, data.test)
    monkeypatch.setattr("bench.training.predict.FUSED_ROWS", 64)
    assert asked == [EVALUATION_ROWS, 2048] and data.test.rows > 64
    for name, values in predict.evaluate(fused, data.test).items():
        torch.testing.assert_close(torch.from_numpy(values), torch.from_numpy(once[name]))


def test_a_norm_stands_behind_every_linear_layer_of_an_mlp() -> None:
    layers = mlp(3, 4, 2, 0.1)
    layers.normalise("layer")
    assert [type(layer) for layer in layers] == [nn.Linear, nn.LayerNorm, nn.ReLU, Dropout] * 2
    method = make("mmoe", small("sim-news").schema, norm="layer")
    assert all(isinstance(e[1], nn.LayerNorm) for e in method.experts)
    assert all(isinstance(t[0][1], nn.LayerNorm) and isinstance(t[-1], nn.Linear) for t in method.towers.values())


def fit_once(method: Method, data: Data, **given: Any) -> Fit:
    usual = {"lr": 0.01, "weight_decay": 0.0, "batch_size": 256, "epochs": 1, "patience": 9, "seed": 0}
    return fit(method, data.train, data.valid, Recipe(**usual | given))


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules_are_torch_s(schedule: str) -> None:
    steps, optimizer = 40, torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    oracle = {
        "constant": lambda o: torch.optim.lr_scheduler.ConstantLR(o, factor=1.0),
        "linear": lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=steps),
        "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=steps),
    }[schedule](optimizer)
    for step in range(steps):
        assert math.isclose(factor(schedule, 0.0, steps, step), oracle.get_last_lr()[0], abs_tol=1e-9)
        optimizer.step()
        oracle.step()


def test_warm_up_rises_in_equal_steps() -> None:
    factors = [factor("linear", 0.1, 50, step) for step in range(51)]
    assert factors[:6] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0])
    assert [a - b for a, b in itertools.pairwise(factors[5:])] == pytest.approx([1 / 45] * 45)
    assert factor("linear", 0.1, 50, 60) == factor("cosine", 0.1, 50, 60) == 0.0  # more batches than reckoned


def watched(name: str, data: Data, updates: int) -> tuple[Method, list[float], list[dict[str, float]]]:
    """A method that makes several updates a batch in a step of its own, and what its optimizer saw at each."""
    base = registry.load_method(name)
    rates: list[float] = []
    norms: list[dict[str, float]] = []

    class Own(base):
        def step(self, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
            if not rates:
                optimizer.register_step_post_hook(lambda *_: note(optimizer))
            for _ in range(updates):
                losses = super().step(batch, optimizer)
            return losses

    def note(optimizer: torch.optim.Optimizer) -> None:
        rates.append(optimizer.param_groups[0]["lr"])
        parts = {tasks[0].name: [p.grad for p in m.parameters() if p.grad is not None] for tasks, m in method.parts()}
        norms.append({n: torch.cat([g.flatten() for g in own]).norm().item() for n, own in parts.items()})

    torch.manual_seed(0)
    resolved, _ = config.resolve(name, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "load_method", lambda _: Own)
        method = build(name, resolved, data.schema)
    return method, rates, norms


def test_schedule_and_clipping_hold_for_a_step_of_the_methods_own() -> None:
    data = small("sim-news")
    method, rates, norms = watched("shared_bottom", data, updates=2)
    fit_once(method, data, batch_size=64, epochs=2, schedule="cosine", warmup=0.1, grad_clip=0.05)
    batches = 2 * math.ceil(data.train.rows / 64)
    wanted = [0.01 * factor("cosine", 0.1, batches, i) for i in range(len(rates) // 2)]
    assert rates[::2] == rates[1::2] == pytest.approx(wanted)
    assert abs(len(rates) / 2 - batches) <= 0.1 * batches and rates[-2] < 0.01 * rates[batches // 4]
    (largest,) = {key for norm in norms for key in norm}
    assert all(norm[largest] <= 0.05 * 1.001 for norm in norms) and norms[0][largest] == pytest.approx(0.05, rel=1e-3)


def test_independent_parts_are_clipped_apart() -> None:
    data = small("sim-news")
    method, _, norms = watched("single_task", data, updates=1)
    fit_once(method, data, grad_clip=1e-3)
    assert set(norms[0]) == {t.name for t in data.schema.tasks}
    assert all(value == pytest.approx(1e-3, rel=1e-2) for value in norms[0].values())


def test_settings_at_their_defaults_change_nothing() -> None:
    data, results = small("sim-news"), []
    for given in ({}, {k: COMMON[k] for k in ("schedule", "warmup", "grad_clip", "decay_embeddings")}):
        method = make("mmoe", data.schema)
        fit_once(method, data, **given)
        results.append(method.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(results[0].values(), results[1].values(), strict=True))


def test_weight_decay_on_embeddings_only_if_wanted() -> None:
    method = make("shared_bottom", small("sim-news").schema, norm="layer")
    optimizer = optimizer_for(method, 0.1, 0.5, decay_embeddings=True)
    decayed = {id(p) for p in optimizer.param_groups[0]["params"]}
    assert all((id(p) in decayed) == (p.ndim > 1) for p in method.parameters())
    assert id(method.inputs.table.weight) in decayed


@pytest.mark.parametrize("name", ["mmoe", "frozen"])
def test_mixed_precision(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrix products are in bfloat16, in training and at evaluation; the rest stays float32 and learns as usual."""
    data = small("sim-news")
    full = make(name, data.schema).eval()
    common(monkeypatch, precision="bfloat16")
    method = make(name, data.schema).eval()
    types = set()
    for module in method.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda m, args, out: types.add(out.dtype))
    batch = next(data.train.batches(256, torch.Generator().manual_seed(0)))
    outputs = method(batch)
    assert {o.dtype for o in outputs.values()} == {torch.float32}
    assert torch.bfloat16 in types and torch.float32 not in types - {torch.bfloat16}
    with torch.no_grad():
        for task, output in full(batch).items():
            torch.testing.assert_close(outputs[task], output, atol=0.05, rtol=0.05)
            assert not torch.equal(outputs[task], output)
    losses = method.losses(outputs, batch)
    method.backward(losses)
    assert losses.dtype == torch.float32
    assert {p.grad.dtype for p in method.parameters() if p.grad is not None} == {torch.float32}
    for aspect in (
        answers_every_task,
        trains_every_parameter,
        keeps_user_scope,
        repeats_itself,
        saves_and_loads,
        learns,
    ):
        aspect(name, data)


def test_gates_tell_their_shares_and_their_dead() -> None:
    torch.manual_seed(0)
    gate, x = Gate(3, 4), torch.randn(6, 3)
    assert gate.utilisation() == {}
    with torch.no_grad():
        gate.bias.copy_(torch.tensor([0.0, 1.0, 0.5, -9.0]))
    gate.train()(x)
    assert gate.utilisation() == {}  # training does not count
    gate.eval()
    gate(x[:2]), gate(x[2:])
    by_hand = torch.softmax(x @ gate.weight.T + gate.bias, dim=1).mean(0)
    found = gate.utilisation()
    assert found["usage"] == pytest.approx(by_hand.tolist(), rel=1e-5)
    assert found["dead"] == 0.25  # a weight near exp(-10), below a tenth of a quarter


def test_the_record_has_the_gates_of_the_validation_part() -> None:
    given = {"knobs": SMALL, "budget": {"epochs": 1, "patience": 1}}
    spec = specify("sim-news", "mmoe", **given)
    record, _ = made(spec)
    data = small("sim-news")
    assert set(record["gates"]) == {f"gates.{t.name}" for t in data.schema.tasks}
    torch.manual_seed(derive_seed("weights", 0))
    method = build("mmoe", spec.config, data.schema)
    keys = ("lr", "weight_decay", "batch_size")
    fit_once(method, data, **{k: spec.config[k] for k in keys}, patience=1)
    for gate in method.gates.values():
        gate.usage.zero_()
    predict.evaluate(method, data.valid)
    for path, found in record["gates"].items():
        usage = method.get_submodule(path).usage
        assert found["usage"] == pytest.approx((usage / usage.sum()).tolist(), rel=1e-4)
        assert found["dead"] == sum(share < 0.1 / 4 for share in found["usage"]) / 4
    ungated, _ = made(specify("sim-news", "shared_bottom", **given))
    assert ungated["gates"] == {}
