"""Architectures along a funnel, DBMTL, PEPNet, MetaHeac and single-task models, each against its equation."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baselines.esmm import find_funnel, product_logit
from baselines.metaheac import halves
from bench.api import Batch, Schema, Task
from bench.errors import BenchError
from bench.training.contract import make, small

NAN = float("nan")
PLAIN = {"dropout": 0.0, "id_dropout": 0.0}


@pytest.fixture(scope="module")
def batch() -> Batch:
    return next(small("sim-shop").train.batches(120, torch.Generator().manual_seed(0)))


def made(name: str, schema: Schema | None = None, **given: Any) -> Any:
    return make(name, schema or small("sim-shop").schema, **{**PLAIN, **given})


def only(*names: str) -> Schema:
    """The shop's schema with these tasks alone."""
    schema = small("sim-shop").schema
    return replace(schema, tasks=tuple(t for t in schema.tasks if t.name in names))


def labelled(batch: Batch, **labels: list[float]) -> Batch:
    return replace(batch, labels={name: torch.tensor(values) for name, values in labels.items()})


def chained(layers: Any, x: Tensor) -> Tensor:
    """Every layer by hand: W x + b, and max(0, .) where there is a ReLU."""
    for layer in layers.modules():
        if isinstance(layer, nn.Linear):
            x = torch.stack([layer.weight @ row + layer.bias for row in x])
        elif isinstance(layer, nn.ReLU):
            x = x * (x > 0)
    return x


# Which task is which


@pytest.mark.parametrize("dataset", ["sim-shop", "complete-journey", "aliexpress", "ali-ccp", "criteo-attribution"])
def test_the_funnel_is_found_by_role_and_space(dataset: str) -> None:
    wanted = {
        "sim-shop": ("click", "purchase", "purchase_given_click"),
        "complete-journey": ("buy", "redeem", "redeem_given_buy"),
    }.get(dataset, ("click", "ctcvr", "cvr"))
    from bench import registry

    name = next(n for n in registry.entries("datasets") if n.startswith(dataset))
    found = find_funnel(replace(only(), tasks=registry.load_dataset(name).tasks))
    assert found is not None
    assert tuple(t.name for t in found.steps) == wanted


@pytest.mark.parametrize("name", ["esmm", "escm2", "aitm"])
def test_no_funnel_no_model(name: str) -> None:
    from bench import registry

    cls, news = registry.load_method(name), small("sim-news").schema
    assert not cls.declines(only("click", "purchase", "purchase_given_click"))
    for schema in (news, only("click", "rank"), only("purchase", "purchase_given_click")):
        assert cls.declines(schema).startswith("no funnel: it needs a click task")
    with pytest.raises(BenchError, match="no funnel"):
        made(name, news)
    assert bool(cls.declines(only("click", "purchase"))) == (name == "escm2")
    assert bool(cls.declines(only("click", "purchase_given_click"))) == (name == "aitm")


def test_the_missing_label_follows_from_the_others(batch: Batch) -> None:
    """CTCVR from click and CVR and back, against the data set's own labels; unknown clicks stay unknown."""
    labels = batch.labels
    full = find_funnel(only("click", "purchase", "purchase_given_click"))
    from_cvr, from_ctcvr = find_funnel(only("click", "purchase_given_click")), find_funnel(only("click", "purchase"))
    assert full and from_cvr and from_ctcvr
    assert 0 < labels["purchase"].sum() < labels["click"].sum() < len(labels["click"])
    for funnel in (full, from_cvr, from_ctcvr):
        torch.testing.assert_close(funnel.ctcvr_label(labels), labels["purchase"])
        torch.testing.assert_close(funnel.cvr_label(labels), labels["purchase_given_click"], equal_nan=True)
    unknown = {"click": torch.tensor([NAN, 1.0]), "purchase_given_click": torch.tensor([NAN, NAN])}
    assert from_cvr.ctcvr_label(unknown).isnan().all()


# ESMM


def test_product_logit_multiplies_probabilities() -> None:
    a, b = torch.meshgrid(*[torch.linspace(-12, 12, 25, dtype=torch.float64)] * 2, indexing="ij")
    torch.testing.assert_close(product_logit(a, b).sigmoid(), a.sigmoid() * b.sigmoid(), rtol=1e-12, atol=0.0)
    far = torch.tensor([-200.0, 200.0, 90.0], requires_grad=True)
    both = product_logit(far, torch.tensor([-200.0, 200.0, -300.0]))
    torch.testing.assert_close(both.detach(), torch.tensor([-400.0, 200.0 - math.log(2), -300.0]))
    both.sum().backward()
    assert far.grad is not None and far.grad.isfinite().all()


def test_esmm_is_the_product_of_two_towers(batch: Batch) -> None:
    model = made("esmm").eval()
    outputs = model(batch)
    pair, user = model.inputs(batch)
    for task in model.tasks:
        if task.name != "purchase":
            by_hand = chained(model.networks[task.name], user if task.scope == "user" else pair)
            torch.testing.assert_close(outputs[task.name], by_hand if task.kind == "multiclass" else by_hand[:, 0])
    ctr, cvr, ctcvr = (outputs[n].sigmoid() for n in ("click", "purchase_given_click", "purchase"))
    torch.testing.assert_close(ctcvr, ctr * cvr)
    assert (ctcvr <= ctr).all() and (ctcvr <= cvr).all()


def entropy(p: Tensor, label: Tensor) -> Tensor:
    return -(label * p.log() + (1 - label) * (1 - p).log())


@pytest.mark.parametrize(
    "names", [("click", "purchase", "purchase_given_click"), ("click", "purchase"), ("click", "purchase_given_click")]
)
def test_esmm_learns_click_and_product_only(names: tuple[str, ...], batch: Batch) -> None:
    """The same two losses and the same start whichever of the two conversion tasks the data set has."""
    model = made("esmm", only(*names))
    model.on_start(small("sim-shop").train)
    outputs = model(batch)
    losses = dict(zip(names, model.losses(outputs, batch), strict=True))
    x = model.inputs(batch)[0]
    ctr, cvr = (chained(model.networks[n], x)[:, 0].sigmoid() for n in ("click", model.conversion.name))
    torch.testing.assert_close(losses["click"], entropy(ctr, batch.labels["click"]).mean())
    product = losses.get("purchase", losses.get("purchase_given_click"))
    torch.testing.assert_close(product, entropy(ctr * cvr, batch.labels["purchase"]).mean())
    train = small("sim-shop").train.labels
    rate = train["purchase"].sum() / train["click"].sum()
    torch.testing.assert_close(model.networks[model.conversion.name][-1].bias.sigmoid(), rate.reshape(1))
    if len(names) == 3:
        torch.autograd.backward(losses["purchase_given_click"])
        assert losses["purchase_given_click"] == 0
        assert all(p.grad is None or not p.grad.any() for p in model.parameters())


# ESCM2

ROWS = {  # click, conversion, pCTR, pCVR, imputed loss
    "click": [1.0, 1.0, 0.0, 1.0],
    "purchase_given_click": [1.0, 0.0, NAN, 0.0],
}
CTR, CVR, IMPUTED = [0.5, 0.05, 0.4, 0.25], [0.8, 0.1, 0.7, 0.5], [0.2, 0.1, 0.3, 0.6]


def outputs_of_rows() -> dict[str, Tensor]:
    return {"click": torch.tensor(CTR).logit(), "purchase_given_click": torch.tensor(CVR).logit()}


@pytest.mark.parametrize("estimator", ["ips", "dr"])
def test_escm2_on_four_rows(estimator: str, batch: Batch) -> None:
    """Clip 10: weights are 2, 10 (not 20), 0 and 4; the conversion losses -ln .8, -ln .9 and -ln .5."""
    model = made("escm2", estimator=estimator, clip=10.0)
    model.imputed = torch.tensor(IMPUTED) if estimator == "dr" else None
    got = model.cvr_loss(model.funnel.cvr, outputs_of_rows(), labelled(batch, **ROWS))
    d1, d2, d4 = -math.log(0.8), -math.log(0.9), -math.log(0.5)
    if estimator == "ips":
        wanted = (2 * d1 + 10 * d2 + 4 * d4) / 4
    else:
        direct = (0.2 + 0.1 + 0.3 + 0.6) / 4 + (2 * (d1 - 0.2) + 10 * (d2 - 0.1) + 4 * (d4 - 0.6)) / 4
        wanted = direct + (2 * (d1 - 0.2) ** 2 + 10 * (d2 - 0.1) ** 2 + 4 * (d4 - 0.6) ** 2) / 4
    assert got.item() == pytest.approx(wanted, rel=1e-5)
    unknown = {name: [*values, NAN] for name, values in ROWS.items()}
    longer = {name: torch.cat([value, value[:1]]) for name, value in outputs_of_rows().items()}
    if model.imputed is not None:
        model.imputed = torch.cat([model.imputed, model.imputed[:1]])
    again = model.cvr_loss(model.funnel.cvr, longer, labelled(batch, **unknown))
    assert again.item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("estimator", ["ips", "dr"])
def test_escm2_detaches_the_propensity(estimator: str, batch: Batch) -> None:
    model = made("escm2", estimator=estimator)
    losses = dict(zip([t.name for t in model.tasks], model.losses(model(batch), batch), strict=True))
    torch.autograd.backward(losses["purchase_given_click"], retain_graph=True)
    assert all(p.grad is None or not p.grad.any() for p in model.networks["click"].parameters())
    assert all(p.grad is not None and p.grad.any() for p in model.networks["purchase_given_click"][-1].parameters())
    torch.autograd.backward(losses["purchase"])
    assert all(p.grad.any() for p in model.networks["click"][-1].parameters())


def test_escm2_weighs_its_three_losses(batch: Batch) -> None:
    plain, weighed = made("escm2", lam_c=1.0, lam_g=1.0), made("escm2", lam_c=0.25, lam_g=3.0)
    a, b = (m.losses(m.eval()(batch), batch) for m in (plain, weighed))
    scale = {"purchase": 3.0, "purchase_given_click": 0.25}
    torch.testing.assert_close(b, a * torch.tensor([scale.get(t.name, 1.0) for t in plain.tasks]))
    two = made("escm2", only("click", "purchase_given_click"), lam_c=0.25, lam_g=3.0).eval()
    out = two(batch)
    both = out["click"].sigmoid() * out["purchase_given_click"].sigmoid()
    wanted = 0.25 * two.cvr_loss(two.funnel.cvr, out, batch) + 3.0 * entropy(both, batch.labels["purchase"]).mean()
    torch.testing.assert_close(two.losses(out, batch)[1], wanted)


@pytest.mark.parametrize(("setting", "word"), [({"estimator": "drs"}, "ips or dr"), ({"clip": 0.5}, "at least 1")])
def test_escm2_refuses(setting: dict[str, Any], word: str) -> None:
    with pytest.raises(BenchError, match=word):
        made("escm2", **setting)


def test_escm2_dr_trains_every_parameter(batch: Batch) -> None:
    model = made("escm2", estimator="dr")
    model.backward(model.losses(model(batch), batch))
    assert all(p.grad is not None for p in model.parameters())
    assert (model.imputed >= 0).all()


# AITM


def test_aitm_transfers_by_attention(batch: Batch) -> None:
    model = made("aitm", width=16).eval()
    outputs, x = model(batch), model.inputs(batch)[0]
    q = {n: chained(model.bottoms[n], x) for n in ("click", "purchase", "cart")}
    p = chained(model.information, q["click"])
    rows = []
    for row in range(len(x)):
        two = (p[row], q["purchase"][row])
        h1, h2, h3 = (
            [chained(h, u[None])[0] for u in two] for h in (model.transfer.h1, model.transfer.h2, model.transfer.h3)
        )
        score = [(a @ b / math.sqrt(16)).exp() for a, b in zip(h1, h2, strict=True)]
        rows.append((score[0] * h3[0] + score[1] * h3[1]) / (score[0] + score[1]))
    torch.testing.assert_close(outputs["purchase"], chained(model.towers["purchase"], torch.stack(rows))[:, 0])
    for name in ("click", "cart"):
        torch.testing.assert_close(outputs[name], chained(model.towers[name], q[name])[:, 0])


def test_aitm_calibrator_by_hand(batch: Batch) -> None:
    schema = only("click", "purchase")
    rows = labelled(batch, click=[1.0, 0.0, 1.0, 0.0], purchase=[1.0, 0.0, 0.0, 0.0])
    outputs = {"click": torch.tensor(CTR).logit(), "purchase": torch.tensor(CVR).logit()}
    without = made("aitm", schema, calibrator=0.0).losses(outputs, rows)
    added = made("aitm", schema).losses(outputs, rows) - without
    torch.testing.assert_close(added, torch.tensor([0.0, 0.6 * (0.3 + 0.05 + 0.3 + 0.25) / 4]))
    turned = {"click": outputs["purchase"], "purchase": outputs["click"]}
    assert torch.equal(
        made("aitm", schema).losses(turned, rows), made("aitm", schema, calibrator=0.0).losses(turned, rows)
    )


# DBMTL


def test_dbmtl_reads_the_towers_before(batch: Batch) -> None:
    model = made("dbmtl").eval()
    order = ["click", "purchase", "purchase_given_click", "cart", "rec", "rank"]  # the funnel, then as listed
    outputs, (pair, user) = model(batch), model.inputs(batch)
    bottom, read = chained(model.bottom, pair), {}
    for i, name in enumerate(order):
        own = chained(model.own[name], bottom)
        above = [read[s] for s in order[:i]]
        read[name] = chained(model.relations[name], torch.cat([own, *above], dim=1)) if above else own
        torch.testing.assert_close(outputs[name], chained(model.towers[name], read[name])[:, 0])
    alone = chained(model.own["interest"], chained(model.bottom, user))
    torch.testing.assert_close(outputs["interest"], chained(model.towers["interest"], alone))
    news = small("sim-news").schema
    assert list(made("dbmtl", news).before) == [t.name for t in news.tasks if t.scope == "pair"]


# PEPNet


def gate_by_hand(gate: Any, z: Tensor) -> Tensor:
    return 2 / (1 + (-chained(gate.layers, z)).exp())


def test_pepnet_gates_embeddings_and_layers(batch: Batch) -> None:
    model = made("pepnet", width=16, depth=2, prior=4).eval()
    outputs = model(batch)
    inputs, item = model.inputs, batch.items.cat[batch.item]
    user, candidate = inputs.features.sides(batch)
    schema = small("sim-shop").schema

    def looked_up(codes: Any, side: Any, kind: str, at: Tensor) -> list[Tensor]:
        columns = [i for i, f in enumerate(schema.side(side)) if f.kind == kind]
        assert len(columns) == len(codes.tables) > 0
        return [table.weight[at[:, i].long()] for i, table in zip(columns, codes.tables, strict=True)]

    who = looked_up(inputs.user, "user", "id", batch.user_cat)
    where = looked_up(inputs.context, "user", "categorical", batch.user_cat)
    what = looked_up(inputs.item, "item", "id", item)
    none = [torch.zeros(len(user), w.shape[1]) for w in what]
    for scope in ("pair", "user"):
        rows = batch.group if scope == "pair" else torch.arange(len(user))
        e = torch.cat([user[rows], candidate if scope == "pair" else torch.zeros(len(user), candidate.shape[1])], dim=1)
        e = e * gate_by_hand(model.epnet, torch.cat([*(w[rows] for w in where), e], dim=1))
        prior = torch.cat([e, *(w[rows] for w in who), *(what if scope == "pair" else none)], dim=1)
        for task in (t for t in model.tasks if t.scope == scope):
            g, h = gate_by_hand(model.ppnet[task.name], prior), e
            assert (g > 0).all() and (g < 2).all()
            for i, layer in enumerate(model.layers[task.name]):
                h = chained(layer, h) * g[:, 16 * i : 16 * (i + 1)]
            by_hand = chained(model.towers[task.name], h)
            torch.testing.assert_close(outputs[task.name], by_hand if task.kind == "multiclass" else by_hand[:, 0])


def test_pepnet_gates_stop_the_gradient(batch: Batch) -> None:
    """What reaches x is the gradient of a model whose gates are constants; the priors still learn."""
    model = made("pepnet").eval()
    seen: list[Tensor] = []
    for gate in (model.epnet, *model.ppnet.values()):
        gate.register_forward_hook(lambda _m, read, out: seen.append(read[0]) or None)
    x = model.inputs(batch)[0].detach().requires_grad_()
    model.shared = []
    states = model.represent(x, [t for t in model.tasks if t.scope == "pair"])
    assert len(seen) == 1 + len(states)
    user, context, user_id, candidate, _ = model.sizes
    prior = [slice(user, user + context + user_id), slice(user + context + user_id + candidate, None)]
    for i, read in enumerate(seen):
        (back,) = torch.autograd.grad(read.sum(), x, retain_graph=True)
        wanted = torch.zeros_like(x)
        for part in (
            [slice(user, user + context)] if i == 0 else [slice(prior[0].start + context, prior[0].stop), prior[1]]
        ):
            wanted[:, part] = 1
        assert torch.equal(back, wanted)


def test_pepnet_without_priors(batch: Batch) -> None:
    """Without ids and user-side context, the gates read the embeddings alone."""
    schema = small("sim-shop").schema
    fields = tuple(replace(f, side="pair") if f.kind == "categorical" else f for f in schema.fields if f.kind != "id")
    model = made("pepnet", replace(schema, fields=fields))
    user, context, user_id, candidate, item_id = model.sizes
    assert (context, user_id, item_id) == (0, 0, 0)
    x = torch.randn(6, user + candidate)
    states = model.represent(x, [t for t in model.tasks if t.scope == "pair"])
    assert len(model.shared) == 1 and all(s.isfinite().all() for s in states.values())


# MetaHeac


def test_metaheac_mixes_experts_and_critics(batch: Batch) -> None:
    model = made("metaheac", experts=3, critics=2, width=16, tower=8).eval()
    outputs, (pair, user) = model(batch), model.inputs(batch)
    for i, task in enumerate(model.tasks):
        x = user if task.scope == "user" else pair
        read = torch.cat([x, model.codes.weight[i].repeat(len(x), 1)], dim=1)
        e, c = (torch.softmax(read @ g.weight.T + g.bias, dim=1) for g in (model.expert_gate, model.critic_gate))
        mixed = sum(e[:, k : k + 1] * chained(model.experts[k], x) for k in range(3))
        judged = sum(c[:, j : j + 1] * chained(model.critics[j], mixed) for j in range(2))
        by_hand = chained(model.towers[task.name], judged)
        torch.testing.assert_close(outputs[task.name], by_hand if task.kind == "multiclass" else by_hand[:, 0])


def test_halves_keep_every_row_and_group(batch: Batch) -> None:
    tasks = small("sim-shop").schema.tasks
    parts = halves(batch, tasks)
    assert parts is not None
    first, second = parts
    assert abs(len(first.user_cat) - len(second.user_cat)) <= 1
    shifted = torch.cat([first.group, second.group + len(first.user_cat)])
    assert torch.equal(shifted, batch.group) and second.group[0] == 0
    for name in ("user_cat", "user_num", "history", "item", "pair_cat", "pair_num"):
        assert torch.equal(torch.cat([getattr(first, name), getattr(second, name)]), getattr(batch, name)), name
    for task in tasks:
        joined = torch.cat([first.labels[task.name], second.labels[task.name]])
        torch.testing.assert_close(joined, batch.labels[task.name], equal_nan=True)


def single(batch: Batch) -> Batch:
    first, _ = halves(batch, small("sim-shop").schema.tasks) or pytest.fail("one group")
    return first if len(first.user_cat) == 1 else single(first)


def two_passes(model: Any, batch: Batch, rate: float, combine: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Gradients by hand: descend on one half in place, differentiate the other, go back; both ways, averaged."""
    model = copy.deepcopy(model)
    parts = halves(batch, model.tasks)
    assert parts is not None
    parameters = [p for p in model.parameters() if p.requires_grad]
    total = [torch.zeros_like(p) for p in parameters]
    for support, query in (parts, parts[::-1]):
        kept = [p.detach().clone() for p in parameters]
        inner = torch.autograd.grad(model.losses(model(support), support).sum(), parameters)
        with torch.no_grad():
            for p, g in zip(parameters, inner, strict=True):
                p -= rate * g
        outer = torch.autograd.grad(combine(model.losses(model(query), query)), parameters, allow_unused=True)
        with torch.no_grad():
            for p, old in zip(parameters, kept, strict=True):
                p.copy_(old)
        total = [t if g is None else t + g / 2 for t, g in zip(total, outer, strict=True)]
    return total


@pytest.mark.parametrize("name", ["metaheac", "frozen"])
@pytest.mark.parametrize("alone", [False, True], ids=["uniform", "static"])
def test_metaheac_steps_as_by_hand(name: str, alone: bool, batch: Batch) -> None:
    """Also as the trunk of another method, and by the balancer of the outer one."""
    prefix = "trunk." if name == "frozen" else ""
    given: dict[str, Any] = {"id_dropout": 0.0, f"{prefix}dropout": 0.0, f"{prefix}local_lr": 0.05}
    tasks = small("sim-shop").schema.tasks
    if name == "frozen":
        given |= {"trunk": "metaheac"}
    if alone:
        given |= {"balancer": "static", "balancer.weights": {t.name: float(t.name == "click") for t in tasks}}
    model = make(name, small("sim-shop").schema, **given)
    weight = torch.tensor([float(not alone or t.name == "click") for t in tasks])
    before = copy.deepcopy(model)
    wanted = two_passes(model, batch, 0.05, lambda losses: losses @ weight)
    plain = torch.autograd.grad(
        before.losses(before(batch), batch) @ weight, list(before.parameters()), allow_unused=True
    )
    losses = model.step(batch, torch.optim.SGD(model.parameters(), lr=0.1))
    assert losses.shape == (len(tasks),) and not losses.requires_grad
    far = 0.0
    for (path, new), old, gradient, other in zip(
        model.named_parameters(), before.parameters(), wanted, plain, strict=True
    ):
        torch.testing.assert_close(new, old - 0.1 * gradient, msg=path, atol=1e-6, rtol=1e-4)
        far += float((gradient - other).abs().sum()) if other is not None else 0.0
    assert far > 1e-2, "no different from the step of any other method"


def test_metaheac_takes_a_batch_of_one_group(batch: Batch) -> None:
    model, tiny = made("metaheac"), single(batch)
    before = copy.deepcopy(model)
    losses = model.step(tiny, torch.optim.SGD(model.parameters(), lr=0.1))
    torch.testing.assert_close(losses, before.losses(before(tiny), tiny).detach())


def test_a_trunk_updates_with_the_losses_of_the_method_on_it(batch: Batch) -> None:
    from bench.nn import OnTrunk

    class Twice(OnTrunk):
        def losses(self, outputs: Any, batch: Batch) -> Tensor:
            return 2 * super().losses(outputs, batch)

    schema = small("sim-shop").schema
    model = make("metaheac", schema, **PLAIN, local_lr=1e-5)
    outer = Twice(schema, None, lambda *_: copy.deepcopy(model))  # type: ignore[arg-type]
    optimizer = [torch.optim.SGD(m.parameters(), lr=0.0) for m in (model, outer)]
    torch.testing.assert_close(
        outer.step(batch, optimizer[1]), 2 * model.step(batch, optimizer[0]), rtol=1e-4, atol=1e-5
    )


# Single-task models


def dense(model: Any) -> int:
    return sum(p.numel() for n, p in model.named_parameters() if "inputs." not in n)


@pytest.mark.parametrize("depth", [1, 2])
def test_matched_single_task_models_are_as_large_as_one_shared_bottom(depth: int) -> None:
    budget = dense(made("shared_bottom", depth=depth))
    matched = made("single_task", depth=depth, match=True)
    assert 0.9 * budget < dense(matched) <= budget < 0.5 * dense(made("single_task", depth=depth))
    widths = {len(m.bottom[0].bias) for m in matched.models.values()}
    assert len(widths) == 1 and widths.pop() < 128


def test_single_task_models_have_settings_of_their_own() -> None:
    model = made("single_task", match=True, per_task={"click": {"width": 32, "depth": 2}, "rank": {"dropout": 0}})
    click, cart, rank = (model.models[n] for n in ("click", "cart", "rank"))
    assert len(click.bottom[0].bias) == 32 and len(click.bottom) == 2 * len(cart.bottom)
    assert len(cart.bottom[0].bias) == len(rank.bottom[0].bias) != 32


@pytest.mark.parametrize(
    "wrong", [{"nope": {}}, {"click": {"lr": 0.1}}, {"click": {"width": 1.5}}, {"click": {"depth": -1}}]
)
def test_wrong_per_task_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(BenchError, match="per_task"):
        made("single_task", per_task=wrong)


def test_the_ctr_task_alone_is_no_funnel() -> None:
    assert find_funnel(replace(only(), tasks=(Task("a", "binary", role="ctr"),))) is None
