"""Every balancer against torchjd or its published equation, on conflicting, aligned and orthogonal gradients."""

from __future__ import annotations

import inspect
import itertools
from functools import partial
from typing import Any

import pytest
import torch
import torchjd.aggregation as jd
import torchjd.scalarization as scalar
from optuna.distributions import FloatDistribution
from torch import Tensor, nn

from baselines.balancers._gradient import GradientBalancer
from bench import api, registry
from bench.errors import BenchError
from bench.suites.specify import specify
from bench.training import contract
from bench.training.contract import SMALL, small
from bench.training.optimizer import optimizer_for
from tests.support.runs import made

BALANCERS = sorted(registry.entries("balancers"))
ON_GRADIENTS = [n for n in BALANCERS if issubclass(registry.load_balancer(n), GradientBalancer)]
GRAM = ["aligned_mtl", "cagrad", "fairgrad", "gradvac", "imtl_g", "mgda", "nash_mtl", "pcgrad", "upgrad"]

CONFLICTING = torch.tensor([[1.0, 0.5, 0.0], [-2.0, 1.0, 0.3], [0.2, -0.8, 0.5]])
ALIGNED = torch.tensor([[1.0, 0.5, 0.0], [2.0, 0.7, 0.3], [0.3, 0.4, 0.1]])
ORTHOGONAL = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.5]])
TOYS = {
    f"{name}-{tasks}": matrix[:tasks]
    for name, matrix in (("conflicting", CONFLICTING), ("aligned", ALIGNED), ("orthogonal", ORTHOGONAL))
    for tasks in (2, 3)
}
on_toys = pytest.mark.parametrize("toy", TOYS)
LOSSES = torch.tensor([0.7, 1.9, 0.4])


def make(name: str, tasks: int = 3, **settings: Any) -> api.Balancer:
    """A balancer of tasks a, b, c (a is judged by AUC, b by an error, c by AUC)."""
    all_tasks = (api.Task("a", "binary"), api.Task("b", "regression"), api.Task("c", "binary"))[:tasks]
    cls = registry.load_balancer(name)
    more = (registry.load_balancer(settings.pop("of", cls.of)),) if cls.of else ()
    return cls(all_tasks, *more, **settings)


def update(
    balancer: api.Balancer, gradients: Tensor, losses: Tensor = LOSSES, mix: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The gradients of shared parameters x and of the tasks' own y, for L_t = losses_t + g_t . (mix x) + y_t."""
    tasks = len(gradients)
    shared, own = torch.zeros(gradients.shape[1], requires_grad=True), torch.zeros(tasks, requires_grad=True)
    read = shared * 1.0 if mix is None else mix @ shared
    each = [losses[t] + gradients[t] @ read + own.unbind()[t] for t in range(tasks)]
    balancer.backward(torch.stack(each), [read])
    return shared.grad, own.grad


def direction(balancer: api.Balancer, gradients: Tensor, losses: Tensor = LOSSES) -> Tensor:
    return update(balancer, gradients, losses)[0]


# --- every balancer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BALANCERS)
def test_keeps_the_contract(name: str) -> None:
    assert [f"{title}: {problem}" for title, problem in contract.balancer(name) if problem] == []
    cls = registry.load_balancer(name)
    assert inspect.getdoc(cls) != inspect.getdoc(cls.__mro__[1])


class Sum(api.Balancer):
    """The sum of all losses, with a fault of its own in each of the classes below."""

    space = {"power": FloatDistribution(0.0, 1.0)}

    def __init__(self, tasks: Any, *, power: float = 0.5) -> None:
        super().__init__(tasks)
        self.steps = 0


class Outside(Sum):
    """A default outside its range."""

    space = {"power": FloatDistribution(0.6, 1.0)}


class Unweighted(Sum):
    """No weights."""

    def backward(self, losses: Tensor, shared: Any) -> None:
        torch.autograd.backward(losses.sum())


class Dividing(Sum):
    """A division by a loss."""

    def combine(self, losses: Tensor) -> Tensor:
        return (losses / losses.detach()).sum()


class Ordered(Sum):
    """Weights by place."""

    def combine(self, losses: Tensor) -> Tensor:
        return losses @ torch.tensor([1.0, 2.0, 3.0])


class Forgetful(Sum):
    """A count that is no buffer."""

    def combine(self, losses: Tensor) -> Tensor:
        self.steps += 1
        return losses.sum() * self.steps


def test_each_check_of_a_balancer_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    space = partial(contract.declares_its_space, kind="balancer")
    checks = (space, *contract.ON_BALANCERS)
    faults = (Outside, Unweighted, Dividing, Ordered, Forgetful)
    for check, fault in zip(checks, faults, strict=True):
        monkeypatch.setattr(registry, "load_balancer", lambda name, cls=fault: cls)
        with pytest.raises(AssertionError, match=r"\w+ \w+"):
            check("faulty")
        for other in set(checks) - {check}:
            other("faulty")


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("cagrad", {"c": 1.5}, "c 1.5"),
        ("db_mtl", {"beta": 1.0}, "beta 1.0"),
        ("dtp", {"momentum": 0.0}, "momentum 0.0"),
        ("dwa", {"temperature": 0.0}, "temperature 0.0"),
        ("fairgrad", {"alpha": 0.0}, "alpha 0.0"),
        ("famo", {"lr": 0.0}, "lr 0.0"),
        ("frozen_average", {"of": "graddrop"}, "GradDrop"),
        ("frozen_average", {"of": "metabalance"}, "MetaBalance"),
        ("gradnorm", {"alpha": -1.0}, "alpha -1.0"),
        ("gradvac", {"beta": 2.0}, "beta 2.0"),
        ("metabalance", {"target": "d"}, "target 'd': tasks are a, b, c"),
        ("metabalance", {"relax": 2.0}, "relax 2.0"),
        ("pcgrad", {"at": "towers"}, "at 'towers'"),
        ("stch", {"mu": 0.0}, "mu"),
        ("stch", {"warmup": 0}, "warmup 0"),
    ],
)
def test_a_setting_that_cannot_be(name: str, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make(name, **settings)


def live_through(balancer: api.Balancer, epochs: int, seed: int = 0) -> list[Tensor]:
    """The updates of a made-up training of three steps an epoch: losses fall at different rates, gradients turn."""
    optimizer = (
        torch.optim.AdamW(balancer.parameters(), lr=0.05, weight_decay=0.0) if list(balancer.parameters()) else None
    )
    draw, updates = torch.Generator().manual_seed(seed), []
    torch.manual_seed(seed)
    for step in range(3 * epochs):
        losses = LOSSES * torch.tensor([0.9, 0.97, 0.8]) ** step
        gradients = CONFLICTING + 0.1 * torch.randn(3, 3, generator=draw)
        if optimizer is not None:
            optimizer.zero_grad()
        updates.append(direction(balancer, gradients, losses))
        if optimizer is not None:
            optimizer.step()
        if balancer.looks_again:
            balancer.observe(losses * torch.tensor([0.9, 0.97, 0.8]))
        if step % 3 == 2:
            balancer.on_epoch(step // 3 + 1, losses, {"a": 0.6 + 0.01 * step, "b": 1.1 - 0.01 * step, "c": 0.8})
    return updates


def test_no_two_balancers_give_the_same_update() -> None:
    """Static and frozen_average are given weights other than 1: they are weighted sums by definition."""
    given = {"static": {"weights": {"a": 2.0}}}
    balancers = {name: make(name, **given.get(name, {})) for name in BALANCERS}
    balancers["frozen_average"].on_pilot(torch.tensor([1.5, 1.0, 0.5]))
    last = {name: live_through(balancer, epochs=6)[-1] for name, balancer in balancers.items()}
    for a, b in itertools.combinations(BALANCERS, 2):
        assert not torch.allclose(last[a], last[b], rtol=1e-3), f"{a} and {b} move alike"


@pytest.mark.parametrize("name", BALANCERS)
@on_toys
def test_weights_tell_the_update(name: str, toy: str) -> None:
    """d = sum_t w_t g_t with the weights that are recorded, in the first step and after some."""
    gradients = TOYS[toy]
    balancer = make(name, len(gradients))
    for _ in range(1 if name == "db_mtl" else 3):  # db_mtl weighs running means
        torch.manual_seed(0)
        d = direction(balancer, gradients)
    if not balancer.weighs:
        assert balancer.weights is None
        return
    factor = 0.1 if name == "db_mtl" else 1.0  # its running mean is a tenth of the first gradient
    torch.testing.assert_close(d, factor * (balancer.weights @ gradients).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BALANCERS)
def test_a_task_without_labels(name: str) -> None:
    """A loss of 0 with a gradient of 0 neither stops nor disturbs the others."""
    balancer = make(name)
    live_through(balancer, epochs=5)
    gradients, losses = CONFLICTING.clone(), LOSSES.clone()
    gradients[1], losses[1] = 0.0, 0.0
    d = direction(balancer, gradients, losses)
    assert d.isfinite().all()
    assert d.norm() > 1e-3
    if name == "metabalance":
        gradients[[0, 1]] = gradients[[1, 0]]  # now the target
        assert direction(balancer, gradients, losses).isfinite().all()
    nothing = direction(balancer, torch.zeros(3, 3), torch.zeros(3))
    assert nothing.isfinite().all()
    if name != "db_mtl":  # its running means go on
        assert not nothing.any()


@pytest.mark.parametrize("name", BALANCERS)
def test_a_loss_below_zero(name: str) -> None:
    d = direction(make(name), CONFLICTING, torch.tensor([0.5, -0.3, 0.8]))
    assert d.isfinite().all()


@pytest.mark.parametrize("name", ON_GRADIENTS)
def test_nothing_is_shared(name: str) -> None:
    """Then every task's gradient is its own (times the factor of its loss)."""
    balancer = make(name)
    own = torch.zeros(3, requires_grad=True)
    balancer.backward(LOSSES + CONFLICTING @ own, [])
    torch.testing.assert_close(own.grad, balancer.factors @ CONFLICTING)
    assert all(p.grad is not None for p in balancer.parameters())


# --- where gradients are taken ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in ON_GRADIENTS if n != "db_mtl"])
@on_toys
def test_both_ways_agree_behind_the_identity(name: str, toy: str) -> None:
    updates = []
    for at in ("representation", "parameters"):
        torch.manual_seed(0)
        updates.append(update(make(name, len(TOYS[toy]), at=at), TOYS[toy]))
    torch.testing.assert_close(*updates)


@pytest.mark.parametrize("at", ["representation", "parameters"])
def test_where_the_gradients_are_taken(at: str) -> None:
    """Behind an encoder that turns gradients, MGDA sees those of the place that it is told."""
    mix = torch.tensor([[1.0, 3.0, 0.0], [0.0, 0.5, 0.0], [2.0, 0.0, 1.0]])
    d, _ = update(make("mgda", at=at), CONFLICTING, mix=mix)
    there = CONFLICTING @ mix
    seen = CONFLICTING if at == "representation" else there
    weights = jd.MGDAWeighting()((seen @ seen.T).double()).float()
    torch.testing.assert_close(d, 3 * weights @ there, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("at", ["representation", "parameters"])
@pytest.mark.parametrize("trunk", ["shared_bottom", "mmoe"])
def test_sum_of_gradients_through_a_real_model(trunk: str, at: str) -> None:
    """With all weights 1 the two passes give what one backward pass of the summed loss gives."""
    data = small("sim-news")
    batch = next(data.train.batches(256, torch.Generator().manual_seed(0)))
    plain = contract.make(trunk, data.schema).eval()
    plain.backward(plain.losses(plain(batch), batch))
    parted = contract.make(trunk, data.schema).eval()
    parted.balancer = GradientBalancer(data.schema.tasks, at=at)
    parted.backward(parted.losses(parted(batch), batch))
    for (path, a), b in zip(plain.named_parameters(), parted.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6, msg=path)


def test_losses_that_are_not_a_stack() -> None:
    """An objective may do more to the losses after stacking them."""
    factors = torch.tensor([1.0, 2.0, 3.0])
    shared = torch.zeros(3, requires_grad=True)
    read = shared * 1.0
    make("pcgrad").backward(torch.stack([LOSSES[t] + ORTHOGONAL[t] @ read for t in range(3)]) * factors, [read])
    torch.testing.assert_close(shared.grad, factors @ ORTHOGONAL)


# --- gradient balancers -----------------------------------------------------------------------------------------------

AGGREGATORS = {
    "pcgrad": lambda tasks: jd.PCGrad(),
    "mgda": lambda tasks: jd.MGDA(),
    "imtl_g": lambda tasks: jd.IMTLG(),
    "aligned_mtl": lambda tasks: jd.AlignedMTL(),
    "graddrop": lambda tasks: jd.GradDrop(),
    "gradvac": lambda tasks: jd.GradVac(),
}
OF_THE_MEAN = ("mgda", "imtl_g", "aligned_mtl", "cagrad", "upgrad")


@pytest.mark.parametrize("name", AGGREGATORS)
@on_toys
def test_against_torchjd(name: str, toy: str) -> None:
    """Three steps, gradients turning: a state must agree as well."""
    gradients = TOYS[toy]
    tasks = len(gradients)
    balancer, oracle = make(name, tasks), AGGREGATORS[name](tasks)
    for step in range(3):
        turned = gradients.roll(step, dims=1)
        torch.manual_seed(step)
        d = direction(balancer, turned)
        torch.manual_seed(step)
        wanted = oracle(turned.double() if name in GRAM else turned).float()
        torch.testing.assert_close(d, (tasks if name in OF_THE_MEAN else 1) * wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["cagrad", "upgrad"])
@on_toys
def test_against_the_solvers_of_torchjd(name: str, toy: str) -> None:
    """Where cvxpy and quadprog, which the project does not need, happen to be there."""
    pytest.importorskip("clarabel")
    pytest.importorskip("quadprog")
    gradients, tasks = TOYS[toy], len(TOYS[toy])
    oracle = jd.CAGrad(c=0.5, norm_eps=0.0) if name == "cagrad" else jd.UPGrad()
    wanted = tasks * oracle(gradients.double()).float()
    torch.testing.assert_close(direction(make(name, tasks), gradients), wanted, rtol=2e-3, atol=2e-3)


@on_toys
def test_pcgrad(toy: str) -> None:
    """Two tasks in closed form; the plain sum where nothing conflicts."""
    g = TOYS[toy]
    d = direction(make("pcgrad", len(g)), g)
    if not toy.startswith("conflicting"):
        torch.testing.assert_close(d, g.sum(0))
    elif len(g) == 2:
        inner = g[0] @ g[1]
        torch.testing.assert_close(d, g.sum(0) - inner / g[1].dot(g[1]) * g[1] - inner / g[0].dot(g[0]) * g[0])


def test_gradvac_turns_to_the_usual_angle() -> None:
    """After aligned steps, a conflicting pair is given the cosine that has become usual."""
    usual = torch.tensor([[1.0, 0.2], [1.0, -0.1]])
    balancer, now = make("gradvac", 2, beta=0.5), torch.tensor([[1.0, 0.5], [-1.0, 1.0]])
    for _ in range(30):
        direction(balancer, usual)
    q = torch.cosine_similarity(usual[0], usual[1], dim=0)
    turned = []
    for i, j in ((0, 1), (1, 0)):
        r = torch.cosine_similarity(now[i], now[j], dim=0)
        up = q * (1 - r**2).sqrt() - r * (1 - q**2).sqrt()
        turned.append(now[i] + now[j] * now[i].norm() * up / (now[j].norm() * (1 - q**2).sqrt()))
        torch.testing.assert_close(torch.cosine_similarity(turned[-1], now[j], dim=0), q)
    torch.testing.assert_close(direction(balancer, now), turned[0] + turned[1], rtol=1e-4, atol=1e-5)


@on_toys
def test_mgda_is_the_shortest(toy: str) -> None:
    g = TOYS[toy]
    d = direction(make("mgda", len(g)), g) / len(g)
    assert d.norm() <= g.norm(dim=1).min() + 1e-3
    assert (g @ d >= d @ d - 5e-2 * g.norm(dim=1).max()).all()  # Frank-Wolfe's gap: nearly common descent
    if len(g) == 2:
        gap = g[1] - g[0]
        gamma = ((g[1] @ gap) / (gap @ gap)).clamp(0, 1)
        torch.testing.assert_close(d, gamma * g[0] + (1 - gamma) * g[1], rtol=1e-3, atol=1e-4)


@on_toys
def test_imtl_g_projects_alike(toy: str) -> None:
    g = TOYS[toy]
    balancer = make("imtl_g", len(g))
    onto = (g / g.norm(dim=1, keepdim=True)) @ direction(balancer, g)
    torch.testing.assert_close(onto, onto[:1].expand(len(g)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(balancer.weights.sum(), torch.tensor(float(len(g))))


@on_toys
def test_aligned_mtl_makes_one_size(toy: str) -> None:
    """The aligned gradients are orthogonal and all as long as the smallest principal component."""
    g = TOYS[toy].double()
    u, s, v = torch.linalg.svd(g, full_matrices=False)
    torch.testing.assert_close(
        direction(make("aligned_mtl", len(g)), g.float()), (s.min() * (u @ v)).sum(0).float(), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(("name", "settings", "power"), [("nash_mtl", {}, 1.0), ("fairgrad", {"alpha": 2.0}, 0.5)])
@on_toys
def test_fair_shares(name: str, settings: dict[str, Any], power: float, toy: str) -> None:
    """G w = w^(-power), of gradients scaled to a mean squared norm of 1."""
    g = TOYS[toy]
    balancer = make(name, len(g), **settings)
    direction(balancer, g)
    scaled = g / g.square().sum(dim=1).mean().sqrt()
    assert (balancer.weights > 0).all()
    torch.testing.assert_close(scaled @ scaled.T @ balancer.weights, balancer.weights**-power, rtol=1e-3, atol=1e-4)


def test_nash_mtl_sums_orthogonal_gradients_of_one_length() -> None:
    torch.testing.assert_close(direction(make("nash_mtl"), 3 * torch.eye(3)), torch.full((3,), 3.0))


@on_toys
def test_cagrad_on_a_grid(toy: str) -> None:
    """The inner problem's value on the simplex, looked up on a fine grid; c = 0 is the sum."""
    g, c = TOYS[toy].double(), 0.5
    tasks = len(g)
    d = direction(make("cagrad", tasks), g.float()).double() / tasks
    mean = g.mean(0)
    radius = c * mean.norm()
    assert (d - mean).norm() <= radius * (1 + 1e-5)
    first, second = torch.meshgrid(
        torch.linspace(0, 1, 401).double(), torch.linspace(0, 1, 401).double(), indexing="ij"
    )
    grid = torch.stack([first, second, 1 - first - second], -1).reshape(-1, 3)
    grid = grid[grid[:, 2] >= -1e-12] if tasks == 3 else torch.stack([first[:, 0], 1 - first[:, 0]], -1)
    mixed = grid @ g
    best = (mixed @ mean + radius * mixed.norm(dim=1)).min()  # by duality, the largest decrease of the worst task
    assert abs((g @ d).min() - best) < 1e-4 + 1e-2 * abs(best)
    torch.testing.assert_close(direction(make("cagrad", tasks, c=0.0), g.float()), g.sum(0).float())


@on_toys
def test_upgrad_conflicts_with_no_task(toy: str) -> None:
    """Each projection p of g_t is optimal: it lies in the cone and p - g_t is a non-negative mix of tight gradients."""
    g = TOYS[toy]
    d = direction(make("upgrad", len(g)), g)
    assert (g @ d >= -1e-5).all()
    total = torch.zeros(g.shape[1])
    for t in range(len(g)):
        sets = [s for n in range(len(g) + 1) for s in itertools.combinations(range(len(g)), n)]
        projections = []
        for tight in sets:  # every set of tight constraints: project on their orthogonal complement
            a = g[list(tight)]
            p = g[t] - a.T @ torch.linalg.pinv(a @ a.T) @ a @ g[t] if tight else g[t]
            if (g @ p >= -1e-5).all():
                projections.append(p)
        total += min(projections, key=lambda p: float((p - g[t]).norm()))
    torch.testing.assert_close(d, total, rtol=1e-4, atol=1e-5)
    if not toy.startswith("conflicting"):
        torch.testing.assert_close(d, g.sum(0), rtol=1e-4, atol=1e-5)


def test_graddrop_takes_one_sign() -> None:
    torch.manual_seed(0)
    positive, negative = CONFLICTING.clamp(min=0).sum(0), CONFLICTING.clamp(max=0).sum(0)
    drawn = torch.cat([direction(make("graddrop"), CONFLICTING.repeat(1, 100)).view(100, 3) for _ in range(20)])
    is_positive = drawn.isclose(positive)
    assert (is_positive | drawn.isclose(negative)).all()
    purity = (1 + CONFLICTING.sum(0) / CONFLICTING.abs().sum(0)) / 2
    torch.testing.assert_close(is_positive.float().mean(0), purity, atol=0.04, rtol=0)


def test_gradnorm() -> None:
    """The weights' gradient from the paper's loss, with norms by hand; weights with sum T move towards equal norms."""
    balancer = make("gradnorm", alpha=1.5)
    direction(balancer, CONFLICTING, LOSSES)  # sets the first losses
    balancer.s.grad = None
    later = LOSSES * torch.tensor([0.5, 0.9, 0.7])
    d = direction(balancer, CONFLICTING, later)
    torch.testing.assert_close(d, CONFLICTING.sum(0))
    s = torch.zeros(3, requires_grad=True)
    weighted = 3 * s.softmax(0) * CONFLICTING.norm(dim=1)
    rate = torch.tensor([0.5, 0.9, 0.7]) / 0.7
    wanted = (weighted - (weighted.mean() * rate**1.5).detach()).abs().sum()
    torch.testing.assert_close(balancer.s.grad, torch.autograd.grad(wanted, s)[0])
    equal = make("gradnorm", alpha=0.0)
    optimizer = torch.optim.Adam(equal.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        _, own = update(equal, CONFLICTING, LOSSES)
        optimizer.step()
    torch.testing.assert_close(equal.weights.sum(), torch.tensor(3.0))
    torch.testing.assert_close(own, equal.weights)  # towers are trained on the weighted losses
    norms = equal.weights * CONFLICTING.norm(dim=1)
    torch.testing.assert_close(norms, norms.mean().expand(3), rtol=0.05, atol=0)


def test_db_mtl() -> None:
    """Norms all equal the largest; running means and log losses term by term."""
    balancer, running = make("db_mtl", beta=0.9, sigma=0.5), torch.zeros(3, 3)
    for step in range(1, 5):
        g, losses = CONFLICTING.roll(step, 1), LOSSES / step
        d, own = update(balancer, g, losses)
        running += (1 - 0.9 / step**0.5) * (g / losses[:, None] - running)
        norms = running.norm(dim=1)
        torch.testing.assert_close(d, (running / norms[:, None]).sum(0) * norms.max())
        torch.testing.assert_close(own, 1 / losses)


def test_metabalance() -> None:
    balancer, running = make("metabalance", target="c", relax=0.7, beta=0.9), torch.zeros(3)
    for step in range(4):
        g = CONFLICTING.roll(step, 1) * (step + 1)
        running = 0.9 * running + 0.1 * g.norm(dim=1)
        wanted = sum((0.7 * running[2] / running[t] + 0.3) * g[t] for t in range(3))
        torch.testing.assert_close(direction(balancer, g), wanted)


def test_metabalance_balances_each_tensor_alone() -> None:
    parameters = [torch.zeros(3, requires_grad=True) for _ in range(2)]
    read = [p * 1.0 for p in parameters]
    g = [CONFLICTING, 100 * CONFLICTING.flip(0)]
    losses = torch.stack([sum(m[t] @ r for m, r in zip(g, read, strict=True)) for t in range(3)])
    make("metabalance", relax=1.0).backward(losses, read)
    for m, p in zip(g, parameters, strict=True):
        torch.testing.assert_close(p.grad, (m / m.norm(dim=1, keepdim=True)).sum(0) * m[0].norm())


# --- loss balancers ---------------------------------------------------------------------------------------------------


def weights_of(balancer: api.Balancer, losses: Tensor = LOSSES) -> Tensor:
    direction(balancer, CONFLICTING, losses)
    assert balancer.weights is not None
    return balancer.weights


def test_uncertainty_and_imtl_l_find_their_optimum() -> None:
    """UW: exp(s_t) = L_t, so that all weighted losses are 1/2. IMTL-L: exp(s_t) L_t = 1."""
    for name, size in (("uncertainty", 0.5), ("imtl_l", 1.0)):
        balancer = make(name)
        torch.testing.assert_close(weights_of(balancer), torch.full((3,), size))  # at the start
        optimizer = torch.optim.Adam(balancer.parameters(), lr=0.1)
        for _ in range(150):
            optimizer.zero_grad()
            weights = weights_of(balancer)
            optimizer.step()
        torch.testing.assert_close(weights * LOSSES, torch.full((3,), size), rtol=1e-3, atol=0)


def test_gls() -> None:
    mean = LOSSES.prod() ** (1 / 3)
    balancer = make("gls")
    torch.testing.assert_close(balancer.combine(LOSSES), 3 * mean)
    torch.testing.assert_close(weights_of(balancer), mean / LOSSES)


def test_rlw() -> None:
    torch.manual_seed(3)
    balancer = make("rlw")
    weights = torch.stack([weights_of(balancer) for _ in range(1000)])
    torch.manual_seed(3)
    torch.testing.assert_close(weights[0], 3 * torch.randn(3).softmax(0))
    torch.testing.assert_close(weights.sum(1), torch.full((1000,), 3.0))
    torch.testing.assert_close(weights.mean(0), torch.ones(3), atol=0.1, rtol=0)


def test_dwa() -> None:
    balancer, oracle = make("dwa"), scalar.DWA()
    for epoch in range(1, 5):
        losses = LOSSES * torch.tensor([0.9, 0.5, 0.7]) ** (epoch * epoch)
        torch.testing.assert_close(balancer.combine(losses), oracle(losses))
        oracle.step()
        balancer.on_epoch(epoch, losses, {})
    assert weights_of(balancer).argmax() == 0  # the slowest task
    torch.testing.assert_close(weights_of(balancer).sum(), torch.tensor(3.0))


def test_dtp() -> None:
    """Weight for the tasks that are far from perfect; b is judged by an error, of which exp(-error) counts."""
    balancer = make("dtp", gamma=2.0, momentum=0.5)
    assert torch.equal(weights_of(balancer), torch.ones(3))
    balancer.on_epoch(1, LOSSES, {"a": 0.6, "b": 1.0})  # c cannot be measured
    balancer.on_epoch(2, LOSSES, {"a": 0.8, "b": 0.5})
    k = torch.tensor([0.7, (torch.tensor([-1.0, -0.5]).exp()).mean()])
    focal = -((1 - k) ** 2) * k.log()
    torch.testing.assert_close(weights_of(balancer), torch.cat([focal / focal.mean(), torch.ones(1)]))


def test_famo() -> None:
    balancer, oracle = make("famo"), scalar.FAMO(3)
    for step in range(20):
        losses = (LOSSES * torch.tensor([0.9, 0.97, 0.8]) ** step).requires_grad_()
        wanted = torch.autograd.grad(oracle(losses), losses)[0]
        torch.testing.assert_close(weights_of(balancer, losses.detach()), 3 * wanted, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(balancer.weights.sum(), torch.tensor(3.0))
        after = losses.detach() * torch.tensor([0.9, 0.97, 0.8])
        oracle.update(after)
        balancer.observe(after)
    assert balancer.w.argmin() == 2  # the fastest task
    assert balancer.w.argmax() == 1  # the slowest one


def test_stch() -> None:
    balancer = make("stch", mu=0.5, warmup=2)
    torch.testing.assert_close(weights_of(balancer), 1 / LOSSES)
    balancer.on_epoch(1, LOSSES * 5, {})
    torch.testing.assert_close(weights_of(balancer), 1 / LOSSES)
    nadir = torch.tensor([1.0, 2.0, 3.0])
    balancer.on_epoch(2, nadir, {})
    balancer.on_epoch(3, LOSSES, {})
    wanted = 3 * (torch.log(LOSSES / nadir) / 0.5).softmax(0) / LOSSES
    torch.testing.assert_close(weights_of(balancer), wanted)
    by_hand = 3 * 0.5 * torch.logsumexp(torch.log(LOSSES / nadir) / 0.5, 0)
    torch.testing.assert_close(balancer.combine(LOSSES), by_hand)


# --- in the engine ----------------------------------------------------------------------------------------------------


def test_trained_weights_are_not_decayed() -> None:
    for name in ("uncertainty", "imtl_l", "gradnorm"):
        method = contract.make("shared_bottom", small("sim-news").schema, balancer=name)
        groups = optimizer_for(method, 0.1, 0.5).param_groups
        mine = {id(p) for p in method.balancer.parameters()}
        decays = [g["weight_decay"] for g in groups if mine & {id(p) for p in g["params"]}]
        assert mine, name
        assert decays == [0.0], name


def train(balancer: str, **given: Any) -> dict[str, Any]:
    spec = specify(
        "sim-news",
        "shared_bottom",
        given={"balancer": balancer, **given},
        knobs=SMALL,
        seed=1,
        budget={"epochs": 3, "patience": 3},
    )
    record, _ = made(spec)
    assert record["status"] == "ok", record["error"]
    return record


def test_curve_records_weights() -> None:
    tasks = [t.name for t in small("sim-news").schema.tasks]
    for entry in train("uniform")["curve"]:
        assert entry["weights"] == dict.fromkeys(tasks, 1.0)
    assert "weights" not in train("graddrop")["curve"][0]
    moved = train("uncertainty")["curve"]
    assert moved[0]["weights"] != moved[2]["weights"]


def test_frozen_average_is_static_with_the_mean_weights() -> None:
    """It retrains from the same initial weights on the same batches: as `static` does with the mean of the curve."""
    adaptive = train("dwa", **{"balancer.temperature": 0.1})
    tasks = list(adaptive["curve"][0]["weights"])
    mean = {t: sum(e["weights"][t] for e in adaptive["curve"]) / len(adaptive["curve"]) for t in tasks}
    assert max(mean.values()) > 1.01
    frozen = train("frozen_average", **{"balancer.of": "dwa", "balancer.of.temperature": 0.1})
    for entry in frozen["curve"]:
        assert entry["weights"] == pytest.approx(mean, rel=1e-5)
    static = train("static", **{"balancer.weights": mean})
    assert [e["loss"] for e in frozen["curve"]] == [pytest.approx(e["loss"], rel=1e-4) for e in static["curve"]]
    assert frozen["spec"]["parts"] == {"balancer": 1, "balancer.of": 1}
    assert frozen["cost"]["params"] == static["cost"]["params"]


def test_frozen_average_of_what_has_no_average() -> None:
    schema = small("sim-news").schema
    for of, told in (("graddrop", "GradDrop"), ("frozen_average", "name one that does not"), ("dwaa", "did you mean")):
        with pytest.raises(BenchError, match=told):
            contract.make("shared_bottom", schema, balancer="frozen_average", **{"balancer.of": of})


def test_a_balancer_keeps_no_graph() -> None:
    """What is kept between steps must not hold the step's computation alive."""
    for name in BALANCERS:
        balancer = make(name)
        live_through(balancer, epochs=2)
        kept = [v for m in balancer.modules() for v in vars(m).values() if isinstance(v, Tensor)]
        assert not any(t.requires_grad for t in kept if not isinstance(t, nn.Parameter)), name
