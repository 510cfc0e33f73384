"""The references that are no networks, each against a direct computation from the same training part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import lightgbm
import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score

from bench import registry
from bench.api import Method, Schema
from bench.data.load import Data, load
from bench.data.prepare import prepare
from bench.data.tensors import Split
from bench.training.contract import make, small
from bench.training.predict import evaluate

NAMES = ("logistic_regression", "gbdt", "mf", "tfidf")
FEW: dict[str, dict[str, Any]] = {"gbdt": {"rounds": 20}}  # trees, where it does not matter how good they are


@pytest.fixture(scope="module")
def shop() -> Data:
    return small("sim-shop")


@pytest.fixture(scope="module")
def news() -> Data:
    return small("sim-news")


def started(name: str, data: Data, seed: int = 0, **settings: Any) -> Method:
    method = make(name, data.schema, seed, **settings).eval()
    method.on_start(data.train)
    return method


def raw(method: Method, split: Split) -> dict[str, np.ndarray]:
    with torch.no_grad():
        outputs = method(next(split.inputs(10**9)))
    return {k: v.numpy() for k, v in outputs.items()}


def table(split: Split, schema: Schema, user_only: bool = False) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Codes, numbers and cardinalities, put together row by row."""
    codes, numbers = [], []
    for r in range(split.groups if user_only else split.rows):
        g = r if user_only else int(split.group[r])
        code, number = split.user_cat[g].tolist(), split.user_num[g].tolist()
        if not user_only:
            i = int(split.item[r])
            code += split.items.cat[i].tolist() + split.pair_cat[r].tolist()
            number += split.items.num[i].tolist() + split.pair_num[r].tolist()
        codes.append(code)
        numbers.append(number)
    sides = ("user",) if user_only else ("user", "item", "pair")
    sizes = [schema.cardinality[f.name] for s in sides for f in schema.fields if f.side == s and f.kind != "numerical"]
    return np.array(codes), np.array(numbers), sizes


def dense(split: Split, schema: Schema, user_only: bool = False) -> np.ndarray:
    codes, numbers, sizes = table(split, schema, user_only)
    return np.hstack([*(np.eye(size)[codes[:, i]] for i, size in enumerate(sizes)), numbers])


def labelled(split: Split, task: str) -> tuple[np.ndarray, np.ndarray]:
    y = split.labels[task].numpy()
    return ~np.isnan(y), y[~np.isnan(y)]


def test_logistic_regression_is_scikit_learn_on_the_dense_one_hot(shop: Data) -> None:
    got = raw(started("logistic_regression", shop, C=0.5), shop.test)
    train, test = (dense(s, shop.schema) for s in (shop.train, shop.test))
    for task in ("click", "purchase_given_click", "rec"):
        known, y = labelled(shop.train, task)
        model = LogisticRegression(C=0.5, solver="newton-cholesky", tol=1e-8).fit(train[known], y)
        np.testing.assert_allclose(got[task], model.decision_function(test), atol=5e-3)
    known, y = labelled(shop.train, "rank")
    ridge = Ridge(alpha=2.0, solver="cholesky").fit(train[known], y)
    np.testing.assert_allclose(got["rank"], ridge.predict(test), atol=1e-3)
    train, test = (dense(s, shop.schema, user_only=True) for s in (shop.train, shop.test))
    known, y = labelled(shop.train, "interest")
    model = LogisticRegression(C=0.5, solver="newton-cholesky", tol=1e-8).fit(train[known], y)
    want = np.full((len(test), len(shop.schema.tasks[-1].classes)), -np.inf)
    want[:, model.classes_.astype(int)] = model.predict_proba(test)
    seen = np.isfinite(want).all(axis=0)
    shares = np.exp(got["interest"][:, seen])
    np.testing.assert_allclose(shares / shares.sum(axis=1, keepdims=True), want[:, seen], atol=2e-3)


def test_logistic_regression_refuses_a_C_of_zero(shop: Data) -> None:
    with pytest.raises(ValueError, match="C must be positive"):
        registry.load_method("logistic_regression")(shop.schema, lambda schema: None, C=0.0)


def with_history(split: Split, schema: Schema, user_only: bool = False) -> tuple[np.ndarray, list[int]]:
    """The features of the trees by loops, and which of them are categories."""
    codes, numbers, sizes = table(split, schema, user_only)
    lines = []
    for r in range(len(codes)):
        past = split.history[r if user_only else int(split.group[r])].tolist()
        filled = [split.items.cat[h].tolist() for h in past if h]
        last = split.items.cat[past[-1]].tolist()
        line = [*codes[r], *last, *numbers[r], len(filled)]
        if not user_only:
            candidate = split.items.cat[int(split.item[r])].tolist()
            line += [sum(f[i] == c for f in filled) / max(len(filled), 1) for i, c in enumerate(candidate)]
        lines.append(line)
    return np.array(lines, dtype=np.float32), list(range(len(sizes) + split.items.cat.shape[1]))


def test_gbdt_is_lightgbm_on_the_same_frame(shop: Data) -> None:
    settings = {"rounds": 50, "shrinkage": 0.1, "leaves": 8, "leaf_rows": 10, "column_share": 1.0}
    got = raw(started("gbdt", shop, **settings), shop.test)
    same: dict[str, Any] = {
        "learning_rate": 0.1, "num_leaves": 8, "min_child_samples": 10, "n_jobs": 1,
        "deterministic": True, "force_row_wise": True, "verbosity": -1,
    }  # fmt: skip
    models = {**same, "n_estimators": 50}
    (train, categories), (test, _) = (with_history(s, shop.schema) for s in (shop.train, shop.test))
    for task, kind in (("click", "binary"), ("purchase_given_click", "binary"), ("rank", "regression")):
        known, y = labelled(shop.train, task)
        data = lightgbm.Dataset(train[known], y, categorical_feature=categories, params={"verbosity": -1})
        booster = lightgbm.train({"objective": kind, **same}, data, 50)
        np.testing.assert_allclose(got[task], booster.predict(test, raw_score=True), atol=1e-5)
    known, y = labelled(shop.train, "rec")
    ranker = lightgbm.LGBMRanker(**models)
    ranker.fit(train[known], y, group=shop.train.sizes.numpy(), categorical_feature=categories)
    np.testing.assert_allclose(got["rec"], ranker.booster_.predict(test), atol=1e-5)
    (train, categories), (test, _) = (with_history(s, shop.schema, user_only=True) for s in (shop.train, shop.test))
    known, y = labelled(shop.train, "interest")
    model = lightgbm.LGBMClassifier(**models)
    model.fit(train[known], y.astype(int), categorical_feature=categories)
    want = model.booster_.predict(test)
    np.testing.assert_allclose(np.exp(got["interest"][:, model.classes_]), want, atol=1e-5)


def test_mf_factors_solve_the_weighted_normal_equations(shop: Data) -> None:
    """The items were solved last: each is the exact least-squares answer to the users, whom it is given."""
    reg, conf = 3.0, 5.0
    method = started("mf", shop, factors=8, regularization=reg, confidence=conf)
    x, y = (method.get_buffer(n).double().numpy() for n in ("users", "items"))
    count = np.zeros((len(x), len(y)))
    for r in range(shop.train.rows):
        if shop.train.labels["click"][r] > 0:
            count[int(shop.train.user_cat[int(shop.train.group[r]), 0]), int(shop.train.item[r])] += 1
    known = count.sum(axis=1) > 0
    for i in range(len(y)):
        n = count[known, i]
        c, p, xs = np.where(n > 0, conf * n, 1.0), (n > 0).astype(float), x[known]
        want = np.linalg.solve(xs.T @ (c[:, None] * xs) + reg * np.eye(8), xs.T @ (c * p))
        np.testing.assert_allclose(y[i], want, atol=1e-4)
    batch = next(shop.test.inputs(10**9))
    user = batch.user_cat[batch.group, 0].numpy()
    np.testing.assert_allclose(raw(method, shop.test)["rec"], (x[user] * y[batch.item.numpy()]).sum(axis=1), atol=1e-5)


def test_mf_gives_the_unknown_the_average(shop: Data) -> None:
    method = started("mf", shop)
    users, items = method.get_buffer("users"), method.get_buffer("items")
    clicked = shop.train.labels["click"] > 0
    known = shop.train.user_cat[torch.from_numpy(shop.train.group)[clicked], 0].unique().long()
    torch.testing.assert_close(users[0], users[known].mean(dim=0))
    cold = torch.ones(len(items), dtype=torch.bool)
    cold[shop.train.item[clicked].long()] = False
    assert cold.sum() > 1 and not items[cold].any() and items[~cold].any(dim=1).all()
    split = shop.test
    outputs = raw(method, split)["click"]
    unseen = cold[split.item.long()].numpy()
    assert unseen.any() and np.ptp(outputs[unseen]) == 0 and np.ptp(outputs[~unseen]) > 0


def test_mf_calibrates_on_groups_that_the_factors_have_not_seen(shop: Data) -> None:
    """Where only the last fifth has positives, the factors of the rest are 0, and the task gets its base rate."""
    labels = {k: v.clone() for k, v in shop.train.labels.items()}
    cut = int(shop.train.start[int(0.8 * shop.train.groups)])
    labels["click"][:cut] = 0.0
    data = replace(shop, train=replace(shop.train, labels=labels))
    outputs = raw(started("mf", data), shop.test)["click"]
    share = float(labels["click"].mean())
    np.testing.assert_allclose(outputs, np.log(share / (1 - share)), rtol=1e-4)


def test_tfidf_is_the_cosine_computed_by_loops(news: Data) -> None:
    got = raw(started("tfidf", news), news.test)["rec"]
    seen = sorted({*news.train.item.tolist(), *news.train.history.flatten().tolist()} - {0})
    words = TfidfVectorizer(token_pattern=r"\b\w+\b").fit([news.schema.texts[i] for i in seen])
    vectors = words.transform(news.schema.texts).toarray()
    checked = 0
    for r in range(news.test.rows):
        past = [h for h in news.test.history[int(news.test.group[r])].tolist() if h]
        profile = np.mean([vectors[h] for h in past], axis=0) if past else np.zeros(vectors.shape[1])
        item = vectors[int(news.test.item[r])]
        length = np.linalg.norm(profile) * np.linalg.norm(item)
        assert got[r] == pytest.approx(profile @ item / length if length else 0.0, abs=1e-5)
        checked += length > 0
    assert checked > 50


def test_one_score_is_calibrated(news: Data) -> None:
    """The mean prediction is the mean label, and its covariance with the score too: what both fits are defined by."""
    method = started("tfidf", news)
    score = raw(method, news.train)["rec"]
    predicted = evaluate(method, news.train)
    for task in ("click", "rank", "read_time"):
        known, y = labelled(news.train, task)
        error = predicted[task][known] - y
        assert abs(error.mean()) < 1e-4
        assert abs((error * score[known]).mean()) < 2e-3
        assert np.ptp(predicted[task]) > 0
    constant = raw(method, news.test)["interest"]
    assert np.ptp(constant, axis=0).max() == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides(name: str, shop: Data) -> None:
    first, again, other = (raw(started(name, shop, seed, **FEW.get(name, {})), shop.test) for seed in (0, 0, 1))
    assert all(np.array_equal(first[t], again[t]) for t in first)
    random = name in ("gbdt", "mf")  # the others have nothing to draw
    assert any(not np.array_equal(first[t], other[t]) for t in first) == random


@pytest.mark.parametrize("name", NAMES)
def test_user_scope_is_blind_to_the_candidates(name: str, shop: Data) -> None:
    method = started(name, shop, **FEW.get(name, {}))
    shuffled = replace(shop.test, item=shop.test.item.flip(0))
    before, after = raw(method, shop.test), raw(method, shuffled)
    assert np.array_equal(before["interest"], after["interest"])
    assert not np.array_equal(before["click"], after["click"])


@pytest.mark.parametrize("name", NAMES)
def test_a_task_with_one_label_or_none_gets_its_base_rate(name: str, shop: Data) -> None:
    labels = dict(shop.train.labels)
    labels["cart"] = torch.full_like(labels["cart"], torch.nan)
    labels["purchase"] = torch.zeros_like(labels["purchase"])
    interest = labels["interest"].clone()
    interest[interest == 0] = torch.nan  # the first class is never seen
    labels["interest"] = interest
    data = replace(shop, train=replace(shop.train, labels=labels))
    method = started(name, data, **FEW.get(name, {}))
    outputs = raw(method, shop.test)
    assert np.array_equal(outputs["cart"], np.zeros(shop.test.rows, dtype=np.float32))
    assert np.allclose(outputs["purchase"], np.log(1e-6), rtol=1e-3)
    assert np.isfinite(outputs["interest"]).all()
    known = int((~interest.isnan()).sum())
    smoothed = 1 / (known + len(shop.schema.tasks[-1].classes))  # as if it had been seen once, with all other classes
    np.testing.assert_allclose(outputs["interest"][:, 0], np.log(smoothed), rtol=1e-5)
    assert (evaluate(method, shop.test)["interest"][:, 0] < 2 * smoothed).all()


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("tfidf", {"history": 0}, "no histories"),
        ("tfidf", {"texts": ("", "-", "?!")}, "no text"),
        ("mf", {"fields": ()}, "no field names the user"),
        ("mf", {"tasks": ()}, "what a positive is"),
    ],
)
def test_declined_with_a_reason(name: str, change: dict[str, Any], reason: str, news: Data) -> None:
    cls = registry.load_method(name)
    assert cls.declines(news.schema) == ""
    assert reason in cls.declines(replace(news.schema, **change))


def test_they_learn_what_there_is_to_learn() -> None:
    """Clicks follow user times topic, which only the text tells, and an item's quality: each finds its part of it."""
    data = load(prepare("sim-news", {"users": 100, "items": 300, "groups": 3000, "cold": 0.0}))
    y = data.test.labels["click"].numpy()
    auc = {n: roc_auc_score(y, evaluate(started(n, data), data.test)["click"]) for n in ("popularity", *NAMES)}
    assert auc["popularity"] > 0.52
    for name in ("logistic_regression", "gbdt"):
        assert auc[name] > auc["popularity"] + 0.005, auc
    for name in ("mf", "tfidf"):
        assert auc[name] > 0.54, auc
