"""What several commands share: options, how what they give is read, and how results are printed."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from bench import registry
from bench.errors import BenchError

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
results_option = click.option(
    "--results", type=click.Path(path_type=Path, file_okay=False), default=Path("results"), show_default=True,
    help="Folder of the records and the leaderboard.",
)  # fmt: skip
tuned_option = click.option("--tuned", is_flag=True, help="With the settings that the latest `bench tune` found best.")
plugin_option = click.option(
    "--plugin", multiple=True, type=click.Path(path_type=Path), expose_value=False,
    callback=lambda context, option, paths: registry.add_plugin(*paths),
    help="A file of your own that defines a method, balancer or data set; may be repeated.",
)  # fmt: skip
knob_option = click.option(
    "--data", "knobs", multiple=True, metavar="KEY=VALUE", help="A knob of the data set, such as correlation=-0.5."
)
domains_option = click.option(
    "--domains", metavar="TRAIN:TEST", help="Train on some domains, test on others: desktop,mobile:tablet.",
)  # fmt: skip
from_option = click.option(
    "--from", "folder", type=click.Path(path_type=Path, exists=True),
    help="Folder, .zip or .tar.gz that holds the raw files; nothing is downloaded then.",
)  # fmt: skip


def knobs_of(pairs: tuple[str, ...], domains: str | None) -> dict[str, Any]:
    """The knobs of ``--data`` and ``--domains``. Raises BenchError for what is neither KEY=VALUE nor TRAIN:TEST."""
    knobs = settings_of(pairs)
    if domains is not None:
        train, colon, test = domains.partition(":")
        if not (train and colon and test):
            raise BenchError(
                f"--domains {domains}: give TRAIN:TEST, each a list with commas, such as desktop,mobile:tablet"
            )
        knobs["domains"] = {"train": train.split(","), "test": test.split(",")}
    return knobs


def settings_of(pairs: tuple[str, ...]) -> dict[str, Any]:
    """KEY=VALUE pairs as a mapping, the values parsed. Raises BenchError for what is no such pair."""
    from bench.spec.settings import parse

    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise BenchError(f"'{pair}' is no KEY=VALUE")
        found[key] = parse(value)
    return found


def loaded(name: str, knobs: tuple[str, ...], folder: Path | None) -> tuple[Any, Any]:
    """The data set of a name, and its prepared data."""
    from bench.data.load import load
    from bench.data.prepare import configured
    from bench.data.prepare import prepare as prepared

    dataset, _ = configured(name, settings_of(knobs))
    return dataset, load(prepared(name, settings_of(knobs), folder))


def report(checks: Iterable[tuple[str, str]], as_json: bool) -> None:
    """Prints each check as it ends; exit code 1 if any found something."""
    found = []
    for title, problem in checks:
        found.append({"check": title, "ok": not problem, "problem": problem})
        if not as_json:
            click.echo(f"{'FAILED' if problem else 'ok':>6}  {title}{f': {problem}' if problem else ''}")
    if as_json:
        click.echo(json.dumps(found, indent=1))
    if any(not f["ok"] for f in found):
        sys.exit(1)


def print_board(records: list[dict[str, Any]]) -> None:
    """The tables of some records, if any of them has a result."""
    from bench.leaderboard.board import board
    from bench.leaderboard.render.text import to_console

    if any(r["status"] == "ok" for r in records):
        click.echo(to_console(board(records), width()))


def width() -> int | None:
    """Columns of the terminal; None where standard output is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
