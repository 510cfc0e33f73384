"""bench tune"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from bench import registry
from bench.cli._main import main
from bench.cli._options import from_option, json_option, results_option, settings_of
from bench.cli._plan import run_options, spec_of
from bench.errors import BenchError


@main.command()
@run_options
@click.option("--trials", type=click.IntRange(1), help="Trials that the study has in the end.")
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True),
    help="Begin no further trial when those that have ended took this long together: an equal budget of compute.",
)  # fmt: skip
@click.option(
    "-s", "--set", "given", multiple=True, metavar="KEY=VALUE", help="A setting that stays fixed, such as lr=0.003."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the search.")
@click.option(
    "--sampler", type=click.Choice(["tpe", "gp", "cmaes", "random", "grid"]), default="tpe", show_default=True,
    help="How the next trial is chosen; grid: all combinations.",
)  # fmt: skip
@click.option(
    "--points", type=click.IntRange(2), default=3, show_default=True, help="Values of each range in the sampler grid."
)
@click.option(
    "--pruner", type=click.Choice(["none", "median", "hyperband"]), default="none", show_default=True,
    help="Which trials end early, by their validation curve.",
)  # fmt: skip
@click.option(
    "--stage", type=click.Choice(["all", "settings", "weights"]), default="all", show_default=True,
    help="Search only the settings, then only the loss weights with the best of these settings.",
)  # fmt: skip
@click.option("--pareto", is_flag=True, help="Each task's skill is an objective of its own; keep the front.")
@click.option(
    "--workers", type=click.IntRange(1), default=1, show_default=True,
    help="Processes that share the trials, one thread each. With one the same --seed gives the same trials.",
)  # fmt: skip
@click.option("--storage", metavar="URL", help="Database for the study (default a journal file in the results folder).")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@from_option
@results_option
@json_option
def tune(
    trials: int | None,
    seconds: float | None,
    seed: int,
    sampler: str,
    points: int,
    pruner: str,
    stage: str,
    pareto: bool,
    workers: int,
    storage: str | None,
    device: str,
    folder: Path | None,
    results: Path,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Search the settings and loss weights of a method on the validation part of a data set.

    Trial 0 is the defaults. The same command continues a study that was stopped; more --trials extend it. Where several
    machines reach the --storage, each may run the command. Then `bench run --tuned` makes the final runs. See
    docs/tuning.md.
    """
    if trials is None and seconds is None and sampler != "grid":
        raise BenchError("say how long to search: --trials N, --seconds S, or both")
    if pareto and (pruner != "none" or sampler == "cmaes"):
        raise BenchError("--pareto has several objectives: --pruner and --sampler cmaes need a single one")
    spec = spec_of(seed=seed, **chosen)

    from bench.execution.progress import progress
    from bench.machine.device import device_of
    from bench.tuning.study import Budget, Search, training_seed
    from bench.tuning.tune import tune as make_study

    spec = replace(spec, seed=training_seed(seed))
    fixed = settings_of(chosen["given"])
    search = Search(sampler, pruner, seed, stage, pareto, points if sampler == "grid" else 0)
    with progress(trials) as shown:
        outcome = make_study(
            spec, fixed, Budget(trials, seconds), results, shown, search=search, workers=workers,
            storage=storage, device=device_of(device), raw=folder,
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps(outcome, indent=1))
    if outcome["best"] is None:
        click.echo(f"bench: no trial has a result; the first: {outcome['trials'][0]['reason']}", err=True)
        sys.exit(1)
    if not as_json:
        _show(outcome, chosen, folder, results)


def _show(outcome: dict[str, Any], chosen: dict[str, Any], folder: Path | None, results: Path) -> None:
    """Prints the best trial beside the defaults, the front if there is one, and the command of the final runs."""
    from tabulate import tabulate

    from bench.tuning.outcome import table

    headers = ("validation", "defaults", f"trial {outcome['best']['trial']}")
    click.echo(tabulate(table(outcome), headers=headers, disable_numparse=True))
    if "front" in outcome:
        click.echo(f"\nfront: trials {', '.join(map(str, outcome['front']))}; hypervolume {outcome['hypervolume']:.4g}")
    options: dict[str, Sequence[object]] = {
        "-d": (chosen["dataset"],),
        "-m": (chosen["method"],),
        "-s": chosen["given"],
        "--data": chosen["knobs"],
        "--domains": (chosen["domains"],),
        "--epochs": (chosen["epochs"],),
        "--patience": (chosen["patience"],),
        "--from": (folder,),
        "--results": (results,) if results != Path("results") else (),
        "--plugin": registry.plugins(),
    }
    words = [str(w) for name, values in options.items() for value in values if value is not None for w in (name, value)]
    click.echo(f"\nbench run --tuned {shlex.join(words)} --seeds 5")
