"""bench data"""

from __future__ import annotations

import json
from pathlib import Path

import click

from bench.cli._main import Commands, main
from bench.cli._options import from_option, json_option, knob_option, loaded, plugin_option, report, settings_of


@main.group(cls=Commands)
def data() -> None:
    """Prepare data sets, look at them, verify them."""


@data.command()
@click.argument("name")
@from_option
@knob_option
@plugin_option
def prepare(name: str, folder: Path | None, knobs: tuple[str, ...]) -> None:
    """Fetch, build and encode data set NAME. What is there already is not made again."""
    from bench.data.prepare import prepare as prepare_dataset
    from bench.execution.progress import progress

    with progress(1) as shown:
        path = prepare_dataset(name, settings_of(knobs), folder, shown.step)
    click.echo(path)


@data.command()
@click.argument("name")
@from_option
@knob_option
@plugin_option
@json_option
def info(name: str, folder: Path | None, knobs: tuple[str, ...], as_json: bool) -> None:
    """Sizes, label rates, cold-start shares, text coverage, licence and citation of data set NAME."""
    from bench.data import describe

    found = describe.info(name, *loaded(name, knobs, folder))
    click.echo(json.dumps(found, indent=1) if as_json else describe.as_text(found))


@data.command()
@click.argument("name")
@from_option
@knob_option
@plugin_option
@json_option
def verify(name: str, folder: Path | None, knobs: tuple[str, ...], as_json: bool) -> None:
    """Recompute the hashes of data set NAME and look for leaks."""
    from bench.data import describe

    report(describe.verify(*loaded(name, knobs, folder)), as_json)
