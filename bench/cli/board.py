"""bench board"""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli._main import main
from bench.cli._options import json_option, results_option, width
from bench.errors import BenchError


@main.command()
@results_option
@json_option
@click.option("--check", is_flag=True, help="Write nothing; fail if the stored leaderboard differs.")
def board(results: Path, as_json: bool, check: bool) -> None:
    """Print the leaderboard of the stored records and write it to RESULTS/LEADERBOARD.md (with --json: only print)."""
    from bench import leaderboard, render
    from bench.runs import stored
    from bench.store import write_atomically

    made = leaderboard.of_groups(stored(results))
    path, text = results / "LEADERBOARD.md", render.to_markdown(made).encode()
    if check:
        if not path.exists() or path.read_bytes() != text:
            raise BenchError(f"{path} is not what the records give; run `bench board --results {results}`")
        click.echo(f"{path} agrees with the records")
        return
    if as_json:
        click.echo(render.to_json(made))
        return
    click.echo(render.to_console(made, width()))
    write_atomically(path, text)
