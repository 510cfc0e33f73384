"""bench new"""

from __future__ import annotations

from pathlib import Path

import click

from bench import registry
from bench.cli._main import main


@main.command()
@click.argument("kind", type=click.Choice(["method", "dataset"]))
@click.argument("name")
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Another folder, for a method run with --plugin.",
)
def new(kind: str, name: str, folder: Path | None) -> None:
    """Write the skeleton of a new method or data set: one file that already runs."""
    from bench.cli._skeleton import create

    path = create(kind, name, folder)
    known = registry.name_of(kind + "s", path)
    plugin = f" --plugin {path}" if folder and kind == "method" else ""
    click.echo(f"{path}\nnext: change it, then `bench check {known}{plugin}`")
