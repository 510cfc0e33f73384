"""bench board"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from bench.cli._main import main
from bench.cli._options import json_option, results_option, width


@main.command()
@results_option
@json_option
@click.option("--html", type=click.Path(path_type=Path, file_okay=False), help="Write a web page to this folder too.")
@click.option("--figures", type=click.Path(path_type=Path, file_okay=False), help="Write figures to this folder too.")
@click.option(
    "--format", "form", type=click.Choice(["svg", "png"]), default="svg", show_default=True, help="Of figures."
)
@click.option("--check", is_flag=True, help="Write nothing; fail if what is stored differs.")
def board(
    results: Path, as_json: bool, html: Path | None, figures: Path | None, form: Literal["svg", "png"], check: bool
) -> None:
    """Print the leaderboard of the stored records and write it to RESULTS/LEADERBOARD.md (with --json: only print)."""
    from bench import leaderboard, publish, render
    from bench.store import Store, write_atomically

    made = leaderboard.board(Store(results).results())
    files, missing = publish.files(made, results, html, figures, form)
    if not as_json or check:
        files[results / "LEADERBOARD.md"] = render.to_markdown(made).encode()
    if check:
        chosen = [(f"--{name}", path) for name, path in (("html", html), ("figures", figures)) if path]
        words = [str(word) for pair in [("--results", results), *chosen] for word in pair]
        publish.check(files, figures, f"bench board {' '.join(words)}")
        more = f", and so do {len(files) - 1} files of page and figures" if len(files) > 1 else ""
        click.echo(f"{results / 'LEADERBOARD.md'} agrees with the records{more}")
        return
    click.echo(render.to_json(made) if as_json else render.to_console(made, width()))
    for path, data in files.items():
        write_atomically(path, data)
    for reason in missing:
        click.echo(f"not drawn: {reason}", err=True)
