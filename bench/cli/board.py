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
@click.option("--compare", "pair", nargs=2, metavar="A B", help="Instead, two rows head to head: 'mmoe, tuned' ple.")
@click.option(
    "--margin", type=float, help="With --compare: a difference in skill that does not matter (default 0.005)."
)
def board(results: Path, as_json: bool, check: bool, pair: tuple[str, str] | None, margin: float | None) -> None:
    """Print the leaderboard of the stored records and write it to RESULTS/LEADERBOARD.md (with --json: only print)."""
    if margin is not None and pair is None:
        raise BenchError("--margin goes with --compare A B")
    if pair is not None:
        _compare(results, as_json, pair, margin)
        return
    from bench import leaderboard, render
    from bench.store import Store, write_atomically

    made = leaderboard.board(Store(results).results())
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


def _compare(results: Path, as_json: bool, pair: tuple[str, str], margin: float | None) -> None:
    from bench import compare
    from bench.store import Store

    chosen = compare.MARGIN if margin is None else margin
    found = compare.compare(Store(results).results(), *pair, margin=chosen, results=results)
    click.echo(compare.to_json(found) if as_json else compare.to_console(found, width()), nl=False)
