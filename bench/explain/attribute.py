"""Integrated gradients (Sundararajan et al., ICML 2017) for each task and named input, and tests of what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from bench.api import Batch, Inputs, Method, Side, Task
from bench.data.tensors import Split
from bench.errors import extra
from bench.nn.features import FeatureInputs

with extra("explain"):
    from captum.attr import IntegratedGradients

STEPS = 32  # of the path integral
DRAWS = 5  # random orders of deletion for each row
CHANGED = 0.5  # attributions have changed with the weights if their rank correlation is below

Floats = np.ndarray
Output = Callable[[Tensor, Tensor], Tensor]


class Masked:
    """A method's outputs on rows of a split as a function of how far each of F named inputs is known, from 0 to 1.

    At 0, a categorical field has the vector of code 0 (unseen or missing), a number its training mean, the history is
    empty, and what an input layer adds to the features (``text``: the vectors of candidate and history) is 0; at 1 all
    is as in the data; in between, on the straight line from one to the other. Only input layers built on
    ``FeatureInputs`` can be masked: without one, ``names`` is empty.
    """

    def __init__(self, method: Method, split: Split) -> None:
        self.method, self.split = method, split
        self.mask = torch.empty(0)
        schema = split.schema
        self.layers = [m for m in method.modules() if isinstance(m, FeatureInputs)]
        self.outer = {
            m: type(m).__name__.removesuffix("Inputs").lower() or "inputs"
            for m in method.modules()
            if isinstance(m, Inputs) and isinstance(getattr(m, "features", None), Inputs)
        }
        sides: tuple[Side, ...] = ("user", "item", "pair")
        self.of_side = {s: [f.name for f in (*schema.side(s), *schema.side(s, "numerical"))] for s in sides}
        history = ["history"] if schema.history else []
        user = self.of_side["user"] + history
        names = [*user, *self.of_side["item"], *self.of_side["pair"], *dict.fromkeys(self.outer.values())]
        self.names = names if self.layers else []
        of_user = {*user, *(n for m, n in self.outer.items() if m.user_width > cast(Inputs, m.features).user_width)}
        self.seen = {
            t.name: np.array([t.scope == "pair" or name in of_user for name in self.names]) for t in method.tasks
        }

    def output(self, task: Task) -> Output:
        """(mask [N, F], rows [N]) -> the task's output [N]: a logit, value or score. Of classes, the logit of the one
        that is likeliest when all is known."""

        @torch.no_grad()
        def likeliest(rows: Tensor) -> Tensor:
            return self(torch.ones(len(rows), len(self.names)), rows)[task.name].argmax(dim=1, keepdim=True)

        def call(mask: Tensor, rows: Tensor) -> Tensor:
            found = self(mask, rows)[task.name]
            return found if found.ndim == 1 else found.gather(1, likeliest(rows)).squeeze(1)

        return call

    def __call__(self, mask: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """Raw outputs of all tasks, one for each row: every row is a group of its own."""
        self.mask = mask.float()
        s, groups = self.split, torch.as_tensor(self.split.group[rows.cpu().numpy()])
        batch = Batch(
            user_cat=s.user_cat[groups],
            user_num=s.user_num[groups],
            history=s.history[groups],
            item=s.item[rows],
            pair_cat=s.pair_cat[rows],
            pair_num=s.pair_num[rows],
            group=torch.arange(len(rows), device=s.item.device),
            items=s.items,
        )
        return cast(dict[str, Tensor], self.method(batch))

    def embed(self, layer: FeatureInputs, *parts: tuple[Side, Tensor, Tensor]) -> list[Tensor]:
        """Takes the place of ``FeatureInputs.embed``."""
        return [self.partly(layer, *part) for part in parts]

    def partly(self, layer: FeatureInputs, side: Side, codes: Tensor, numbers: Tensor) -> Tensor:
        """What the mask leaves of one part."""
        absent = torch.zeros_like(codes), torch.zeros_like(numbers)
        known, missing = FeatureInputs.embed(layer, (side, codes, numbers), (side, *absent))
        if codes.ndim == 3:
            return known * self.mask[:, [self.names.index("history")], None]
        widths = [layer.table.embedding_dim] * codes.shape[-1] + [1] * numbers.shape[-1]
        columns = np.repeat([self.names.index(name) for name in self.of_side[side]], widths).astype(np.int64)
        share = self.mask.index_select(1, torch.as_tensor(columns, device=self.mask.device))
        return torch.lerp(missing, known, share)

    def sides(self, layer: Inputs, batch: Batch) -> tuple[Tensor, Tensor]:
        """Takes the place of ``sides`` of an input layer that puts vectors behind those of the features."""
        share = self.mask[:, [self.names.index(self.outer[layer])]]
        features = cast(Inputs, layer.features)
        found = zip(type(layer).sides(layer, batch), (features.user_width, features.candidate_width), strict=True)
        user, candidate = (torch.cat([x[:, :own], x[:, own:] * share], dim=1) for x, own in found)
        return user, candidate


@contextmanager
def masked(method: Method, split: Split) -> Iterator[Masked]:
    """The method, in evaluation mode, as such a function as long as the context lasts."""
    found = Masked(method.eval(), split)
    for layer in found.layers:
        layer.__dict__["embed"] = partial(found.embed, layer)
    for outer in found.outer:
        outer.__dict__["sides"] = partial(found.sides, outer)
    try:
        yield found
    finally:
        for layer in found.layers:
            del layer.__dict__["embed"]
        for outer in found.outer:
            del outer.__dict__["sides"]


def integrated_gradients(output: Output, rows: Tensor, inputs: int) -> tuple[Floats, float]:
    """Attributions [N, inputs] along the line from mask 0 to mask 1, and their gap.

    Completeness: a row's attributions add up to output(1) - output(0). The gap is the mean distance from that, relative
    to the mean size of the difference; it comes from the path's finite steps.
    """
    full = torch.ones(len(rows), inputs, device=rows.device)
    explainer = IntegratedGradients(output)
    found, gap = explainer.attribute(
        full, torch.zeros_like(full), additional_forward_args=rows, n_steps=STEPS, return_convergence_delta=True
    )
    with torch.no_grad():
        size = (output(full, rows) - output(torch.zeros_like(full), rows)).abs().mean()
    relative = float(gap.abs().mean() / size) if size > 0 else 0.0
    return found.detach().double().cpu().numpy(), relative


def rank_correlation(a: Floats, b: Floats) -> float | None:
    """Mean over the rows of Spearman's correlation of a and b [N, F]; rows where one is constant say nothing."""
    x, y = (r - r.mean(axis=1, keepdims=True) for r in (rankdata(a, axis=1), rankdata(b, axis=1)))
    scale = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    use = scale > 0
    return float(((x * y).sum(axis=1)[use] / scale[use]).mean()) if use.any() else None


@torch.no_grad()
def deletion(
    output: Output, rows: Tensor, attributions: Floats, seen: Floats, rng: np.random.Generator
) -> dict[str, Any] | None:
    """Does masking the inputs with the largest attributions move the output more than masking random ones?

    seen: [F], the inputs that may matter. They are masked one after the other: by attribution, in the direction of
    output(1) - output(0) (``moved``), and in ``DRAWS`` random orders (``random``). Both curves tell how far the output
    has gone back, as means over the rows, relative to the mean of |output(1) - output(0)|. ``difference`` is that of
    the curves' mean heights, ``error`` its standard error over the rows; passed if it is more than two of them. None
    where fewer than two inputs may matter or none does. Source: Samek et al., IEEE TNNLS 2017.
    """
    inputs = np.flatnonzero(seen)
    full = torch.ones(len(rows), len(seen), device=rows.device)
    whole = output(full, rows).double().cpu().numpy()
    change = whole - output(torch.zeros_like(full), rows).double().cpu().numpy()
    size = np.abs(change).mean()
    if len(inputs) < 2 or not size > 0:
        return None
    direction = np.where(change < 0, -1.0, 1.0)

    def curve(order: Floats) -> Floats:
        mask, points = full.clone(), []
        for k in range(len(inputs) - 1):
            index = torch.as_tensor(inputs[order[:, k]], device=rows.device)
            mask.scatter_(1, index[:, None], 0.0)
            points.append(direction * (whole - output(mask, rows).double().cpu().numpy()) / size)
        return np.stack(points, axis=1)

    key = direction[:, None] * attributions[:, inputs]
    moved = curve(np.argsort(-key, axis=1, kind="stable"))
    random = np.mean([curve(np.argsort(rng.random(key.shape), axis=1)) for _ in range(DRAWS)], axis=0)
    gain = (moved - random).mean(axis=1)
    difference, error = float(gain.mean()), float(gain.std() / np.sqrt(len(gain)))
    return {
        "moved": moved.mean(axis=0).tolist(),
        "random": random.mean(axis=0).tolist(),
        "difference": difference,
        "error": error,
        "passed": difference > 2 * error,
    }


@contextmanager
def shuffled(method: Method, generator: torch.Generator) -> Iterator[None]:
    """The method with the values of each parameter in random order, as long as the context lasts.

    What training has put into the weights is gone; their sizes are not. Text vectors that a tuned language model keeps
    for evaluation stay as they are. Source: Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018.
    """
    kept = [(p, p.detach().clone()) for p in method.parameters()]
    with torch.no_grad():
        for p, old in kept:
            order = torch.randperm(p.numel(), generator=generator).to(p.device)
            p.copy_(old.flatten()[order].view_as(p))
    try:
        yield
    finally:
        with torch.no_grad():
            for p, old in kept:
                p.copy_(old)
