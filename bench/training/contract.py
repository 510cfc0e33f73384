"""The contract, checked on any method or balancer: in the tests over the whole registry, and as ``bench check``.

A check raises AssertionError with a sentence that says what is wrong in plain words.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from bench import registry
from bench.api import Balancer, Batch, Method, Schema, Task
from bench.data.load import Data, load
from bench.data.prepare import prepare
from bench.machine.device import set_up
from bench.spec import config
from bench.spec.settings import own_settings
from bench.storage import cache
from bench.training.build import build
from bench.training.loop import Fit, fit
from bench.training.predict import evaluate
from bench.training.recipe import Recipe

# Small simulated task sets that between them have every kind, scope and sample space: a funnel, ratings, news.
TASK_SETS = ("sim-shop", "sim-video", "sim-news")

SMALL = {"users": 40, "items": 100, "groups": 200}
EPOCHS = 4  # of a training: as many as show that the loss falls, for metaheac too


@lru_cache(maxsize=4)
def small(dataset: str) -> Data:
    """A small simulated data set."""
    return load(prepare(dataset, SMALL))


@lru_cache(maxsize=1)
def tiny_language_model() -> str:
    """Identity of a two-layer random language model made on the spot, so that checks need no download."""
    from transformers.utils import logging

    from bench.text.models import identity

    target = cache.root() / "tiny-language-model"
    if not target.exists():
        cast(Any, logging).disable_progress_bar()
        with cache.new_folder(target) as folder:
            _write_language_model(folder)
    return identity(str(target))


def _write_language_model(folder: Path) -> None:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", *letters])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    initials = normalizers.Replace(Regex(r"(?<=\b\w)\w+"), "")  # they tell texts apart in half the tokens
    tokenizer.normalizer = normalizers.Sequence([normalizers.BertNormalizer(), initials])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    BertModel(shape).save_pretrained(folder)


def make(name: str, schema: Schema, seed: int = 0, **given: Any) -> Method:
    """A method with default settings, except a tiny language model."""
    if "lm" in own_settings(registry.load_method(name)):
        given = {"lm": tiny_language_model(), **given}
    resolved, _ = config.resolve(name, given)
    torch.manual_seed(seed)
    return build(name, resolved, schema)


def _batch(data: Data) -> Batch:
    return next(data.train.batches(256, torch.Generator().manual_seed(0)))


def declares_its_space(name: str, kind: str = "method") -> None:
    """Every setting has an Optuna range in `space`, and its default lies within."""
    cls = registry.load_method(name) if kind == "method" else registry.load_balancer(name)
    # Which model is a choice of the user, not of the search; None stands for one value a task, which has no range.
    free = {key for key, default in own_settings(cls).items() if key == "lm" or default is None} - cls.space.keys()
    defaults = {key: default for key, default in own_settings(cls).items() if key not in free}
    assert set(cls.space) == set(defaults), (
        f"`space` has {sorted(cls.space)}, the signature has keyword-only arguments {sorted(defaults)}; they must agree"
    )
    for key, default in defaults.items():
        inside = cls.space[key]._contains(cls.space[key].to_internal_repr(default))
        assert inside, f"the default of '{key}', {default}, lies outside its range {cls.space[key]}"
    assert cls.__dict__.get("__doc__"), "the class has no docstring; say what it computes and where it comes from"


def answers_every_task(name: str, data: Data) -> None:
    """One finite output a task, of the right shape, without any label in the batch."""
    method, tasks = make(name, data.schema).eval(), data.schema.tasks
    batch = next(data.test.inputs(256))
    with torch.no_grad():
        outputs = method(batch)
    assert set(outputs) == {t.name for t in tasks}, (
        f"forward returns {sorted(outputs)}, the tasks are {[t.name for t in tasks]}"
    )
    for task in tasks:
        size = batch.user_cat.shape[0] if task.scope == "user" else batch.item.shape[0]
        wanted = tuple(task.traits.shaped(torch.empty(size, task.outputs)).shape)
        got = tuple(outputs[task.name].shape)
        assert got == wanted, f"the output of '{task.name}' has shape {got}, not {wanted}"
        assert outputs[task.name].isfinite().all(), f"the output of '{task.name}' is not finite"


def trains_every_parameter(name: str, data: Data) -> None:
    """After one backward pass every parameter has a gradient or is frozen on purpose."""
    method, batch = make(name, data.schema).train(), _batch(data)
    if not any(p.requires_grad for p in method.parameters()):
        return
    losses = method.losses(method(batch), batch)
    wanted = (len(data.schema.tasks),)
    assert tuple(losses.shape) == wanted, f"losses have shape {tuple(losses.shape)}, not one a task {wanted}"
    assert losses.isfinite().all(), f"a loss is not finite: {losses.tolist()}"
    method.backward(losses)
    idle = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle, f"parameters that get no gradient: {', '.join(idle)}; use them, or set requires_grad to False"


def keeps_user_scope(name: str, data: Data) -> None:
    """Other candidates leave the user-scope outputs unchanged."""
    method, batch = make(name, data.schema).eval(), next(data.test.inputs(256))
    shuffled = replace(batch, item=batch.item.flip(0), pair_cat=batch.pair_cat.flip(0), pair_num=batch.pair_num.flip(0))
    with torch.no_grad():
        before, after = method(batch), method(shuffled)
    for task in data.schema.tasks:
        if task.scope == "user":
            same = torch.equal(before[task.name], after[task.name])
            assert same, f"'{task.name}' changes with the candidates: a user-scope task may see only the user side"


def treats_groups_apart(name: str, data: Data) -> None:
    """A group's outputs do not depend on which other groups are evaluated beside it."""
    method = make(name, data.schema).eval()
    with torch.no_grad():
        whole = method(next(data.test.inputs(10**9)))
        pieces = [method(b) for b in data.test.inputs(32)]
    for task in data.schema.tasks:
        joined = torch.cat([p[task.name] for p in pieces])
        close = torch.allclose(joined, whole[task.name], atol=1e-5)
        assert close, f"'{task.name}' depends on the other groups of the batch (batch statistics at evaluation?)"


def states_what_is_shared(name: str, data: Data) -> None:
    """`shared` carries all of the gradient that flows back through it: balancers may differentiate it alone."""
    method, batch = make(name, data.schema).eval(), _batch(data)
    if not any(p.requires_grad for p in method.parameters()):
        return
    loss = method.losses(method(batch), batch).sum()
    shared = [s for s in method.shared if s.requires_grad]
    names, parameters = zip(*((n, p) for n, p in method.named_parameters() if p.requires_grad), strict=True)
    if not shared:
        return
    full = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    at_shared = torch.autograd.grad(loss, shared, retain_graph=True)
    through = torch.autograd.grad(shared, parameters, at_shared, allow_unused=True)
    for path, a, b in zip(names, full, through, strict=True):
        if b is not None and a is not None:
            ok = torch.allclose(a, b, atol=1e-5, rtol=1e-3)
            assert ok, f"tasks reach parameter {path} past `shared`; list every representation that tasks read"


def repeats_itself(name: str, data: Data) -> None:
    """The same seed trains to the same losses and predictions, bit for bit."""
    _, first, predictions = _trained(name, data)
    again, second = _train(name, data, epochs=1)
    why = "an unseeded generator or an unordered set?"
    if first.curve:
        assert first.curve[0] == second.curve[0], f"two runs with one seed differ in their first epoch: {why}"
        return
    for task, values in evaluate(again, data.test).items():
        assert np.array_equal(values, predictions[task]), f"two runs with one seed differ on '{task}': {why}"


def saves_and_loads(name: str, data: Data) -> None:
    """A fresh model with the saved state gives the trained model's predictions."""
    trained, _, predictions = _trained(name, data)
    fresh = make(name, data.schema, seed=1)
    fresh.load_state_dict(copy.deepcopy(trained.state_dict()))
    again = evaluate(fresh, data.test)
    for task, values in predictions.items():
        assert np.array_equal(values, again[task]), f"'{task}' differs after loading: part of the state is not saved"


def learns(name: str, data: Data) -> None:
    """Training lowers the summed loss."""
    _, done, _ = _trained(name, data)
    if not done.curve:
        return
    first, last = (sum(done.curve[i]["loss"].values()) for i in (0, -1))
    assert last < first, f"the training loss went from {first:.4f} to {last:.4f} in {len(done.curve)} epochs"


def _fit(method: Method, data: Data, epochs: int) -> Fit:
    return fit(method, data.train, data.valid, Recipe(0.02, 0.0, 512, epochs, patience=epochs))


Trained = tuple[Method, Fit, dict[str, np.ndarray]]


def _trained(name: str, data: Data) -> Trained:
    """Returns a trained method, its curve and its predictions: the checks of one method in a row share one training."""
    cls: Any = registry.load_method(name)
    return _training(make, cls, name, str(config.resolve(name, {})), data)


@lru_cache(maxsize=1)
def _training(make: Callable[..., Method], cls: type[Method], name: str, settings: str, data: Data) -> Trained:
    method, done = _train(name, data, EPOCHS)  # the other arguments say what must be the same
    return method, done, evaluate(method, data.test)


def _train(name: str, data: Data, epochs: int) -> tuple[Method, Fit]:
    set_up()
    method = make(name, data.schema)
    return method, _fit(method, data, epochs)


ON_DATA: tuple[Callable[[str, Data], None], ...] = (
    answers_every_task,
    trains_every_parameter,
    keeps_user_scope,
    treats_groups_apart,
    states_what_is_shared,
    repeats_itself,
    saves_and_loads,
    learns,
)


def _balancer(name: str, order: Sequence[int] = (0, 1, 2)) -> Balancer:
    cls, tasks = registry.load_balancer(name), (Task("a", "binary"), Task("b", "regression"), Task("c", "binary"))
    return cls([tasks[i] for i in order], *([registry.load_balancer(cls.of)] if cls.of else []))


def _updates(
    balancer: Balancer, seed: int = 0, order: Sequence[int] = (0, 1, 2), known: Sequence[int] = (1, 1, 1)
) -> Tensor:
    """Gradients [6, 3] of x, which is shared, in six steps on made-up losses L_t = l_t + g_t . x + y_t."""
    torch.manual_seed(seed)
    level = torch.tensor([0.7, 1.9, 0.4])[list(order)]
    slope = torch.tensor([[1.0, 0.5, 0.0], [-2.0, 1.0, 0.3], [0.2, -0.8, 0.5]])[list(order)]
    found = []
    for step in range(6):
        x, y = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
        shared = x * 1.0
        losses = torch.tensor(known) * (level * 0.9**step + (1 + 0.1 * step) * slope @ shared + y)
        balancer.backward(losses, [shared])
        for p in (x, y, *balancer.parameters()):
            assert p.grad is not None and p.grad.isfinite().all(), f"step {step + 1} leaves gradients not finite"
        found.append(cast(Tensor, x.grad))
        balancer.zero_grad()
        if balancer.looks_again:
            balancer.observe(0.9 * losses.detach())
        if step % 3 == 2:
            balancer.on_epoch(step // 3 + 1, losses.detach(), {"a": 0.6, "b": 1.1, "c": 0.8})
    return torch.stack(found)


def combines_losses(name: str) -> None:
    """Losses [T] give finite gradients to all parameters, and a finite weight for each task where it `weighs`."""
    balancer = _balancer(name)
    assert _updates(balancer).any(dim=1).all(), "a step leaves what is shared where it was"
    weights = balancer.weights
    ok = weights is not None and weights.shape == (3,) and bool(weights.isfinite().all())
    assert ok == balancer.weighs, f"`weighs` is {balancer.weighs}, and `weights` after backward are {weights}"


def bears_a_missing_task(name: str) -> None:
    """A task without labels, whose loss and gradient are 0, leaves every gradient finite."""
    _updates(_balancer(name), known=(1, 0, 1))


def ignores_the_order(name: str) -> None:
    """With the tasks after the first in another order, the updates are the same (unless random numbers are drawn)."""
    first = _updates(_balancer(name))
    if torch.equal(first, _updates(_balancer(name), seed=1)):
        other = _updates(_balancer(name, (0, 2, 1)), order=(0, 2, 1))
        assert torch.allclose(first, other, rtol=1e-3, atol=1e-4), "the update depends on the order of the tasks"


def goes_on_from_its_state(name: str) -> None:
    """One seed gives the same updates, bit for bit, and a fresh balancer with the saved state goes on alike."""
    first, second, third = (_balancer(name) for _ in range(3))
    same = torch.equal(_updates(first), _updates(second))
    assert same, "two runs with one seed differ: an unseeded generator or an unordered set?"
    third.load_state_dict(copy.deepcopy(first.state_dict()))
    same = torch.equal(_updates(first, seed=1), _updates(third, seed=1))
    assert same, "updates differ after loading: part of the state is not in parameters and buffers"


ON_BALANCERS = (combines_losses, bears_a_missing_task, ignores_the_order, goes_on_from_its_state)


def balancer(name: str) -> Iterator[tuple[str, str]]:
    """Runs every check on a balancer: what was checked, and what is wrong (empty: nothing)."""
    yield _title(declares_its_space), _outcome(partial(declares_its_space, name, "balancer"))
    for check in ON_BALANCERS:
        yield _title(check), _outcome(partial(check, name))


def method(name: str, task_sets: Sequence[str] = TASK_SETS) -> Iterator[tuple[str, str]]:
    """Runs every check on a method: what was checked, and what is wrong (empty: nothing)."""
    yield _title(declares_its_space), _outcome(partial(declares_its_space, name))
    for dataset in task_sets:
        data = small(dataset)
        reason = registry.load_method(name).declines(data.schema)
        if reason:
            yield f"{dataset}: declined, {reason}", ""
            continue
        for check in ON_DATA:
            yield f"{dataset}: {_title(check)}", _outcome(partial(check, name, data))


def _title(check: Callable[..., None]) -> str:
    return (inspect.getdoc(check) or "").split("\n")[0].rstrip(".")


def _outcome(check: Callable[[], None]) -> str:
    try:
        check()
    except AssertionError as error:
        return str(error)
    except Exception as error:
        # A method under check may fail in any way; the check's job is to say so.
        return f"{type(error).__name__}: {error}"
    return ""
