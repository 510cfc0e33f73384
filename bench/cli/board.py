"""bench board"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from bench.cli._main import main
from bench.cli._options import json_option, results_option, width
from bench.errors import BenchError


@main.command()
@results_option
@json_option
@click.option("--html", type=click.Path(path_type=Path, file_okay=False), help="Write a web page to this folder too.")
@click.option("--figures", type=click.Path(path_type=Path, file_okay=False), help="Write figures to this folder too.")
@click.option(
    "--format", "form", type=click.Choice(["svg", "png"]), default="svg", show_default=True, help="Of figures."
)
@click.option("--check", is_flag=True, help="Write nothing; fail if what is stored differs.")
@click.option("--compare", "pair", nargs=2, metavar="A B", help="Instead, two rows head to head: 'mmoe, tuned' ple.")
@click.option(
    "--margin", type=float, help="With --compare: a difference in skill that does not matter (default 0.005)."
)
def board(
    results: Path,
    as_json: bool,
    html: Path | None,
    figures: Path | None,
    form: Literal["svg", "png"],
    check: bool,
    pair: tuple[str, str] | None,
    margin: float | None,
) -> None:
    """Print the leaderboard of the stored records and write it to RESULTS/LEADERBOARD.md (with --json: only print)."""
    if margin is not None and pair is None:
        raise BenchError("--margin goes with --compare A B")
    if pair is not None:
        _compare(results, as_json, pair, margin)
        return
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


def _compare(results: Path, as_json: bool, pair: tuple[str, str], margin: float | None) -> None:
    from bench import compare
    from bench.store import Store

    chosen = compare.MARGIN if margin is None else margin
    found = compare.compare(Store(results).results(), *pair, margin=chosen, results=results)
    click.echo(compare.to_json(found) if as_json else compare.to_console(found, width()), nl=False)
