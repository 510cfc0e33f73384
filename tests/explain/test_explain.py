"""Explanations: measurements that change nothing, closed forms, hand counts, and sanity checks that can fail."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.api import Batch, Method, Schema, Task
from bench.explain import report
from bench.explain.attribute import deletion, integrated_gradients, masked, rank_correlation, shuffled
from bench.explain.measure import attributions, explain
from bench.explain.outputs import consistency, transparent
from bench.explain.watch import Watch, watched
from bench.suites.specify import specify
from bench.training import contract
from bench.training.contract import make, small
from bench.training.loop import fit
from bench.training.predict import evaluate
from bench.training.recipe import Recipe
from bench.training.session import trained
from tests.support.command import SMALL, Bench, Plugin
from tests.support.runs import data_of, made

CPU = torch.device("cpu")
SPEC: dict[str, Any] = {
    "dataset": "sim-shop", "method": "mmoe", "knobs": contract.SMALL, "budget": {"epochs": 2}, "seed": 3,
}  # fmt: skip


class Toy(Method):
    """L_i = |s - a_i|^2 / 2 in shared parameters s; ``own`` belongs to the first task alone."""

    def __init__(self, start: list[float], targets: list[list[float]]) -> None:
        tasks = tuple(Task(f"task{i}", "regression") for i in range(len(targets)))
        super().__init__(Schema(tasks, (), {}, 0, ()))
        self.shared_part = nn.Linear(1, len(start), bias=False)
        self.shared_part.weight.data = torch.tensor(start)
        self.own = nn.Parameter(torch.tensor(1.0))
        self.targets = torch.tensor(targets)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {}

    def losses(self, outputs: object, batch: Batch) -> Tensor:
        apart = 0.5 * (self.shared_part.weight - self.targets).square().sum(dim=1)
        return apart + torch.cat([self.own.square()[None], torch.zeros(len(apart) - 1)])


@pytest.fixture(scope="module", autouse=True)
def few_rows() -> Iterator[None]:
    """Attributions of 32 rows, where users get those of 128, show all that is checked here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.explain.measure.ROWS", 32)
        yield


def measure(method: Method, lr: float = 0.1) -> dict[str, Any]:
    watch, batch = Watch(), SimpleNamespace(item=torch.zeros(1))
    watch.measure(method, batch, torch.optim.SGD(method.parameters(), lr=lr))
    return watch.summary()


# What is measured in training


def test_affinity_in_closed_form() -> None:
    """A step of length lr sqrt(n) for the summed gradient; the loss after it by hand, in float64."""
    start, targets = [1.0, 2.0, -1.0], [[0.0, 0.0, 0.5], [3.0, 1.0, -1.5], [1.0, -2.0, 4.0]]
    found = measure(Toy(start, targets), lr=0.01)
    s, a = np.array(start), np.array(targets)
    gradients = s - a
    eta = 0.01 * np.sqrt(3) / np.linalg.norm(gradients.sum(axis=0))
    own = np.array([1.0, 0.0, 0.0])
    before = 0.5 * ((s - a) ** 2).sum(axis=1) + own
    wanted = [[1 - (0.5 * ((s - eta * g - a[j]) ** 2).sum() + own[j]) / before[j] for j in range(3)] for g in gradients]
    assert found["measurements"] == 1
    np.testing.assert_allclose(found["affinity"]["mean"], wanted, rtol=1e-3)
    assert np.min(wanted) < 0 < np.min(np.diag(wanted))  # the example has conflicts, and each step helps its own task


def test_cosines_of_known_gradients() -> None:
    """Orthogonal, opposite, the same direction; a task whose loss is 0 says nothing."""
    found = measure(Toy([0.0, 0.0], [[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [5.0, 0.0], [0.0, 0.0]]))
    assert set(found["cosine"]) == {"all", "shared_part"}  # ``own`` is not shared
    assert found["cosine"]["all"] == found["cosine"]["shared_part"]
    mean, conflict = (found["cosine"]["all"][key] for key in ("mean", "conflict"))
    assert mean[0] == pytest.approx([1, 0, -1, 1, None])
    assert conflict[0] == [0, 0, 1, 0, None]
    assert mean[4] == [None] * 5
    assert [row[4] for row in found["affinity"]["mean"]] == [None] * 5  # no loss to lower


def test_means_over_measurements_leave_out_what_is_undefined() -> None:
    watch = Watch()
    watch.affinity = [np.array([[1.0, np.nan]]), np.array([[3.0, np.nan]]), np.array([[np.nan, 5.0]])]
    found = watch.summary()["affinity"]
    assert found["mean"] == [[2.0, 5.0]]
    assert found["error"] == [[pytest.approx(1 / np.sqrt(2)), 0.0]]


@pytest.mark.parametrize("settings", [
    {"method": "mmoe"},
    {"method": "ple", "norm": "batch", "grad_clip": 1.0},
    {"method": "escm2", "balancer": "pcgrad"},
    {"method": "metaheac"},
    {"method": "single_task", "features": "fm"},
    {"method": "shared_bottom", "balancer": "famo"},
])  # fmt: skip
def test_measuring_changes_nothing(settings: dict[str, Any]) -> None:
    """Bit for bit: curve, predictions and the state of the random generator. Every step is measured."""
    given = {key: value for key, value in settings.items() if key != "method"}
    knobs = {**contract.SMALL, "groups": 60}
    spec = specify("sim-shop", settings["method"], given=given, knobs=knobs, budget={"epochs": 2})
    data, watch = data_of(spec), Watch()

    def done(*watching: Any) -> tuple[list[Any], dict[str, np.ndarray], Tensor]:
        method, result = trained(spec, data, CPU, lambda line: None, *watching)
        return result.curve, evaluate(method, data.valid), torch.get_rng_state()

    plain, measured = done(), done(partial(watched, watch=watch, every=1))
    assert len(watch.affinity) == watch.steps > 0
    assert plain[0] == measured[0]
    assert torch.equal(plain[2], measured[2])
    for name, values in plain[1].items():
        np.testing.assert_array_equal(values, measured[1][name])


def test_measurements_are_every_tenth_step_and_end_with_the_context() -> None:
    method, watch = Toy([0.0, 0.0], [[1.0, 0.0], [0.0, 2.0]]), Watch()
    optimizer, batch = torch.optim.SGD(method.parameters(), lr=0.1), SimpleNamespace(item=torch.zeros(1))
    with watched(method, watch):
        for _ in range(21):
            method.step(batch, optimizer)
    assert (watch.steps, len(watch.affinity)) == (21, 3)
    method.step(batch, optimizer)
    assert watch.steps == 21


def test_single_task_models_share_nothing() -> None:
    """No affinity but 0, and no cosines."""
    data, watch = small("sim-news"), Watch()
    method = make("single_task", data.schema)
    with watched(method, watch):
        fit(method, data.train, data.valid, Recipe(lr=1e-2, weight_decay=0.0, batch_size=512, epochs=1, patience=1))
    found = watch.summary()
    assert np.all(np.array(found["affinity"]["mean"]) == 0)
    assert found["cosine"] == {}


# Attributions


@pytest.fixture(scope="module")
def news() -> tuple[Method, Any]:
    """A method that has learned something, and its data."""
    data = small("sim-news")
    torch.manual_seed(0)
    method = make("mmoe", data.schema)
    fit(method, data.train, data.valid, Recipe(lr=1e-2, weight_decay=0.0, batch_size=256, epochs=4, patience=4))
    return method, data


@pytest.fixture(scope="module")
def attributed(news: tuple[Method, Any]) -> dict[str, Any]:
    found = attributions(news[0], news[1].valid, 0)
    assert found is not None
    return found


def test_all_inputs_known_is_the_method_itself(news: tuple[Method, Any]) -> None:
    method, data = news
    rows = torch.arange(data.valid.rows)
    with torch.no_grad(), masked(method, data.valid) as model:
        found = model(torch.ones(len(rows), len(model.names)), rows)
    for task, wanted in evaluate(method, data.valid).items():
        ours = found[task].sigmoid() if task == "click" else found[task]
        if task == "interest":
            ours, wanted = ours.softmax(dim=1), wanted[data.valid.group]
        np.testing.assert_allclose(ours.numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_no_input_known_is_unseen_codes_mean_numbers_and_no_history(news: tuple[Method, Any]) -> None:
    method, data = news
    v = data.valid
    empty = replace(
        v,
        user_cat=torch.zeros_like(v.user_cat),
        user_num=torch.zeros_like(v.user_num),
        history=torch.zeros_like(v.history),
        pair_cat=torch.zeros_like(v.pair_cat),
        pair_num=torch.zeros_like(v.pair_num),
        items=replace(v.items, cat=torch.zeros_like(v.items.cat), num=torch.zeros_like(v.items.num)),
    )
    wanted = evaluate(method, empty)["read_time"]
    rows = torch.arange(v.rows)
    with torch.no_grad(), masked(method, v) as model:
        found = model(torch.zeros(len(rows), len(model.names)), rows)["read_time"]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-6)
    assert np.ptp(wanted) < 1e-5  # the same for every row


def test_masking_ends_with_the_context(news: tuple[Method, Any]) -> None:
    method, data = news
    before = evaluate(method, data.valid)
    with masked(method, data.valid) as model, shuffled(method, torch.Generator().manual_seed(0)):
        model(torch.zeros(1, len(model.names)), torch.zeros(1, dtype=torch.int64))
    for name, values in evaluate(method, data.valid).items():
        np.testing.assert_array_equal(values, before[name])


def test_integrated_gradients_are_complete(news: tuple[Method, Any]) -> None:
    """They add up to output(1) - output(0), row by row, and give a user-scope task no candidate."""
    method, data = news
    rows = torch.arange(0, data.valid.rows, 3)
    with masked(method, data.valid) as model:
        for task in method.tasks:
            output = model.output(task)
            found, gap = integrated_gradients(output, rows, len(model.names))
            with torch.no_grad():
                ones = torch.ones(len(rows), len(model.names))
                change = (output(ones, rows) - output(0 * ones, rows)).numpy()
            assert np.abs(found.sum(axis=1) - change).mean() < 0.03 * np.abs(change).mean()
            assert gap == pytest.approx(np.abs(found.sum(axis=1) - change).mean() / np.abs(change).mean(), rel=1e-3)
            assert np.all(found[:, ~model.seen[task.name]] == 0)
    assert not model.seen["interest"].all() and model.seen["click"].all()


def test_integrated_gradients_of_a_known_function() -> None:
    """f = m0 m1 + 3 m2 on the diagonal: 1/2, 1/2, 3 (each factor gets the integral of the other)."""
    found, gap = integrated_gradients(lambda m, rows: m[:, 0] * m[:, 1] + 3 * m[:, 2], torch.arange(4), 3)
    np.testing.assert_allclose(found, [[0.5, 0.5, 3.0]] * 4, rtol=1e-5)
    assert gap < 1e-5


def test_a_frozen_language_model_adds_text(bench: Bench) -> None:
    """Its vectors are one input, which the user side has too; attributions stay complete."""
    data = small("sim-news")
    method = make("frozen", data.schema)
    found = attributions(method, data.valid, 0)
    assert found["inputs"][-1] == "text"
    assert all(task["gap"] < 0.1 for task in found["tasks"].values())  # untrained, 32 steps miss up to 0.05 (3 seeds)
    assert all(task["share"][-1] > 0.05 for task in found["tasks"].values())


def test_rank_correlation_by_hand() -> None:
    a = np.array([[1.0, -2.0, 3.0], [1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    b = np.array([[0.1, 0.0, 9.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    assert rank_correlation(a[:1], b[:1]) == pytest.approx(1)
    assert rank_correlation(a[1:2], b[1:2]) == pytest.approx(-1)
    assert rank_correlation(a, b) == pytest.approx(0)  # the constant row says nothing
    assert rank_correlation(a[2:], b[2:]) is None


# Sanity checks


def linear(weights: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda mask, rows: (mask * weights[rows]).sum(dim=1)


def test_deletion_by_hand() -> None:
    """One row, weights 3, 1, -1: the output is 3, and goes back by 3, then 4, as 3 and then 1 are masked."""
    weights = torch.tensor([[3.0, 1.0, -1.0]])
    found = deletion(linear(weights), torch.tensor([0]), weights.numpy(), np.ones(3, bool), np.random.default_rng(0))
    assert found["moved"] == pytest.approx([1, 4 / 3])


def test_deletion_tells_true_attributions_from_random_and_wrong_ones() -> None:
    rng = np.random.default_rng(0)
    weights, rows, seen = torch.from_numpy(rng.normal(size=(200, 6))), torch.arange(200), np.ones(6, bool)
    passed = {
        name: deletion(linear(weights), rows, attributed, seen, np.random.default_rng(1))
        for name, attributed in (
            ("true", weights.numpy()),
            ("random", rng.normal(size=(200, 6))),
            ("reversed", -weights.numpy()),
        )
    }
    assert {name: found["passed"] for name, found in passed.items()} == {
        "true": True, "random": False, "reversed": False,
    }  # fmt: skip
    assert abs(passed["random"]["difference"]) < 3 * passed["random"]["error"]
    assert passed["reversed"]["difference"] < -2 * passed["reversed"]["error"]


def test_deletion_masks_only_what_a_task_may_see() -> None:
    seen = np.array([True, False, True, True])
    masks: list[Tensor] = []

    def output(mask: Tensor, rows: Tensor) -> Tensor:
        masks.append(mask.clone())
        return mask @ torch.tensor([1.0, 0.0, 2.0, 3.0])

    deletion(output, torch.arange(5), np.ones((5, 4)), seen, np.random.default_rng(0))
    assert all(bool((m[:, 1] == 1).all()) for m in masks if m[:, 0].any() or m[:, 2].any() or m[:, 3].any())
    assert deletion(output, torch.arange(5), np.ones((5, 4)), seen & [True, False, False, False], None) is None


def test_shuffled_weights_change_attributions_and_fixed_ones_do_not(
    news: tuple[Method, Any], attributed: dict[str, Any]
) -> None:
    """The check passes on a trained method, and fails on one whose attributions do not come from its weights."""
    method, data = news
    assert all(task["shuffled"]["passed"] for task in attributed["tasks"].values())

    class Fixed(type(method)):
        """The k-th input counts k, whatever the weights are; the multiclass task is left alone."""

        def forward(self, batch: Batch) -> dict[str, Tensor]:
            mask = self.inputs.__dict__["embed"].func.__self__.mask
            fixed = mask @ torch.arange(1.0, mask.shape[1] + 1)
            return {name: fixed if output.ndim == 1 else output for name, output in super().forward(batch).items()}

    method.__class__, kept = Fixed, type(method)
    try:
        found = attributions(method, data.valid, 0)["tasks"]
    finally:
        method.__class__ = kept
    for name, task in found.items():
        if name != "interest":
            assert task["shuffled"]["correlation"] == pytest.approx(1)
            assert task["shuffled"]["passed"] is False


def test_shuffling_keeps_the_values_of_each_parameter(news: tuple[Method, Any]) -> None:
    method, _ = news
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    with shuffled(method, torch.Generator().manual_seed(0)):
        for name, p in method.named_parameters():
            assert torch.equal(p.flatten().sort().values, before[name].flatten().sort().values)
        assert not torch.equal(method.inputs.table.weight, before["inputs.table.weight"])
    assert all(torch.equal(p, before[name]) for name, p in method.named_parameters())


def test_attributions_repeat_themselves_and_leave_torch_s_generator_alone(
    news: tuple[Method, Any], attributed: dict[str, Any]
) -> None:
    method, data = news
    state = torch.get_rng_state()
    assert attributions(method, data.valid, 0) == attributed
    assert torch.equal(torch.get_rng_state(), state)


# Outputs


def test_a_linear_relation_is_recovered() -> None:
    """log-odds(purchase) = 2 st(read) - st(click) exactly, in standardised terms; the others are noise."""
    split = small("sim-shop").valid
    rng = np.random.default_rng(0)
    n, tasks = split.rows, split.schema.tasks
    logits = {name: rng.normal(size=n) for name in ("click", "cart", "purchase_given_click", "rank", "rec")}
    target = 2 * logits["cart"] - logits["click"] + 0.5
    predictions = {name: 1 / (1 + np.exp(-logits[name])) for name in ("click", "cart", "purchase_given_click")}
    predictions |= {"rank": logits["rank"], "rec": logits["rec"], "purchase": 1 / (1 + np.exp(-target))}
    classes = next(t for t in tasks if t.name == "interest").outputs
    predictions["interest"] = rng.dirichlet(np.ones(classes), size=split.groups)
    found = transparent(split, predictions)
    fitted = split.group < split.groups / 2
    coefficients = found["purchase"]["coefficients"]
    scale = target[fitted].std()
    assert found["purchase"]["measure"] > 0.99
    assert coefficients["cart"] == pytest.approx(2 * logits["cart"][fitted].std() / scale, abs=0.03)
    assert coefficients["click"] == pytest.approx(-logits["click"][fitted].std() / scale, abs=0.03)
    assert abs(coefficients["rank"]) < 0.03
    assert found["rank"]["measure"] < 0.1  # noise cannot be told
    assert found["interest"]["measure"] < found["interest"]["base"] + 0.25


def test_the_likeliest_class_is_found_where_another_task_tells_it() -> None:
    split = small("sim-news").train
    schema = split.schema
    rng = np.random.default_rng(0)
    classes = next(t for t in schema.tasks if t.name == "interest").outputs
    told = rng.normal(size=split.groups)
    interest = np.full((split.groups, classes), 1e-3)
    interest[np.arange(split.groups), (told > 0).astype(int)] = 1
    predictions = {
        "click": 1 / (1 + np.exp(-5 * told[split.group])),
        "rec": rng.normal(size=split.rows),
        "rank": np.ones(split.rows),
        "read_time": rng.normal(size=split.rows),
        "interest": interest / interest.sum(axis=1, keepdims=True),
    }
    found = transparent(split, predictions)
    assert found["interest"]["measure"] > 0.8 > found["interest"]["base"]
    assert found["rank"] == {"measure": None, "base": None, "coefficients": pytest.approx(
        {"click": 0, "rec": 0, "read_time": 0, "interest": 0})}  # fmt: skip


def few(labels: dict[str, list[float]], tasks: tuple[Task, ...]) -> Any:
    return SimpleNamespace(labels={k: torch.tensor(v) for k, v in labels.items()}, schema=SimpleNamespace(tasks=tasks))


FUNNEL = (Task("click", "binary"), Task("buy", "binary"), Task("buy_if_click", "binary"), Task("like", "binary"))


def funnel(times: int, exception: bool = False) -> Any:
    nan = float("nan")
    labels = {"click": [1, 1, 0], "buy": [1, 0, 0], "buy_if_click": [1, 0, nan], "like": [0, 1, 1]}
    labels = {name: values * times for name, values in labels.items()}
    if exception:
        for name, value in (("click", 0.0), ("buy", 1.0), ("buy_if_click", nan), ("like", 0.0)):
            labels[name].append(value)
    return few(labels, FUNNEL)


def test_violations_counted_by_hand() -> None:
    predictions = {
        "click": np.array([0.5, 0.2, 0.4, 0.1]),
        "buy": np.array([0.1, 0.3, 0.4, 0.2]),  # above click in the second row by 0.1 and in the last by 0.1
        "buy_if_click": np.array([0.2, 0.5, 1.0, 1.0]),  # products 0.1, 0.1, 0.4, 0.1: off by 0, 0.2, 0, 0.1
        "like": np.array([0.1, 0.2, 0.3, 0.4]),
    }
    train = funnel(30)
    found = {rule["rule"]: rule for rule in consistency(train, train, predictions)}
    assert set(found) == {"P(buy) <= P(click)", "P(buy) = P(click) P(buy_if_click)"}
    first, second = found.values()
    assert (first["rows"], first["violations"], first["size"]) == (30, 0.5, pytest.approx(0.1))
    assert (second["violations"], second["size"]) == (0.5, pytest.approx(0.075))


def test_a_rule_needs_enough_rows_and_no_exception() -> None:
    predictions = {t.name: np.full(3, 0.5) for t in FUNNEL}
    assert consistency(funnel(30), funnel(1), predictions)
    assert not consistency(funnel(29), funnel(1), predictions)
    assert not consistency(funnel(30, exception=True), funnel(1), predictions)


def test_the_simulated_truth_keeps_the_rules_of_the_shop() -> None:
    """click >= cart >= purchase, and purchase = click times purchase of the clicked."""
    data = small("sim-shop")
    train = replace(data.train, labels=data.train.labels)
    found = consistency(train, data.valid, {k: v.numpy() for k, v in data.valid.truth.items()})
    assert "P(cart) <= P(click)" in {rule["rule"] for rule in found}
    assert all(rule["violations"] == 0 for rule in found)


# The whole


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """Without the test part, which is never read."""
    hidden: Any = {"test": None, "extra": None}
    return explain(spec := specify(**SPEC), replace(data_of(spec), **hidden), device=CPU)


def test_the_run_is_the_one_that_bench_run_makes(found: dict[str, Any]) -> None:
    """Same key; the validation metrics and gates of its record, bit for bit, although the test part was hidden."""
    spec = specify(**SPEC)
    record, _ = made(spec)
    assert found["key"] == record["key"]
    assert found["metrics"] == record["metrics"]["valid"]
    assert {name: gate["usage"] for name, gate in found["gates"].items()} == {
        name: gate["usage"] for name, gate in record["gates"].items()
    }


@pytest.fixture(scope="module")
def page_text(found: dict[str, Any]) -> str:
    return report.to_html(found)


class Page(HTMLParser):
    """Counts what a page has, and notes where it would fetch something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict[str, str]] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {k: v or "" for k, v in attrs}
        self.tags.append(tag)
        if tag == "img":
            self.images.append(values)
        self.fetched += [v for k, v in values.items() if k in ("src", "href") and not v.startswith("data:")]


def test_the_page_needs_no_other_file(found: dict[str, Any], page_text: str) -> None:
    page = Page(page_text)
    assert page.fetched == [] and "script" not in page.tags
    assert len(page.images) >= 7 and all(image["alt"] for image in page.images)
    for image in page.images:
        svg = base64.b64decode(image["src"].partition(",")[2]).decode()
        assert svg.rstrip().endswith("</svg>") and "dc:date" not in svg


def test_markdown_and_page_say_the_same(found: dict[str, Any], page_text: str) -> None:
    """Every cell of every Markdown table stands in the page; affinity is the JSON's in thousandths."""
    markdown = report.to_markdown(found)
    cells = set(re.findall(r"(?<=\| )[^|\n]+?(?= *\|)", markdown))
    plain = re.sub(r"&#39;", "'", page_text).replace("&lt;", "<").replace("&amp;", "&")
    assert len(cells) > 50
    for cell in cells:
        assert re.sub(r"\\(.)", r"\1", cell.strip()) in plain
    mean = found["training"]["affinity"]["mean"][0][0] * 1000
    assert f"{mean:z.2f} ±" in markdown


def test_names_are_escaped(found: dict[str, Any]) -> None:
    task = {**found["tasks"][0], "name": "<b>|x"}
    renamed = json.loads(json.dumps(found).replace('"click"', '"<b>|x"'))
    assert renamed["tasks"][0] == task
    assert "<b>" not in report.to_html(renamed | {"training": {"measurements": 0, "affinity": None, "cosine": {}}})
    assert "\\<b>\\|x" in report.to_markdown(renamed)


# The command


def test_the_command_writes_three_files(bench: Bench, plugin: Plugin, tmp_path: Path) -> None:
    """Of a plugin, too; what it prints is what it stores, and the reports are made of it alone."""
    file = plugin("mine", "version = 7")
    words = ("explain", "-d", "sim-news", "-m", "mine", *SMALL, "--plugin", file, "-s", "lr=0.01")
    printed = bench(*words, "--epochs", 1, "--seed", 4, "--out", tmp_path / "out", "--json").stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"explain.json", "explain.md", "explain.html"}
    stored = json.loads((tmp_path / "out" / "explain.json").read_text("utf-8"))
    assert json.loads(printed) == stored
    spec = stored["spec"]
    assert (spec["method_version"], spec["seed"], spec["budget"]["epochs"], spec["config"]["lr"]) == (7, 4, 1, 0.01)
    assert (tmp_path / "out" / "explain.md").read_text("utf-8") == report.to_markdown(stored)
    assert (tmp_path / "out" / "explain.html").read_text("utf-8") == report.to_html(stored)


def test_a_reference_that_trains_nothing(bench: Bench, tmp_path: Path) -> None:
    """It has no steps, gates or inputs to mask, and the report says so."""
    bench("explain", "-d", "sim-news", "-m", "popularity", *SMALL, "--out", tmp_path)
    text = (tmp_path / "explain.md").read_text("utf-8")
    for line in ("no training steps", "No parameter is shared", "no gates", "no input layer", "keep no rule"):
        assert line in text


def test_bad_input_is_refused(refused: Callable[..., str]) -> None:
    assert "'mmoee'" in refused("explain", "-d", "sim-news", "-m", "mmoee")
    assert "no funnel" in refused("explain", "-d", "sim-news", "-m", "esmm", *SMALL)
    assert "lower lr" in refused("explain", "-d", "sim-news", "-m", "mmoe", *SMALL, "-s", "lr=1e30", "--epochs", 2)
