"""Distillation: its losses, what they reach, the gates, and the teacher as a run of its own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from bench.api import Batch, Items, Task, task_loss
from bench.errors import BenchError
from bench.metrics import METRICS
from bench.spec import Spec, config
from bench.suites.specify import specify
from bench.training.contract import SMALL, TASK_SETS, make, small, tiny_language_model
from bench.training.predict import evaluate
from bench.training.session import trained
from bench.training.skill import constants, on_meta
from methods.distill import Distill, features_of, soft_loss
from methods.distill import feature_loss as distance
from methods.lora import Lora
from tests.support.runs import made

CPU = torch.device("cpu")
NAN = float("nan")


def batch_of(label: list[float], group: list[int]) -> Batch:
    """Rows of a task "t", and nothing else."""
    empty, groups = torch.zeros(0), max(group) + 1
    rows = torch.zeros(len(group), dtype=torch.long)
    return Batch(
        user_cat=torch.zeros(groups, 0),
        user_num=torch.zeros(groups, 0),
        history=torch.zeros(groups, 0),
        item=rows,
        pair_cat=empty,
        pair_num=empty,
        group=torch.tensor(group),
        items=Items(empty, empty),
        labels={"t": torch.tensor(label)},
    )


@lru_cache
def spec(method: str = "distill", groups: int = 60, epochs: int = 2, **given: Any) -> Spec:
    """A run on small data. A "__" in a key stands for its dot."""
    settings = {k.replace("__", "."): v for k, v in given.items()}
    return specify(
        "sim-news",
        method,
        given={"lm": tiny_language_model(), "batch_size": 256, **settings},
        knobs={**SMALL, "groups": groups},
        budget={"epochs": epochs, "patience": epochs},
    )


def student(dataset: str = "sim-news", **given: Any) -> Distill:
    """One to which an untrained teacher was handed, before its first epoch of ten."""
    data = small(dataset)
    method: Any = make("distill", data.schema, **given)
    train, method.meta = data.train.cut(round(0.9 * data.train.groups))
    teacher = make("single_task", data.schema, seed=1).eval().requires_grad_(False)
    method.on_teacher(teacher, on_meta(teacher, method.meta, constants(train, method.meta))[1], 10)
    method.on_start(train)
    assert isinstance(method, Distill)
    return method.train()


def test_soft_loss_of_probabilities_and_values_by_hand() -> None:
    batch = batch_of([1.0, NAN, 0.0], [0, 0, 1])
    ours, theirs = torch.tensor([0.3, 9.0, -1.2]), torch.tensor([1.0, -9.0, 0.5])
    s, t = ours[[0, 2]].double().numpy(), theirs[[0, 2]].double().numpy()
    p, q = 1 / (1 + np.exp(-s)), 1 / (1 + np.exp(-t))
    binary = soft_loss(Task("t", "binary"), ours, theirs, batch).item()
    assert binary == pytest.approx(-np.mean(q * np.log(p) + (1 - q) * np.log(1 - p)), rel=1e-6)
    value = soft_loss(Task("t", "regression"), ours, theirs, batch).item()
    assert value == pytest.approx(np.mean((s - t) ** 2), rel=1e-6)


def test_soft_loss_of_classes_by_hand() -> None:
    task = Task("t", "multiclass", classes=("a", "b", "c"))
    batch = batch_of([2.0, 0.0, NAN], [0, 1, 2])
    ours, theirs = torch.tensor([[0.0, 1, 2], [3, 1, 0], [5, 5, 5]]), torch.tensor([[1.0, 0, 1], [0, 0, 4], [9, 0, 0]])
    exp_s, exp_t = (np.exp(x[:2].double().numpy()) for x in (ours, theirs))
    p, q = (e / e.sum(axis=1, keepdims=True) for e in (exp_s, exp_t))
    assert soft_loss(task, ours, theirs, batch).item() == pytest.approx(-(q * np.log(p)).sum(1).mean(), rel=1e-6)


def test_soft_loss_of_a_ranking_by_hand() -> None:
    """Cross-entropy of the softmax over each group's known rows; the group with one and the one without say nothing."""
    batch = batch_of([1.0, 0.0, 0.0, 0.0, 1.0, NAN, 1.0, NAN], [0, 0, 0, 1, 1, 1, 2, 3])
    ours = torch.tensor([0.5, -1, 2, 0, 1, 80, 3, 7], requires_grad=True)
    theirs = torch.tensor([3.0, 0, 1, -200, 1, -80, 5, 0])
    total = 0.0
    for rows in ([0, 1, 2], [3, 4]):
        s, t = ours.detach()[rows].double(), theirs[rows].double()
        total -= (t.softmax(0) * s.log_softmax(0)).sum().item()
    loss = soft_loss(Task("t", "softmax"), ours, theirs, batch)
    assert loss.item() == pytest.approx(total / 2, rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, ours)
    wanted = torch.zeros(8)
    for rows in ([0, 1, 2], [3, 4]):
        wanted[rows] = (ours.detach()[rows].softmax(0) - theirs[rows].softmax(0)) / 2
    torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("kind", ["binary", "regression", "multiclass"])
def test_the_sum_of_both_losses_is_that_of_the_mixed_target(kind: Any) -> None:
    """BAM's target (y + lam q) / (1 + lam): the gradients differ by the factor 1 + lam alone."""
    task, lam = Task("t", kind, classes=("a", "b", "c") if kind == "multiclass" else ()), 0.7
    batch = batch_of([1.0, 0.0, 1.0, NAN], [0, 0, 1, 1])
    shape = (4, 3) if kind == "multiclass" else (4,)
    ours, theirs = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).unbind()
    ours = ours.requires_grad_()
    both = task_loss(task, ours, batch) + lam * soft_loss(task, ours, theirs, batch)
    label = batch.labels["t"][:3]
    if kind == "multiclass":
        hard, q = torch.nn.functional.one_hot(label.long(), 3), theirs[:3].softmax(1)
        mixed = torch.nn.functional.cross_entropy(ours[:3], (hard + lam * q) / (1 + lam))
    else:
        q = theirs[:3].sigmoid() if kind == "binary" else theirs[:3]
        mixed = task_loss(task, ours[:3], batch_of(((label + lam * q) / (1 + lam)).tolist(), [0, 0, 1]))
    wanted = torch.autograd.grad((1 + lam) * mixed, ours)
    torch.testing.assert_close(torch.autograd.grad(both, ours), wanted)


def test_feature_loss_by_hand() -> None:
    student, teacher = torch.tensor([[3.0, 4], [1, 0], [1, 1]]), torch.tensor([[0.0, 2], [5, 0], [0, 0]])
    label = torch.tensor([0.0, 1.0, NAN])
    assert distance(student, teacher, label).item() == pytest.approx((0.6**2 + 0.2**2 + 0) / 2)


@pytest.mark.parametrize("updates", ["all", "adapters"])
def test_what_the_teachers_terms_reach(updates: str) -> None:
    method = student(updates=updates, gate="constant")
    batch = next(small("sim-news").train.batches(256, torch.Generator().manual_seed(0)))
    assert set(method.adaptors) == {t.name for t in method.tasks}
    losses = method.losses(method(batch), batch)
    names, parameters = zip(*((n, p) for n, p in method.named_parameters() if p.requires_grad), strict=True)
    graph: Any = {"retain_graph": True, "materialize_grads": True, "allow_unused": True}
    own = torch.autograd.grad(losses.sum(), parameters, **graph)
    assert method.term is not None
    theirs = torch.autograd.grad(method.term, parameters, **graph)
    method.backward(losses)
    changed = set()
    for name, p, a, b in zip(names, parameters, own, theirs, strict=True):
        adapts = "lora_" in name or name.startswith("adaptors.")
        torch.testing.assert_close(p.grad, a + b if adapts or updates == "all" else a, msg=name)
        if not torch.equal(p.grad, a):
            changed.add(name.split(".")[0] if not adapts else "adaptors" if name.startswith("adaptors.") else "lora")
    assert changed == {"adaptors", "lora"} | ({"model"} if updates == "all" else set())
    assert all(p.grad is None for m in method.trained_teacher for p in m.parameters())
    assert not any("trained_teacher" in name for name in method.state_dict())


@pytest.mark.parametrize("dataset", TASK_SETS)
def test_gates_follow_the_gap(dataset: str) -> None:
    """Of the tasks' own metrics, of which the least may be the best: a student that gets better is taught less."""
    method = student(dataset, strength=2.0, sharpness=5.0)
    metrics = {t.name: t.metrics[0] for t in method.tasks}
    first = dict(method.gates)
    perfect = {name: METRICS[metric].perfect for name, metric in metrics.items()}
    method.on_meta(1, perfect, dict.fromkeys(metrics, 1.0))
    best = dict(method.gates)
    method.on_meta(2, {}, dict.fromkeys(metrics, 0.0))
    for name, gate in method.gates.items():
        reached = method.skill[name]
        assert first[name] == pytest.approx(2 / (1 + np.exp(-5 * reached)))
        assert best[name] == pytest.approx(2 * 0.9 / (1 + np.exp(-5 * (reached - 1))))
        assert gate == pytest.approx(2 * 0.8 / (1 + np.exp(-5 * reached)))
        assert best[name] < 0.9 * first[name]
    at_par, _ = method.decisions
    assert at_par["epoch"] == 1 and at_par["metrics"] == perfect
    assert at_par["gaps"] == {name: method.skill[name] - 1 for name in metrics}
    assert [(c["from"], c["to"]) for c in at_par["changes"]] == [(first[n], best[n]) for n in metrics]


@pytest.mark.parametrize(("gate", "then"), [("constant", [3.0, 3.0]), ("annealed", [2.7, 2.4])])
def test_controls_do_not_follow_the_gap(gate: str, then: list[float]) -> None:
    method = student(gate=gate, strength=3.0)
    assert set(method.gates.values()) == {3.0}
    for epoch, wanted in enumerate(then, 1):
        method.on_meta(epoch, {"click": 0.5 + 0.2 * epoch}, {"click": 0.4 * epoch})
        assert list(method.gates.values()) == pytest.approx([wanted] * len(method.tasks))


def test_a_shuffled_teacher_says_the_same_of_other_rows() -> None:
    data = small("sim-news")
    batch = next(data.train.batches(256, torch.Generator().manual_seed(0)))
    (model,) = student().trained_teacher
    outputs, features = student().taught(model, batch)
    torch.manual_seed(3)
    others, moved = student(shuffle=True).taught(model, batch)
    for task in data.schema.tasks:
        kept, there = outputs[task.name], others[task.name]
        assert not torch.equal(kept, there)
        assert torch.equal(kept.sort(dim=0).values, there.sort(dim=0).values)
        said = [(kept, features[task.name]), (there, moved[task.name])]
        rows = [torch.cat([output.reshape(len(output), -1), f], dim=1).tolist() for output, f in said]
        assert sorted(rows[0]) == sorted(rows[1])  # both moved alike


@pytest.mark.parametrize("given", [{"gate": "none"}, {"gate": "constant", "strength": 0.0, "feature": 0.0}], ids=str)
def test_without_a_teachers_terms_it_is_lora(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: neither the teacher's training nor its answers draw from the student's random numbers."""
    monkeypatch.setattr(Lora, "meta_share", Distill.meta_share)
    record, plain = made(spec("lora"))
    assert record["status"] == "ok", record["error"]
    taught, found = made(spec(**given))
    assert taught["status"] == "ok", taught["error"]
    for task, values in plain.items():
        np.testing.assert_array_equal(found[task], values, err_msg=task)


def test_a_teacher_is_trained_once_and_found_again(cache: Path) -> None:
    folder, chosen = cache / "teachers", spec(strength=1.5)
    before = set(folder.glob("*"))
    for path in before:
        path.unlink()
    said: list[str] = []
    records = []
    for delete in (False, False, True):
        said.clear()
        for path in folder.glob("*") if delete else ():
            path.unlink()
        record, _ = made(chosen, report=said.append)
        assert record["status"] == "ok", record["error"]
        assert any(line.startswith("teacher single_task: epoch 1/2") for line in said) == (len(records) != 1)
        (path,) = folder.glob("*")
        with safe_open(path, "pt") as file:
            assert record["cost"]["fit_s"] > float(file.metadata()["seconds"]) > 0
        records.append({k: record[k] for k in ("key", "spec", "metrics", "curve", "best_epoch", "decisions")})
    assert records[0] == records[1] == records[2]
    assert [d["epoch"] for d in records[0]["decisions"]] == [1, 2]
    path.write_bytes(b"damaged")
    with pytest.raises(BenchError, match=rf"{path.name} does not hold this teacher; delete it"):
        made(chosen)
    path.unlink()


def test_the_spec_says_what_the_teacher_is() -> None:
    """Its part of a configuration is that of its own run with the same settings."""
    common: Mapping[str, Any] = {"lr": 0.01, "balancer": "dwa", "augment": "mask"}
    own = {"trunk": "mmoe", "trunk.experts": 3, "rank": 4}
    given = {**common, "teacher": "lora", **{f"teacher.{k}": v for k, v in own.items()}}
    resolved, parts = config.resolve("distill", given)
    alone, alone_parts = config.resolve("lora", {**common, **own})
    assert config.teachers(resolved) == alone
    assert config.teachers(parts) == alone_parts
    assert resolved["trunk"] == "shared_bottom" and resolved["rank"] == 8
    assert spec(teacher="full", teacher__lm=tiny_language_model()).config["teacher.lm"].startswith("local@")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"teacher": "single_tusk"}, "unknown method 'single_tusk'; did you mean 'single_task'"),
        ({"teacher": "distill"}, "setting 'teacher': 'distill' itself learns from a teacher"),
        ({"trunk": "distill"}, "setting 'trunk': 'distill' is itself built on a trunk"),
        ({"teacher": "lora", "teacher.trunk": "frozen"}, "'teacher.trunk': 'frozen' is itself built on a trunk"),
        ({"teacher.experts": 3}, "unknown setting 'teacher.experts'"),
        ({"gate": "open"}, "gate 'open': choose gap, constant, annealed, none"),
        ({"updates": "none"}, "updates 'none': choose all, adapters"),
        ({"feature": -1}, "feature -1.0: must be at least 0"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be(given: dict[str, Any], told: str) -> None:
    with pytest.raises(BenchError, match=told):
        make("distill", small("sim-news").schema, **given)


def test_a_teacher_that_declines_or_diverges() -> None:
    record, _ = made(spec(teacher="esmm"))
    assert record["status"] == "declined" and record["error"].startswith("teacher 'esmm': no funnel")
    record, _ = made(spec(lr=1e30))
    assert record["status"] == "diverged" and record["error"].startswith("teacher 'single_task': ")


def test_a_teacher_without_towers_gives_no_features() -> None:
    method = student(trunk="mmoe")
    data = small("sim-news")
    method.on_teacher(make("popularity", data.schema).eval(), {}, 10)
    method.adaptors.clear()
    method.on_start(data.train)
    assert not method.adaptors
    with features_of(method) as found:
        method(next(data.test.inputs(64)))
    assert set(found) == {t.name for t in data.schema.tasks}


@pytest.mark.slow
def test_real_teachers_are_met_more_closely_than_shuffled_ones() -> None:
    """Mean over tasks of the correlation between the student's and the teacher's predictions on the test part."""
    data, met = small("sim-news"), {}
    for shuffle in (False, True):
        run = spec(groups=SMALL["groups"], shuffle=shuffle, gate="constant", strength=5.0, lr=0.01, epochs=4)
        method, _ = trained(run, data, CPU)
        assert isinstance(method, Distill)
        (teacher,) = method.trained_teacher
        ours, theirs = evaluate(method, data.test), evaluate(teacher, data.test)
        met[shuffle] = np.mean([correlation(ours[name], theirs[name]) for name in ours])
    assert met[False] > met[True] + 0.3, met


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """0 where one of them is constant."""
    a, b = a.ravel() - a.mean(), b.ravel() - b.mean()
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))


def test_features_of_a_teacher_with_a_pass_for_each_task_are_refused() -> None:
    data = small("sim-news")
    teacher = make("mtl_lora", data.schema)
    with pytest.raises(ValueError, match="set feature=0"):
        make("distill", data.schema).on_teacher(teacher, {}, 3)
    make("distill", data.schema, feature=0.0).on_teacher(teacher, {}, 3)
