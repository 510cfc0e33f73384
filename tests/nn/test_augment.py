"""Augmentation: each operation by hand, what it preserves, how much it alters, and that nothing unseen gets in."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.api import Batch, Field, Inputs, Items, Schema
from bench.data.tensors import Split
from bench.nn import augment
from bench.training.contract import make, small

Operation = Callable[[Tensor, float], Tensor]

# Lists of items without repeats, so that what was kept can be found again; 0 to 6 items in 6 places.
HISTORIES = st.lists(st.lists(st.integers(1, 99), max_size=6, unique=True), min_size=1, max_size=8)
NAMES = ("none", *augment.HISTORY, "mixup", *augment.TEXT)
RATES = st.floats(0, 1, exclude_max=True)


def padded(lists: list[list[int]], length: int = 6) -> Tensor:
    return torch.tensor([[0] * (length - len(x)) + x for x in lists], dtype=torch.int32)


def items_of(history: Tensor) -> list[list[int]]:
    """The items of each history; fails if padding is not in front."""
    lists = [[v for v in row if v] for row in history.tolist()]
    assert torch.equal(history, padded(lists, history.shape[1]))
    return lists


def ordered(part: list[int], whole: list[int]) -> bool:
    rest = iter(whole)
    return all(v in rest for v in part)


def split(histories: list[list[int]], cat: list[list[int]], kinds: str = "ic") -> Split:
    """A training part of one row a group. ``kinds``: of the item fields, i for id and c for categorical."""
    names = {"i": "id", "c": "categorical"}
    columns = tuple(Field(f"f{n}", "item", names[kind]) for n, kind in enumerate(kinds))  # type: ignore[arg-type]
    table = torch.tensor(cat, dtype=torch.int32).reshape(len(cat), len(kinds))
    groups = len(histories)
    empty, rows = torch.zeros(groups, 0), torch.zeros(groups, dtype=torch.int32)
    history = padded(histories)
    return Split(
        name="train",
        schema=Schema(tasks=(), fields=columns, cardinality={}, history=history.shape[1], texts=()),
        items=Items(table, torch.zeros(len(cat), 0)),
        user_cat=empty.int(),
        user_num=empty,
        history=history,
        start=torch.arange(groups + 1),
        item=rows,
        pair_cat=empty.int(),
        pair_num=empty,
        user=rows,
        labels={},
        truth={},
        cold_user=rows.bool(),
        cold_item=rows.bool(),
    )


def batches(train: Split, seed: int = 0) -> list[Batch]:
    return list(train.batches(256, torch.Generator().manual_seed(seed)))


def within(share: float, expected: float, trials: int) -> None:
    """Five standard deviations of a binomial share."""
    assert abs(share - expected) <= 5 * math.sqrt(expected * (1 - expected) / trials)


@given(HISTORIES, RATES)
def test_crop_keeps_a_contiguous_stretch(lists: list[list[int]], rate: float) -> None:
    for before, after in zip(lists, items_of(augment.crop(padded(lists), rate)), strict=True):
        assert any(before[i : i + len(after)] == after for i in range(len(before) + 1))
        assert len(before) - len(after) in (math.floor(rate * len(before)), math.ceil(rate * len(before)))


@given(HISTORIES, RATES)
def test_mask_keeps_the_order_of_what_remains(lists: list[list[int]], rate: float) -> None:
    for before, after in zip(lists, items_of(augment.mask(padded(lists), rate)), strict=True):
        assert ordered(after, before)
        assert len(before) - len(after) in (math.floor(rate * len(before)), math.ceil(rate * len(before)))


@given(HISTORIES, RATES)
def test_reorder_shuffles_one_stretch(lists: list[list[int]], rate: float) -> None:
    for before, after in zip(lists, items_of(augment.reorder(padded(lists), rate)), strict=True):
        assert sorted(after) == sorted(before)
        moved = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
        assert not moved or moved[-1] - moved[0] < math.ceil(rate * len(before))


def test_every_outcome_is_equally_likely() -> None:
    """Of four items, half: three stretches, six subsets; one stretch of two in its two orders."""
    history = padded([[1, 2, 3, 4]]).repeat(12000, 1)
    torch.manual_seed(0)
    wanted: list[tuple[Operation, dict[tuple[int, ...], float]]] = [
        (augment.crop, {(1, 2): 1 / 3, (2, 3): 1 / 3, (3, 4): 1 / 3}),
        (augment.mask, dict.fromkeys([(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)], 1 / 6)),
        (augment.reorder, {(1, 2, 3, 4): 1 / 2, (2, 1, 3, 4): 1 / 6, (1, 3, 2, 4): 1 / 6, (1, 2, 4, 3): 1 / 6}),
    ]
    for operation, expected in wanted:
        found = Counter(map(tuple, items_of(operation(history, 0.5))))
        assert found.keys() == expected.keys()
        for outcome, share in expected.items():
            within(found[outcome] / 12000, share, 12000)


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("rate", [0.1, 0.45, 0.9])
def test_the_rate_is_the_expected_share_for_every_length(length: int, rate: float) -> None:
    """The share of the whole number of items is spread less than independent draws would be."""
    history = padded([list(range(1, length + 1))]).repeat(4000, 1)
    torch.manual_seed(0)
    for operation in (augment.crop, augment.mask):
        cut = (history > 0).sum() - (operation(history, rate) > 0).sum()
        within(cut.item() / (4000 * length), rate, 4000 * length)
    train = split([list(range(1, 7))], [[0], *[[1]] * 6], "c")
    changed = (augment.Substitute(train)(history, rate) != history).sum()
    within(changed.item() / (4000 * length), rate, 4000 * length)


def test_reorder_at_a_rate_near_one_reaches_every_order() -> None:
    torch.manual_seed(0)
    found = Counter(map(tuple, items_of(augment.reorder(padded([[1, 2, 3]]).repeat(6000, 1), 1 - 1e-12))))
    assert len(found) == 6
    for count in found.values():
        within(count / 6000, 1 / 6, 6000)


def test_a_substitute_shares_a_category_and_is_in_a_training_history() -> None:
    """Item 5 is in no history; 6 and 8 have no known category; 7 is alone in its own."""
    cat = [[0, 0], [1, 1], [2, 1], [3, 2], [4, 2], [5, 2], [6, 0], [7, 3], [8, 0]]
    train = split([[1, 2], [1, 2, 3], [1, 4, 6], [7, 8]], cat)
    torch.manual_seed(0)
    history = padded([[1, 3, 5, 6, 7]]).repeat(3000, 1)
    after = augment.Substitute(train)(history, 1 - 1e-12)
    assert after.dtype == history.dtype
    found = [set(column.tolist()) for column in after.unbind(dim=1)]
    assert found == [{0}, {2}, {4}, {3, 4}, {6}, {7}]


def test_substitutes_are_drawn_as_often_as_they_are_in_the_histories() -> None:
    """Field 0: items 1, 2, 3 agree, in 1, 2 and 3 histories. Field 1: items 1 and 4, alike. Without fields: all."""
    histories = [[1, 2, 3], [2, 3], [3], [4], [4], [4], [4]]
    cat = [[0, 0], [1, 1], [1, 0], [1, 0], [0, 1]]
    cases = [
        (1, split(histories, cat, "cc"), {2: 1 / 2 * 2 / 5, 3: 1 / 2 * 3 / 5, 4: 1 / 2}),
        (2, split(histories, cat, "cc"), {1: 1 / 4, 3: 3 / 4}),
        (4, split(histories, cat, "cc"), {1: 1.0}),
        (1, split(histories, [row[:1] for row in cat], "c"), {2: 2 / 5, 3: 3 / 5}),
        (1, split(histories, [row[:1] for row in cat], "i"), {2: 2 / 9, 3: 3 / 9, 4: 4 / 9}),
        (1, split(histories, [[] for _ in cat], ""), {2: 2 / 9, 3: 3 / 9, 4: 4 / 9}),
    ]
    torch.manual_seed(0)
    for old, train, expected in cases:
        history = padded([[old]]).repeat(20000, 1)
        found = Counter(augment.Substitute(train)(history, 1 - 1e-12)[:, -1].tolist())
        assert found.keys() == expected.keys()
        for item, share in expected.items():
            within(found[item] / 20000, share, 20000)


def test_no_rounding_takes_more_items_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the largest number below 1 that torch.rand gives: padding would be substituted."""
    monkeypatch.setattr(torch, "rand", lambda shape, device: torch.full(shape, 1 - 2**-24, device=device))
    history = padded([[1, 2, 3]])
    items = items_of(augment.Substitute(split([[1, 2, 3]], [[]] * 4, ""))(history, 1 - 1e-12))
    assert len(items[0]) == 3


def test_substitutes_for_training_parts_without_histories() -> None:
    history = padded([[1, 2], []])
    train = split([[], []], [[0, 0], [1, 1], [2, 1]])
    assert torch.equal(augment.Substitute(train)(history, 0.9), history)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_keeps_all_but_its_history(name: str) -> None:
    """And it is not changed in place: the split is used again."""
    train = small("sim-news").train
    before, kept = batches(train), batches(train)
    torch.manual_seed(0)
    alter = augment.augmentation(name, 0.5, train)
    after = [alter(batch) for batch in before]
    for old, copy, new in zip(before, kept, after, strict=True):
        for f in fields(Batch):
            a, b, c = (getattr(x, f.name) for x in (old, copy, new))
            if f.name == "history":
                assert torch.equal(a, b)
                assert torch.equal(a, c) == (name not in augment.HISTORY)
                assert c.shape == a.shape and c.dtype == a.dtype
                items_of(c)
            else:
                assert c is a
    seen = set(train.history.flatten().tolist())
    assert all(seen.issuperset(batch.history.flatten().tolist()) for batch in after)


@pytest.mark.parametrize("name", NAMES)
def test_rate_0_alters_nothing_and_draws_nothing(name: str) -> None:
    train = small("sim-news").train
    batch = batches(train)[0]
    state = torch.get_rng_state()
    assert augment.augmentation(name, 0.0, train)(batch) is batch
    assert torch.equal(torch.get_rng_state(), state)


def test_operations_at_rate_0_are_the_identity() -> None:
    history = padded([[1, 2, 3, 4, 5, 6], [7], []])
    train = split([[1, 2, 3]], [[0, 0], *[[i, 1] for i in range(1, 8)]])
    for operation in (augment.crop, augment.mask, augment.reorder, augment.Substitute(train)):
        assert torch.equal(operation(history, 0.0), history)


@pytest.mark.parametrize("name", augment.HISTORY)
def test_one_seed_gives_the_same_batches(name: str) -> None:
    train = small("sim-news").train
    alter, batch = augment.augmentation(name, 0.5, train), batches(train)[0]

    def draw(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return alter(batch).history

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


@pytest.mark.parametrize("name", augment.HISTORY)
def test_data_without_histories(name: str) -> None:
    train = small("sim-news").train
    none = replace(train, history=train.history[:, :0], schema=replace(train.schema, history=0))
    assert augment.declines(name, none.schema) == "no histories"
    assert augment.declines(name, train.schema) == ""
    assert augment.declines("mixup", none.schema) == augment.declines("none", none.schema) == ""
    batch = batches(none)[0]
    assert augment.augmentation(name, 0.5, none)(batch).history.shape == (len(batch.user_cat), 0)


@pytest.mark.parametrize("name", augment.HISTORY)
def test_empty_histories_stay_empty(name: str) -> None:
    train = small("sim-news").train
    batch = replace(batches(train)[0], history=torch.zeros(5, train.schema.history, dtype=torch.int32))
    assert torch.equal(augment.augmentation(name, 0.9, train)(batch).history, batch.history)


def test_what_augmentation_refuses() -> None:
    train = small("sim-news").train
    for rate in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="at least 0 and below 1"):
            augment.augmentation("crop", rate, train)
        with pytest.raises(ValueError, match="at least 0 and below 1"):
            augment.mix_inputs(nn.Identity(), rate)


def test_mixed_features_by_hand() -> None:
    x = torch.tensor([[0.0, 4.0], [8.0, 0.0], [1.0, 1.0]])
    mixed = augment.mix_features(x, torch.tensor([[0.25], [0.5], [0.0]]), torch.tensor([1, 0, 0]))
    assert mixed.tolist() == [[2.0, 3.0], [4.0, 2.0], [1.0, 1.0]]


def test_mixup_blends_whole_groups() -> None:
    """Features are one-hot, so what a row is made of can be read off: user of g and h, a row of g and one of h."""
    sizes = torch.tensor([1, 2, 3, 4])
    group = torch.repeat_interleave(torch.arange(4), sizes)
    user, candidate = torch.eye(4), torch.eye(10)
    pair = torch.cat([user[group], candidate], dim=1)
    torch.manual_seed(0)
    partners, met = set(), set()
    for _ in range(300):
        mixed, mixed_user = augment.mixup(pair, user, group, 1 - 1e-12)
        assert torch.equal(mixed[:, :4], mixed_user[group])  # rows of a group keep a common user side
        own = mixed_user.diagonal()
        other = mixed_user - torch.diag(own)
        assert (own >= 0.5).all() and ((other > 0).sum(dim=1) == 1).all()
        torch.testing.assert_close(mixed_user.sum(dim=1), torch.ones(4))
        h = other.argmax(dim=1)
        rows = mixed[:, 4:] - torch.diag(mixed[:, 4:].diagonal())
        torch.testing.assert_close(mixed[:, 4:].diagonal(), own[group])  # one weight a group
        torch.testing.assert_close(rows.max(dim=1).values, 1 - own[group])
        assert torch.equal(group[rows.argmax(dim=1)], h[group])  # a row of the same other group
        assert sorted(h.tolist()) == [0, 1, 2, 3]
        partners |= set(enumerate(h.tolist()))
        met |= set(enumerate(rows.argmax(dim=1).tolist()))
    assert partners == {(g, h) for g in range(4) for h in range(4) if g != h}
    assert met == {(r, s) for r in range(10) for s in range(10) if group[r] != group[s]}


def test_mixup_alters_a_share_of_groups_by_a_quarter_on_average() -> None:
    user = torch.eye(500)
    group = torch.arange(500)
    torch.manual_seed(0)
    weights = torch.cat([1 - augment.mixup(user, user, group, 0.3)[1].diagonal() for _ in range(20)])
    within((weights > 0).float().mean().item(), 0.3, 10000)
    altered = weights[weights > 0]  # uniform on (0, 1/2): standard deviation 1 / sqrt(48)
    assert abs(altered.mean() - 0.25) < 5 / math.sqrt(48 * len(altered))


def test_mixup_leaves_a_single_group() -> None:
    pair, user = torch.randn(3, 4), torch.randn(1, 4)
    mixed = augment.mixup(pair, user, torch.zeros(3, dtype=torch.long), 0.9)
    assert torch.equal(mixed[0], pair) and torch.equal(mixed[1], user)


@pytest.mark.parametrize("name", ["shared_bottom", "single_task", "pepnet", "stem", "esmm"])
def test_mixup_acts_on_every_input_layer_once_and_never_at_evaluation(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pepnet has an input layer inside another, single_task and stem have one a task."""
    data = small("sim-shop")
    method = make(name, data.schema)
    batch = batches(data.train)[0]
    read = 0

    def count(module: nn.Module, args: tuple[Batch], output: object) -> None:
        nonlocal read
        read += 1

    for module in method.modules():
        if isinstance(module, Inputs):
            module.register_forward_hook(count)
    method.eval()
    plain = method(batch)
    layers, read = read, 0
    keys = list(method.state_dict())
    augment.mix_inputs(method, 0.5)
    assert list(method.state_dict()) == keys
    state = torch.get_rng_state()
    assert all(torch.equal(output, plain[task]) for task, output in method(batch).items())
    assert torch.equal(torch.get_rng_state(), state)
    calls: list[float] = []

    def mixup(pair: Tensor, user: Tensor, group: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        calls.append(rate)
        return pair, user

    monkeypatch.setattr(augment, "mixup", mixup)
    method.train()
    method(batch)
    assert calls == [0.5] * layers and layers > 0


def test_mixup_reaches_the_outputs_while_training_and_learns() -> None:
    """All tasks, a user-scope one and a softmax within groups among them, have finite losses and gradients."""
    data = small("sim-news")
    torch.manual_seed(0)
    method = make("shared_bottom", data.schema, dropout=0.0, id_dropout=0.0)
    batch = batches(data.train)[0]
    method.train()
    plain = method(batch)
    augment.mix_inputs(method, 0.9)
    mixed = method(batch)
    assert all(not torch.allclose(plain[task], mixed[task]) for task in plain)
    losses = method.losses(mixed, batch)
    torch.autograd.backward(losses.sum())
    assert losses.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


def test_what_a_user_scope_task_reads_under_mixup_knows_no_candidate() -> None:
    data = small("sim-news")
    method = make("shared_bottom", data.schema)
    inputs = method.get_submodule("inputs")
    assert isinstance(inputs, Inputs)
    augment.mix_inputs(method, 0.9)
    method.train()
    batch = batches(data.train)[0]
    pair, user = inputs(batch)
    assert (user[:, inputs.user_width :] == 0).all()
    assert torch.equal(pair[:, : inputs.user_width], user[batch.group, : inputs.user_width])


def test_token_dropout_keeps_the_ends_and_the_padding() -> None:
    present = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 1, 0, 0, 0], [0] * 5])
    torch.manual_seed(0)
    for mask in (present, present.bool()):
        kept = augment.token_dropout(mask, 1 - 1e-12)
        assert kept.dtype == mask.dtype
        wanted = [[1, 0, 0, 0, 1], [1, 0, 1, 0, 0], [0, 0, 1, 0, 1], [1, 1, 0, 0, 0], [0] * 5]
        assert kept.long().tolist() == wanted
        assert torch.equal(augment.token_dropout(mask, 0.0), mask)
    dropped = 1 - augment.token_dropout(present[:1].repeat(4000, 1), 0.25)[:, 1:4].float()
    for place in range(3):
        within(dropped[:, place].mean().item(), 0.25, 4000)


def test_swapped_sentences() -> None:
    cases = {
        "A. B.": "B. A.",
        "Who won? The home side. By far.": "The home side. By far. Who won?",
        "Rain!\nStay in.": "Stay in. Rain!",
        "Up 3.5 percent. More soon": "More soon Up 3.5 percent.",
        "One sentence.": "One sentence.",
        "no end at all": "no end at all",
        " Ends with spaces.  ": " Ends with spaces.  ",
        "": "",
    }
    assert augment.swap(list(cases)) == list(cases.values())
    assert augment.swap([]) == []
