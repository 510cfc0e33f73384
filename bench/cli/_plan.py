"""The plan of runs that several commands speak of: the options that choose it, and its specs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from bench import registry
from bench.cli._options import domains_option, knob_option, knobs_of, plugin_option, settings_of
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.spec import Spec
    from bench.suites.sweep import Suite

Command = Callable[..., None]
OPTIONS: tuple[Callable[[Command], Command], ...] = (
    click.option("-d", "--dataset", "datasets", multiple=True, help="Data set; may be repeated."),
    click.option("-m", "--method", "methods", multiple=True, help="Method or baseline; may be repeated."),
    click.option(
        "-s", "--set", "given", multiple=True, metavar="KEY=VALUE", help="A setting of the method, such as lr=0.003."
    ),
    click.option("--suite", metavar="NAME|FILE", help="Instead, a named suite or a .yaml file (docs/sweeps.md)."),
    click.option("--seeds", type=click.IntRange(1), help="Number of seeds (default 1, or the suite's)."),
    click.option("--epochs", type=click.IntRange(1), help="Most epochs (default 20, or the suite's)."),
    click.option(
        "--patience", type=click.IntRange(1),
        help="Epochs without improvement before stopping (default 3, or the suite's).",
    ),
    domains_option,
    knob_option,
    plugin_option,
)  # fmt: skip

ONE: tuple[Callable[[Command], Command], ...] = (
    click.option("-d", "--dataset", required=True, help="Data set."),
    click.option("-m", "--method", required=True, help="Method or baseline."),
    click.option("--epochs", type=click.IntRange(1), help="Most epochs (default 20)."),
    click.option("--patience", type=click.IntRange(1), help="Epochs without improvement before stopping (default 3)."),
    domains_option,
    knob_option,
    plugin_option,
)


def plan_options(command: Command) -> Command:
    """Adds the options that choose a plan; the command hands them on to ``specs_of``."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def specs_of(
    *,
    datasets: tuple[str, ...],
    methods: tuple[str, ...],
    given: tuple[str, ...],
    suite: str | None,
    seeds: int | None,
    epochs: int | None,
    patience: int | None,
    domains: str | None,
    knobs: tuple[str, ...],
) -> list[Spec]:
    """The specs of the chosen runs, each once, always in the same order. Raises BenchError for what cannot be run."""
    from bench.storage.yaml_reader import at
    from bench.suites.sweep import Entry, Setup, Suite, load

    if suite and (datasets or methods):
        raise BenchError("give either --suite or -d and -m")
    if not suite and not (datasets and methods):
        raise BenchError("say what to run: -d DATASET -m METHOD, or --suite NAME or FILE (see `bench list`)")
    named = [Entry(name) for name in methods]
    plan = load(suite) if suite else Suite("", 1, {name: Setup(named) for name in datasets})
    for name, setup in plan.datasets.items():  # names are checked before the slow imports
        with at(setup.place):
            registry.find("dataset", name)
        for entry in setup.entries:
            with at(entry.place):
                registry.find("method", entry.method)
    limits = {k: v for k, v in (("epochs", epochs), ("patience", patience)) if v is not None}
    return _specs(plan, settings_of(given), knobs_of(knobs, domains), limits, seeds)


def _specs(
    plan: Suite, given: dict[str, Any], knobs: dict[str, Any], limits: dict[str, int], seeds: int | None
) -> list[Spec]:
    from bench.storage.yaml_reader import at
    from bench.suites.specify import specify

    for key in given:
        if any(key in entry.settings for setup in plan.datasets.values() for entry in setup.entries):
            raise BenchError(f"-s {key}: the entries of this suite differ in '{key}'; run one of them with -d and -m")
    specs = []
    for dataset, setup in plan.datasets.items():
        for entry in setup.entries:
            with at(entry.place and f"{entry.place}, on {dataset}"):
                chosen = specify(
                    dataset,
                    entry.method,
                    given={**setup.settings, **entry.settings, **given},
                    knobs={**setup.knobs, **knobs},
                    budget={**setup.budget, **limits},
                )
            specs += [replace(chosen, seed=seed) for seed in range(seeds or plan.seeds)]
    return list({spec.key: spec for spec in specs}.values())  # two shards must not both run one that is named twice


def run_options(command: Command) -> Command:
    """Adds the options that choose one run, but for its seed and settings; the command hands them on to ``spec_of``."""
    for option in reversed(ONE):
        command = option(command)
    return command


def spec_of(*, dataset: str, method: str, seed: int, **chosen: Any) -> Spec:
    """The spec of one run; ``chosen``: the others of what ``specs_of`` takes. Raises BenchError as that does."""
    (spec,) = specs_of(datasets=(dataset,), methods=(method,), suite=None, seeds=None, **chosen)
    return replace(spec, seed=seed)


def shard_of(text: str | None) -> slice:
    """The part of a list that ``--shard I/N`` means: every N-th from the I-th. Raises BenchError for anything else."""
    if text is None:
        return slice(None)
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    first, step = map(int, found.groups()) if found else (0, 0)
    if not 1 <= first <= step:
        raise BenchError(f"--shard {text}: give I/N with 1 <= I <= N, such as 2/8 for the second of eight jobs")
    return slice(first - 1, None, step)
