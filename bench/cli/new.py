"""bench new"""

from __future__ import annotations

from pathlib import Path

import click

from bench import registry
from bench.cli._main import main

# How a file of each kind is run.
RUN = {
    "method": "-d sim-news -m {name}",
    "balancer": "-d sim-news -m shared_bottom -s balancer={name}",
    "dataset": "-d {name} -m shared_bottom --from FOLDER",
}


@main.command()
@click.argument("kind", type=click.Choice([*RUN]))
@click.argument("name")
@click.option(
    "--to", "folder", type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write to (default: that of its kind in a checkout, the current one elsewhere).",
)  # fmt: skip
def new(kind: str, name: str, folder: Path | None) -> None:
    """Write the skeleton of a new method, balancer or data set: one file that already runs."""
    from bench.cli._skeleton import create

    if folder is None and not Path.cwd().is_relative_to(registry.ROOT):
        folder = Path()
    path = create(kind, name, folder)
    known = registry.name_of(f"{kind}s", path)
    plugin = f" --plugin {path}" if folder is not None else ""
    source = " --from FOLDER" if kind == "dataset" else ""
    click.echo(f"{path}\nnext: change it, then `bench check {known}{source}{plugin}`")
    click.echo(f"and `bench run {RUN[kind].format(name=known)}{plugin}`")
