"""How many parameters the methods named here have, from their settings by formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from bench import registry
from bench.api import Schema
from bench.spec.settings import own_settings
from bench.training.contract import make, small

WIDTH, TOWER, EMBEDDING = 32, 16, 8
# Every count differs from every other, so that a mix-up of two of them cannot hide.
MORE: dict[str, list[dict[str, Any]]] = {
    "omoe": [{"experts": 3}],
    "mmoe": [{"experts": 3}],
    "cgc": [{"shared_experts": 3, "task_experts": 2}],
    "ple": [{"levels": 1}, {"levels": 3, "shared_experts": 3, "task_experts": 2}],
    "cross_stitch": [{"depth": 2}],
    "adatt": [{"levels": 1, "task_experts": 3}, {"levels": 3, "task_experts": 2}],
    "stem": [{"shared_experts": 3, "task_experts": 2}],
    "home": [{"experts": 2, "rank": 3}, {"depth": 2}],
    "escm2": [{"estimator": "dr"}],
    "dbmtl": [{"hidden": 48}],
    "pepnet": [{"prior": 4, "gate": 24, "depth": 3}],
    "metaheac": [{"experts": 3, "critics": 4, "task_width": 6}],
    "frozen": [{"text_width": 24}],
}


def layer(width_in: int, width: int) -> int:
    """Weights and biases."""
    return (width_in + 1) * width


def network(width_in: int, depth: int) -> int:
    """``depth`` layers of one width."""
    return layer(width_in, WIDTH) + (depth - 1) * layer(WIDTH, WIDTH)


def heads(schema: Schema, width: int = WIDTH) -> int:
    """A tower and an output a task."""
    return sum(layer(width, TOWER) + layer(TOWER, t.outputs) for t in schema.tasks)


def extraction(read: int, tasks: int, s: dict[str, Any], *, last: bool) -> int:
    """A level of CGC or PLE."""
    shared, own = s["shared_experts"], s["task_experts"]
    gates = tasks * layer(read, shared + own) + (0 if last else layer(read, shared + tasks * own))
    return (shared + tasks * own) * network(read, s["depth"]) + gates


def ple(read: int, coded: int, schema: Schema, s: dict[str, Any]) -> int:
    tasks, levels = len(schema.tasks), s.get("levels", 1)
    widths = [read, *[WIDTH] * (levels - 1)]
    return sum(extraction(w, tasks, s, last=i == levels - 1) for i, w in enumerate(widths)) + heads(schema)


def adatt(read: int, coded: int, schema: Schema, s: dict[str, Any]) -> int:
    tasks, own = len(schema.tasks), s["task_experts"]
    residual = tasks * own if own > 1 else 0

    def level(width: int) -> int:
        return tasks * own * network(width, s["depth"]) + tasks * layer(width, tasks * own) + residual

    return level(read) + (s["levels"] - 1) * level(WIDTH) + heads(schema)


def stem(read: int, coded: int, schema: Schema, s: dict[str, Any]) -> int:
    tasks = len(schema.tasks)
    experts = s["shared_experts"] + tasks * s["task_experts"]
    return tasks * coded + experts * network(read, s["depth"]) + tasks * layer(read, experts) + heads(schema)


def home(read: int, coded: int, schema: Schema, s: dict[str, Any]) -> int:
    tasks, e, rank, depth = len(schema.tasks), s["experts"], s["rank"], s["depth"]
    categories = len({(t.scope, t.kind) for t in schema.tasks})

    def experts(width: int) -> int:
        return e * (2 * rank * width + width * WIDTH + (depth - 1) * WIDTH * WIDTH + depth * 2 * WIDTH)

    def unit(width: int, seen: int) -> int:
        return layer(width, seen * e) + layer(width, e)

    first = (categories + 1) * experts(read) + unit(read, categories + 1) + categories * unit(read, 2)
    return first + (1 + categories + tasks) * experts(WIDTH) + tasks * unit(2 * WIDTH, 3) + heads(schema)


def esmm(read: int, coded: int, schema: Schema, s: dict[str, Any]) -> int:
    """A network for each task but click-and-conversion, which is a product; for ESCM2-DR, one to impute losses."""
    outputs = [t.outputs for t in schema.tasks if t.name != "purchase"] + [1] * (s.get("estimator") == "dr")
    return sum(network(read, s["depth"]) + layer(WIDTH, TOWER) + layer(TOWER, n) for n in outputs)


def aitm(read: int, coded: int, schema: Schema, s: dict[str, Any]) -> int:
    return len(schema.tasks) * network(read, s["depth"]) + 4 * layer(WIDTH, WIDTH) + heads(schema)


def dbmtl(read: int, coded: int, schema: Schema, s: dict[str, Any]) -> int:
    hidden, pairs = s["hidden"], sum(t.scope == "pair" for t in schema.tasks)
    own = len(schema.tasks) * layer(WIDTH, hidden)
    relations = sum(layer((1 + before) * hidden, hidden) for before in range(1, pairs))
    return network(read, s["depth"]) + own + relations + heads(schema, hidden)


def pepnet(read: int, coded: int, schema: Schema, s: dict[str, Any]) -> int:
    """``read`` without the priors, which have embeddings of their own."""
    fields = [*schema.side("user"), *(f for f in schema.side("item") if f.kind == "id")]
    context = sum(f.side == "user" and f.kind == "categorical" for f in fields) * s["prior"]
    ids = sum(f.kind == "id" for f in fields) * s["prior"]
    tables = sum(schema.cardinality[f.name] for f in fields) * s["prior"]
    epnet = layer(context + read, s["gate"]) + layer(s["gate"], read)
    ppnet = layer(read + ids, s["gate"]) + layer(s["gate"], s["depth"] * WIDTH)
    return tables + epnet + len(schema.tasks) * (ppnet + network(read, s["depth"])) + heads(schema)


def metaheac(read: int, coded: int, schema: Schema, s: dict[str, Any]) -> int:
    tasks, e, c = len(schema.tasks), s["experts"], s["critics"]
    gates = layer(read + s["task_width"], e) + layer(read + s["task_width"], c)
    outputs = sum(layer(TOWER, t.outputs) for t in schema.tasks)
    return tasks * s["task_width"] + e * network(read, s["depth"]) + c * layer(WIDTH, TOWER) + gates + outputs


def frozen(read: int, coded: int, schema: Schema, s: dict[str, Any]) -> int:
    """A shared bottom that also reads the candidate's text, of width 16, the history's, and their product."""
    text = s["text_width"]
    inputs = layer(16, text) + layer(text, 32) + 32
    return inputs + network(read + 3 * text, s["trunk.depth"]) + heads(schema)


# What a method has beside one input layer of ``coded`` parameters, whose output is ``read`` wide.
FORMULAS: Mapping[str, Callable[[int, int, Schema, dict[str, Any]], int]] = {
    "single_task": lambda read, coded, schema, s: (
        (len(schema.tasks) - 1) * coded + len(schema.tasks) * network(read, s["depth"]) + heads(schema)
    ),
    "shared_bottom": lambda read, coded, schema, s: network(read, s["depth"]) + heads(schema),
    "omoe": lambda read, coded, schema, s: (
        s["experts"] * network(read, s["depth"]) + layer(read, s["experts"]) + heads(schema)
    ),
    "mmoe": lambda read, coded, schema, s: (
        s["experts"] * network(read, s["depth"]) + len(schema.tasks) * layer(read, s["experts"]) + heads(schema)
    ),
    "cgc": ple,
    "ple": ple,
    "cross_stitch": lambda read, coded, schema, s: (
        len(schema.tasks) * network(read, s["depth"]) + s["depth"] * len(schema.tasks) ** 2 + heads(schema)
    ),
    "adatt": adatt,
    "stem": stem,
    "home": home,
    "esmm": esmm,
    "escm2": esmm,
    "aitm": aitm,
    "dbmtl": dbmtl,
    "pepnet": pepnet,
    "metaheac": metaheac,
    "frozen": frozen,
}


CASES = [(name, given) for name in FORMULAS for given in [{}, *MORE.get(name, [])]]


def coded(schema: Schema) -> tuple[int, int]:
    """Parameters and width of the input layer: embeddings, attention over the history, and what it gives."""
    item = len(schema.side("item")) * EMBEDDING + len(schema.side("item", "numerical"))
    count = sum(schema.cardinality.values()) * EMBEDDING + layer(item, 32) + 32
    own = sum(len(schema.side(side)) * EMBEDDING + len(schema.side(side, "numerical")) for side in ("user", "pair"))
    return count, own + 3 * item  # the candidate, the history, and their product


@pytest.mark.parametrize(("name", "given"), CASES, ids=[f"{n}-{list(g.values())}" for n, g in CASES])
def test_parameter_counts_follow_their_formulas(name: str, given: dict[str, Any]) -> None:
    funnel = name in ("esmm", "escm2", "aitm")
    schema = small("sim-shop" if funnel else "sim-news").schema
    own = own_settings(registry.load_method(name))
    sizes = {"width": WIDTH, "tower": TOWER}
    sizes = {("trunk." if name == "frozen" else "") + key: value for key, value in sizes.items()}
    model = make(name, schema, **{"embedding": EMBEDDING, **sizes, **given})
    settings = {"trunk.depth": 1, **own, **given}
    count, read = coded(schema)
    assert sum(p.numel() for p in model.parameters()) == count + FORMULAS[name](read, count, schema, settings)


@pytest.mark.parametrize("name", ["popularity", "logistic_regression", "gbdt", "mf", "tfidf"])
def test_yardsticks_have_no_parameters(name: str) -> None:
    assert not list(make(name, small("sim-news").schema).parameters())
