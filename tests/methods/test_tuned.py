"""Methods that train the language model: what is trained, from where, at which rate, and how much work that is."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench import registry
from bench.errors import BenchError
from bench.text import encode, tower
from bench.text.network import Inside, layers
from bench.text.tower import Adapt
from bench.training.contract import make, small, tiny_language_model
from bench.training.loop import fit
from bench.training.optimizer import groups_of
from bench.training.predict import evaluate
from bench.training.recipe import Recipe
from methods.adapter import After, begin_inside, ends, replace
from methods.lora import Lora

# What one layer of the tiny model (width 16, 32 in the feed-forward network) is given to train, by formula.
LAYER = 4 * (16 * 16 + 16) + (16 * 32 + 32) + (32 * 16 + 16) + 2 * 2 * 16
BOTTLENECK = 2 * 16 * 8 + 8 + 16
WIDTHS: dict[str, tuple[dict[str, Any], int]] = {
    "full": ({}, LAYER),
    "lp_ft": ({}, 0),
    "unfreeze": ({}, LAYER),
    "bitfit": ({}, 4 * 16 + 32 + 16 + 2 * 16),
    "lora": ({"rank": 4}, 2 * 2 * 4 * 16),
    "dora": ({"rank": 4}, 2 * (2 * 4 * 16 + 16)),
    "ia3": ({}, 2 * 16 + 16 + 32),  # keys, values, and what goes into two dense layers
    "ln_tuning": ({}, 2 * 2 * 16),
    "vera": ({"rank": 8}, 2 * (16 + 8)),
    "prefix": ({"length": 5}, 5 * 2 * 16),
    "prompt": ({"length": 5}, 5 * 16),
    "adapter": ({"bottleneck": 8}, BOTTLENECK),
    # On the five tasks of sim-news: what they share and what each has; embeddings, network, and what it writes from.
    "mtl_lora": ({"rank": 4, "ups": 3}, 2 * ((1 + 3) * 4 * 16 + 5 * (4 * 4 + 3))),
    "hyperformer": (
        {"bottleneck": 8, "code": 6},
        (5 + 1 + 2) * 6 + (3 * 6 + 1) * 6 + (6 + 1) * 6 + 6 * (2 * 8 * 16 + 2 * 16),
    ),
}


# Those that train what lora does, by default.
LIKE_LORA = ("auto_lambda", "controller", "distill", "fomaml", "pretrained", "reptile")
TUNED = sorted([*WIDTHS, *LIKE_LORA])


def made(name: str, **given: Any) -> Any:
    return make(name, small("sim-news").schema, layers=1, **given)


def batch_of(rows: int = 200) -> Any:
    return next(small("sim-news").train.batches(rows, torch.Generator().manual_seed(0)))


def trained(module: nn.Module) -> dict[str, Tensor]:
    return {n: p for n, p in module.named_parameters() if p.requires_grad}


@contextmanager
def counted(net: nn.Module) -> Iterator[list[int]]:
    """Texts that go into the network, pass by pass."""
    seen: list[int] = []
    hook = net.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len(kwargs["attention_mask"])), with_kwargs=True
    )
    yield seen
    hook.remove()


@pytest.mark.parametrize("name", WIDTHS)
def test_trained_parameters_are_as_many_as_the_formula_says(name: str) -> None:
    given, wanted = WIDTHS[name]
    network = made(name, **given).towers()[0].network
    assert sum(p.numel() for p in trained(network).values()) == wanted


def test_others_train_what_lora_does() -> None:
    for name in LIKE_LORA:
        cls: Any = registry.load_method(name)
        assert issubclass(cls, Lora) and cls.adapt is Lora.adapt
        network = made(name, rank=4).towers()[0].network
        assert sum(p.numel() for p in trained(network).values()) == WIDTHS["lora"][1], name


@pytest.mark.parametrize("place", ["houlsby", "pfeiffer", "parallel"])
def test_adapters_by_place(place: str) -> None:
    network = made("adapter", place=place, bottleneck=8).towers()[0].network
    assert sum(p.numel() for p in trained(network).values()) == (2 if place == "houlsby" else 1) * BOTTLENECK


IDENTITY = [n for n in WIDTHS if n not in ("prefix", "prompt")]


@pytest.mark.parametrize(("top", "name"), [*product((0, 1), IDENTITY), (2, "lora")])
def test_at_the_start_the_text_vectors_are_those_of_the_model(top: int, name: str) -> None:
    schema = small("sim-news").schema
    method: Any = make(name, schema, layers=top).eval()
    items = torch.arange(0, len(schema.texts), 7)
    wanted = torch.from_numpy(encode.vectors(schema.texts, tiny_language_model()))[items]
    for found in method.towers():
        torch.testing.assert_close(found(items), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("place", ["houlsby", "parallel"])
def test_an_adapter_computes_its_equation(place: str) -> None:
    """The last layer by hand: f(h) + B(f(h)), or f(h) + B(h) where the adapter stands beside the network f."""
    network = made("adapter", place=place, bottleneck=8).towers()[0].network
    block = layers(network)[0]
    torch.manual_seed(3)
    adapters = [m for m in block.modules() if type(m).__name__ == "Bottleneck"]
    for part in adapters:
        nn.init.normal_(part.up.weight)
    h, mask = torch.randn(2, 5, 16), torch.ones(2, 5, dtype=torch.long)

    def bottleneck(part: Any, x: Tensor) -> Tensor:
        return (x @ part.down.weight.T + part.down.bias).clamp(min=0) @ part.up.weight.T + part.up.bias

    context = block.attention.self(h, None)[0]
    out = block.attention.output
    dense = out.dense.layer(context) if place == "houlsby" else out.dense(context)
    behind = dense + bottleneck(out.dense.adapter, dense) if place == "houlsby" else dense
    attended = out.LayerNorm(behind + h)
    forward = block.output.dense.layer(nn.functional.gelu(block.intermediate.dense(attended)))
    read = forward if place == "houlsby" else attended
    by_hand = block.output.LayerNorm(forward + bottleneck(block.output.dense.adapter, read) + attended)
    torch.testing.assert_close(network(inputs_embeds=h, attention_mask=mask).last_hidden_state, by_hand)


@pytest.mark.parametrize("name", TUNED)
def test_what_is_frozen_stays_and_what_is_trained_moves(name: str) -> None:
    """Also: the optimiser holds what is trained and nothing else, and a saved model answers as the trained one."""
    data = small("sim-news")
    train, valid = data.train.cut(40)[0], data.valid.cut(10)[0]
    given = {"probe": 1} if name == "lp_ft" else {"tokens": 2000} if name == "pretrained" else {}
    method = made(name, **given)
    before: dict[str, Tensor] = {}
    start = evaluate(method, data.test)
    held: list[set[int]] = []
    step = type(method).step

    def spied(self: Any, batch: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        if not held:
            before.update(copy.deepcopy(self.state_dict()))
        held.append({id(p) for group in optimizer.param_groups for p in group["params"]})
        assert held[-1] == {id(p) for p in self.parameters() if p.requires_grad}
        return step(self, batch, optimizer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(method), "step", spied)
        fit(method, train, valid, Recipe(lr=0.01, weight_decay=0.0, batch_size=256, epochs=2, patience=2))
    assert held
    names = dict(method.named_parameters())
    moved = {n for n, p in names.items() if not torch.equal(p, before[n])}
    assert moved <= {n for n, p in names.items() if p.requires_grad}
    if name not in ("lp_ft", "unfreeze"):  # their language model may be kept from before it was trained
        assert any("tower.network" in n for n in moved)
    end = evaluate(method, data.test)
    assert any((start[t] != end[t]).any() for t in end)


def full(net: nn.Module) -> nn.Module:
    layers(net)[-1].requires_grad_()
    return net


def behind_the_feed_forward_network(net: nn.Module) -> nn.Module:
    block, inside = layers(net)[-1], Inside.fits(net)
    replace(block, ends(block, 16)[-1][0], After, 8)
    if inside:
        begin_inside(net)
    return net


@pytest.mark.parametrize("adapt", [full, behind_the_feed_forward_network])
def test_a_tower_that_restarts_from_cached_states_gives_the_same_losses(adapt: Adapt) -> None:
    """To 1e-4 over an epoch: the top layer from cached states, and from token ids with the layer below frozen."""
    schema, lm = small("sim-news").schema, tiny_language_model()
    items = torch.arange(1, len(schema.texts))

    losses = []
    for top in (1, 0):
        torch.manual_seed(0)
        model = tower.Tower(schema.texts, lm, adapt, top=top).train()
        head = nn.Linear(model.width, 1)
        optimizer = torch.optim.AdamW([*trained(model).values(), *head.parameters()], lr=1e-3)
        for part in items.split(16):
            loss = (head(model(part)).squeeze(1) - part % 3).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    first, second = torch.stack(losses).chunk(2)
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)
    assert first.std() > 0


def test_work_is_by_unique_text_and_none_for_a_frozen_model() -> None:
    data = small("sim-news")
    batch, texts = batch_of(), data.schema.texts
    rows = torch.cat([batch.item, batch.history.flatten()]).unique()
    distinct = len({texts[i] for i in rows.tolist()} - {""})
    method = made("lora", texts=0).train()
    with counted(method.towers()[0].network) as seen:
        method(batch)
    assert sum(seen) == distinct == method.towers()[0].texts_encoded
    few = made("lora", texts=10).train()
    with counted(few.towers()[0].network) as seen:
        few(batch)
    assert sum(seen) == 10
    still = made("lp_ft").train()  # frozen until its probe is over
    with counted(still.towers()[0].network) as seen:
        still(batch)
        first = sum(seen)
        still(batch)
    assert first == distinct and sum(seen) == first
    frozen = make("frozen", data.schema)
    assert not any("encoder" in n for n, _ in frozen.named_modules()), "a frozen model is a matrix"


def test_texts_that_did_not_pass_keep_their_vectors_and_give_no_gradient() -> None:
    method = made("full", texts=5).train()
    part = method.towers()[0]
    store = part.get_buffer("store").clone()
    items = torch.arange(1, 60)
    found = part(items)
    moved = (part.get_buffer("store") != store).any(dim=1)
    assert moved.sum() <= 5
    torch.testing.assert_close(found, part.get_buffer("store")[part.get_buffer("text")[items]])
    reached = torch.autograd.grad(found.square().sum(), part.network.parameters(), allow_unused=True)
    assert any(g is not None for g in reached)


def test_evaluation_reads_each_text_once_until_training_goes_on() -> None:
    part = made("lora").eval().towers()[0]
    items = torch.arange(1, 50)
    with counted(part.network) as seen:
        part(items)
        once = sum(seen)
        part(items.flip(0))
        assert sum(seen) == once
        part.train()
        part(items[:3])
        part.eval()
        part(items)
    assert sum(seen) > 2 * once - 3


def test_an_empty_text_is_the_zero_vector() -> None:
    part = made("full").towers()[0]
    for mode in (True, False):
        part.train(mode)
        assert not part(torch.tensor([0, 1]))[0].any() and part(torch.tensor([0, 1]))[1].any()


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "attention"])
def test_poolings(pooling: str) -> None:
    schema = small("sim-news").schema
    part = make("full", schema, layers=0, pooling=pooling).eval().towers()[0]  # type: ignore[operator, union-attr]
    items = torch.tensor([3, 1, 2])
    for item, vector in zip(items.tolist(), part(items), strict=True):
        place = part.unique.index(schema.texts[item])
        ids = part.tokens.ids[part.tokens.start[place] : part.tokens.start[place + 1]][None]
        hidden = part.network(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        if pooling == "attention":
            score = torch.tanh(part.attention.project(hidden)) @ part.attention.query.weight[0]
            pooled = torch.softmax(score, 0) @ hidden
        else:
            pooled = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pooling]
        torch.testing.assert_close(vector, pooled / pooled.norm(), atol=1e-5, rtol=1e-4)


def test_the_language_model_has_a_rate_of_its_own() -> None:
    method = made("lora", lm_lr=0.5)
    groups = groups_of(method, 0.1, 0.0)
    own = {id(p): group["lr"] for group in groups for p in group["params"]}
    network = {id(p) for p in trained(method.towers()[0].network).values()}
    assert {own[i] for i in network} == {0.5} and {own[i] for i in own.keys() - network} == {0.1}


def test_unfreezing_goes_down_a_layer_at_a_time() -> None:
    method: Any = make("unfreeze", small("sim-news").schema, layers=0, every=2, lm_lr=0.1, decay=2.0)
    lower, upper = layers(method.towers()[0].network)

    def state() -> tuple[bool, bool]:
        return any(trained(lower)), any(trained(upper))

    assert state() == (False, True)
    method.on_epoch(1, {})
    assert state() == (False, True)
    method.on_epoch(2, {})
    assert state() == (True, True)
    rates = {id(p): rate for module, rate in method.rates(1.0) for p in module.parameters()}
    assert {rates[id(p)] for p in upper.parameters()} == {0.1}
    assert {rates[id(p)] for p in lower.parameters()} == {0.05}


def test_lp_ft_trains_the_language_model_after_its_probe() -> None:
    method = made("lp_ft", probe=2)
    network = method.towers()[0].network
    method.on_epoch(1, {})
    assert not trained(network)
    method.on_epoch(2, {})
    assert trained(network)


def test_models_of_a_single_task_trunk_have_a_language_model_each() -> None:
    method = made("lora", trunk="single_task")
    first, *others = method.towers()
    assert len(others) == len(method.tasks) - 1
    for other in others:
        assert not set(trained(first.network).values()) & set(trained(other.network).values())


def test_text_only_is_a_share_of_one_of_hidden_ids() -> None:
    method = made("lora", id_dropout=1.0).eval()
    batch = batch_of()
    codes = batch.user_cat.clone()
    users = [i for i, f in enumerate(method.schema.side("user")) if f.kind == "id"]
    codes[:, users] = codes[:, users].roll(1, 0)
    other = copy.copy(batch)
    other.user_cat = codes
    with torch.no_grad():
        for task, output in method(batch).items():
            assert torch.equal(output, method(other)[task])


@pytest.mark.parametrize("operation", ["token_dropout", "swap"])
def test_texts_are_augmented_while_training_only(operation: str) -> None:
    plain, other = (made("lora", texts=0, **given) for given in ({}, {"augment": operation, "augment_rate": 0.9}))
    items = torch.arange(1, 60)
    with torch.no_grad():
        assert torch.equal(plain.eval().towers()[0](items), other.eval().towers()[0](items))
        a, b = plain.train().towers()[0](items), other.train().towers()[0](items)
    assert (a - b).abs().max() > 1e-3


def test_text_augmentation_needs_a_language_model_that_is_trained() -> None:
    with pytest.raises(BenchError, match="no language model is trained"):
        make("frozen", small("sim-news").schema, augment="swap")


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("lora", {"layers": 9}, "has 2"),
        ("lora", {"pooling": "max"}, "choose mean"),
        ("lora", {"texts": -1}, "0 for all"),
        ("adapter", {"place": "nowhere"}, "houlsby"),
        ("adapter", {"bottleneck": 0}, "at least 1"),
        ("unfreeze", {"every": 0}, "an epoch at least"),
        ("lp_ft", {"probe": 0}, "one epoch at least"),
    ],
)
def test_a_setting_that_cannot_be(name: str, given: dict[str, Any], told: str) -> None:
    with pytest.raises(BenchError, match=told):
        make(name, small("sim-news").schema, **given)
