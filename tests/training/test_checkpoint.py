"""Checkpoints: a training that is cut off goes on to the same bits, for every method and balancer and in real runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import registry
from bench.api import Method
from bench.data.load import Data
from bench.data.tensors import Split
from bench.storage import cache
from bench.suites.specify import specify
from bench.training import checkpoint, contract
from bench.training.checkpoint import Checkpointer
from bench.training.contract import small, tiny_language_model
from bench.training.loop import Fit, fit
from bench.training.predict import evaluate
from bench.training.recipe import Recipe
from bench.training.skill import split_off_meta
from methods._tuned import Tuned
from methods.controller import Action
from tests.support.runs import made

EPOCHS, SIZE = 3, 256
GROUPS, SMALL_SIZE = 20, 100  # of the training part, where all methods are trained: two batches an epoch


class Cut(BaseException):
    """A process is killed."""


class Killed(Checkpointer):
    """Keeps the state at one batch, or at the end, and is killed there."""

    def __init__(self, at: int, key: str = "test") -> None:
        super().__init__(key, 1.0, {})
        self.at, self.batch = at, 0

    def due(self) -> bool:
        self.batch += 1
        return self.batch == self.at

    def keep(self, *given: Any) -> None:
        super().keep(*given)
        raise Cut


class Goes(Killed):
    """Keeps the state at one batch, and the training goes on from there."""

    def keep(self, *given: Any, **loop: Any) -> None:
        with suppress(Cut):
            super().keep(*given, **loop)

    def ended(self) -> bool:
        return False


class Disturbed(Checkpointer):
    """Goes on in a process with other random numbers."""

    def begin(self, method: Method) -> dict[str, Any] | None:
        torch.manual_seed(99)
        return super().begin(method)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """No checkpoint is left, and no signal waits."""
    yield
    checkpoint._deferred = checkpoint._asked = False
    for path in (cache.root() / "checkpoints").glob("*"):
        path.unlink()


def learn(method: Method, data: Any, checkpointer: Checkpointer | None = None, **given: Any) -> Fit:
    usual: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.01, "batch_size": SIZE, "epochs": EPOCHS, "patience": EPOCHS}
    usual |= {"seed": 0, "schedule": "cosine", "warmup": 0.1, "grad_clip": 1.0}
    return fit(method, data.train, data.valid, Recipe(**usual | given), checkpointer=checkpointer)


def few(groups: int = GROUPS) -> Data:
    """Little of the training part."""
    data = small("sim-news")
    return replace(data, train=data.train.cut(groups)[0])


def batches(split: Split) -> int:
    return len(list(split.batches(SIZE, torch.Generator().manual_seed(0))))


def assert_resumes(make: Callable[[], Method], data: Any, groups: int = GROUPS, **given: Any) -> None:
    """From its state amid the second epoch, a training goes on to what it has become since: weights, curve, epochs,
    predictions."""
    torch.use_deterministic_algorithms(True)
    data = replace(data, train=data.train.cut(groups)[0])
    whole = make()
    after = math.ceil(data.train.rows / SMALL_SIZE * (1 - whole.meta_share))
    keeper = Goes(after + after // 2)
    wanted = learn(whole, data, keeper, batch_size=SMALL_SIZE, **given)
    if not wanted.curve:
        return  # nothing is trained step by step
    assert keeper.path.exists() and keeper.batch > keeper.at
    method = make()
    found = learn(method, data, Disturbed("test", 1.0, {}), batch_size=SMALL_SIZE, **given)
    assert found.curve == wanted.curve
    assert found.best_epoch == wanted.best_epoch and found.rows == wanted.rows
    torch.testing.assert_close(method.state_dict(), whole.state_dict(), rtol=0, atol=0, equal_nan=True)
    assert getattr(method, "decisions", []) == getattr(whole, "decisions", [])
    np.testing.assert_equal(evaluate(method, data.valid), evaluate(whole, data.valid))


@pytest.mark.parametrize("name", ["mmoe", "auto_lambda", "fomaml", "unfreeze"])
def test_keeping_changes_nothing(name: str) -> None:
    data = few()
    alone = contract.make(name, data.schema)
    wanted = learn(alone, data, batch_size=SMALL_SIZE, epochs=2)
    kept = contract.make(name, data.schema)
    assert learn(kept, data, Goes(2), batch_size=SMALL_SIZE, epochs=2).curve == wanted.curve
    torch.testing.assert_close(kept.state_dict(), alone.state_dict(), rtol=0, atol=0)


def _methods() -> Iterator[Any]:
    """All of them; of those that train a language model, one outside `make slow`: see also ``test_on_resume``."""
    for name in sorted(registry.methods()):
        alike = issubclass(registry.load_method(name), Tuned) and name != "unfreeze"
        yield pytest.param(name, marks=[pytest.mark.slow] if alike else [])


@pytest.mark.parametrize("name", list(_methods()))
def test_every_method(name: str) -> None:
    cls = registry.load_method(name)
    data = small("sim-shop" if cls.declines(small("sim-news").schema) else "sim-news")
    assert_resumes(lambda: contract.make(name, data.schema), data)


@pytest.mark.parametrize("name", sorted(registry.entries("balancers")))
def test_every_balancer(name: str) -> None:
    data = small("sim-news")
    own = {"balancer.warmup": 1} if name == "stch" else {}
    assert_resumes(lambda: contract.make("shared_bottom", data.schema, balancer=name, **own), data)


def test_on_resume_of_auto_lambda() -> None:
    """Cut off amid a stream of several meta batches."""
    data = small("sim-news")

    def make() -> Method:
        method = contract.make("auto_lambda", data.schema)
        method.meta_share = 0.5
        return method

    assert split_off_meta(data.train.cut(50)[0], 0.5)[1].rows > 2 * SMALL_SIZE
    assert_resumes(make, data, groups=50)


def test_on_resume_of_the_controller() -> None:
    """Cut off while the other optimiser is at work."""
    data = small("sim-news")

    def make() -> Method:
        method: Any = contract.make("controller", data.schema)
        method.judge = lambda gains: Action(switch=True)
        return method  # type: ignore[no-any-return]

    assert_resumes(make, data)


@pytest.mark.parametrize("augment", ["substitute", "mixup"])
def test_augmented_batches(augment: str) -> None:
    data = small("sim-shop")
    own = {"augment": augment, "augment_rate": 0.3}
    assert_resumes(lambda: contract.make("shared_bottom", data.schema, norm="batch"), data, **own)


def test_row_wise_updates() -> None:
    """Their moments are kept with those of the optimiser."""
    data = small("sim-shop")
    assert_resumes(lambda: contract.make("shared_bottom", data.schema, embedding_updates="rows"), data, grad_clip=0.0)


def test_killed_between_training_and_evaluation() -> None:
    """What is kept at the end of a training is all of it."""
    data = few(groups=60)
    whole = contract.make("single_task", data.schema)
    wanted = learn(whole, data)
    with pytest.raises(Cut):
        learn(contract.make("single_task", data.schema), data, Killed(batches(data.train) * EPOCHS + 1))
    steps: list[int] = []
    fresh = contract.make("single_task", data.schema)
    fresh.step = lambda *given: steps.append(1)  # type: ignore[assignment, func-returns-value, return-value]
    found = learn(fresh, data, Disturbed("test", 1.0, {}))
    assert (found.curve, found.best_epoch, steps) == (wanted.curve, wanted.best_epoch, [])
    torch.testing.assert_close(fresh.state_dict(), whole.state_dict(), rtol=0, atol=0)


class Odd(registry.load_method("shared_bottom")):  # type: ignore[misc]
    """Draws factors of its losses from an iterator, which no file can hold."""

    def on_start(self, train: Any) -> None:
        self.factors: Iterator[int] = iter(())

    def losses(self, outputs: Any, batch: Any) -> Any:
        self.factors = iter([2])
        return super().losses(outputs, batch) * next(self.factors)


class Mended(Odd):
    """Says how it is made anew."""

    def on_resume(self) -> None:
        self.factors = iter(())


@pytest.mark.parametrize(("cls", "kept"), [(Odd, False), (Mended, True)])
def test_state_that_no_file_can_hold(
    cls: type[Method], kept: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line says which, and the training goes on without checkpoints; unless the class makes that state anew."""
    data = few()
    monkeypatch.setattr(registry, "load_method", lambda name: cls)
    checkpointer = Checkpointer("test", 1e-9, {})
    learn(contract.make("odd", data.schema), data, checkpointer)
    assert checkpointer.path.exists() == kept
    why = "attribute 'factors': list_iterator is no plain data; see Method.on_resume"
    assert capsys.readouterr().err == ("" if kept else f"bench: no checkpoints of test ({why})\n")


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def of_other_code(path: Path) -> None:
    """As written by another version of the method's files."""
    data = path.read_bytes()
    assert data.count(b"digest-1") == 1
    path.write_bytes(data.replace(b"digest-1", b"digest-0"))


@pytest.mark.parametrize(
    ("spoil", "why"), [(damage, "is damaged"), (of_other_code, "is of other data, code or hardware")]
)
def test_a_useless_file_is_left_out_of_account(
    spoil: Callable[[Path], None], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data, belongs = few(groups=60), {"code": "digest-1"}
    method = contract.make("shared_bottom", data.schema)
    wanted = learn(method, data)
    first = Killed(batches(data.train) + 2)
    first.belongs |= belongs
    with pytest.raises(Cut):
        learn(contract.make("shared_bottom", data.schema), data, first)
    spoil(first.path)
    steps = []
    again = contract.make("shared_bottom", data.schema)
    step = again.step
    again.step = lambda *given: (steps.append(1), step(*given))[1]  # type: ignore[assignment, func-returns-value]
    found = learn(again, data, Checkpointer("test", 1.0, belongs))
    assert capsys.readouterr().err == f"bench: {first.path} {why}; the run starts anew\n"
    assert len(steps) == batches(data.train) * EPOCHS and found.curve == wanted.curve


# A run has several trainings where it learns from a teacher, or from pilot runs. (method, settings, kinds of files)
STAGES = [
    ("shared_bottom", {"balancer": "frozen_average"}, {"", "-balancer"}),
    pytest.param(
        "controller", {"control": "random"}, {"", "-pilot0", "-pilot1"}, marks=pytest.mark.slow, id="controller"
    ),
    pytest.param("distill", {"teacher": "lora"}, {"", "-teacher"}, marks=pytest.mark.slow, id="distill"),
]


@pytest.mark.parametrize(("method", "given", "wanted"), STAGES)
def test_every_training_of_a_run(
    method: str, given: dict[str, Any], wanted: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after every few batches, again and again: each time it goes on, and what has ended is not made again."""
    if "lm" in registry.load_method(method).space or issubclass(registry.load_method(method), Tuned):
        given = given | {"lm": tiny_language_model()}
        if "teacher" in given:
            given["teacher.lm"] = given["lm"]
    knobs = {"users": 40, "items": 100, "groups": 200}
    spec = specify(
        "sim-news", method, given=given | {"batch_size": SIZE}, knobs=knobs, budget={"epochs": 2, "patience": 2}
    )
    whole, _ = made(spec)
    assert whole["status"] == "ok", whole["error"]
    for path in (cache.root() / "teachers").glob("*"):
        path.unlink()
    lives, steps = 0, [0]
    usual = Checkpointer.keep

    def due(self: Checkpointer) -> bool:
        steps[0] += 1
        return steps[0] % 7 == 0

    def keep(self: Checkpointer, method: Method, optimizer: torch.optim.Optimizer, loop: Any) -> None:
        usual(self, method, optimizer, loop)
        if loop.batches:
            raise Cut

    monkeypatch.setattr(Checkpointer, "due", due)
    monkeypatch.setattr(Checkpointer, "keep", keep)
    files: set[str] = set()
    while True:
        lives += 1
        assert lives < 50
        try:
            found, _ = made(spec, checkpoint=1.0)
            break
        except Cut:
            files |= {p.stem.removeprefix(spec.key) for p in (cache.root() / "checkpoints").glob("*.safetensors")}
    assert lives > len(wanted) and files == wanted
    assert found["status"] == "ok", found["error"]
    for part in ("metrics", "curve", "best_epoch", "decisions", "gates"):
        assert found[part] == whole[part], part
    assert found["cost"]["texts_encoded"] == whole["cost"]["texts_encoded"]
