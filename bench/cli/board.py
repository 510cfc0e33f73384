"""bench board"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from bench.cli._main import main
from bench.cli._options import results_option, width
from bench.errors import BenchError
from bench.leaderboard.filters import FAMILIES, Filter

if TYPE_CHECKING:
    from bench.leaderboard.tables import Board

FORMATS = ("console", "markdown", "latex", "csv", "json")


@main.command()
@results_option
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="console", show_default=True, help="How to print."
)
@click.option("--json", "form", flag_value="json", help="As --format json.")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file instead of printing."
)
@click.option("-d", "--dataset", "datasets", multiple=True, help="Only this data set, or a pattern such as 'sim-*'.")
@click.option("-m", "--method", "methods", multiple=True, help="Only this method, or a pattern; beside single_task.")
@click.option("--family", type=click.Choice(FAMILIES), help="Only methods of this kind.")
@click.option("--text/--no-text", default=None, help="Only rows with, or without, a language model.")
@click.option("--budget", multiple=True, metavar="KEY=NUMBER", help="Only runs with this budget, such as epochs=20.")
@click.option("--protocol", help="The protocol, or a pattern; by default clean-*.")
@click.option("--task", "tasks", multiple=True, help="Only this task, or a pattern; mean skill is then of these.")
@click.option("--html", type=click.Path(path_type=Path, file_okay=False), help="Write a web page to this folder too.")
@click.option("--figures", type=click.Path(path_type=Path, file_okay=False), help="Write figures to this folder too.")
@click.option("--figure-format", "drawn", type=click.Choice(["svg", "png"]), default="svg", show_default=True)
@click.option(
    "--readme", type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Fill the tables of this Markdown file too, between <!-- table: TITLE --> and <!-- /table -->.",
)  # fmt: skip
@click.option("--check", is_flag=True, help="Write nothing; fail if the stored leaderboard differs.")
@click.option("--compare", "pair", nargs=2, metavar="A B", help="Instead, two rows head to head: 'mmoe, tuned' ple.")
@click.option(
    "--margin", type=float, help="With --compare: a difference in skill that does not matter (default 0.005)."
)
def board(
    results: Path,
    form: str,
    output: Path | None,
    budget: tuple[str, ...],
    html: Path | None,
    figures: Path | None,
    drawn: Literal["svg", "png"],
    readme: Path | None,
    check: bool,
    pair: tuple[str, str] | None,
    margin: float | None,
    **only: object,
) -> None:
    """Print the leaderboard of the stored records, and write it to RESULTS/LEADERBOARD.md.

    It is written where nothing is filtered and neither --format nor --output is given. -d, -m and --task may be
    repeated (docs/leaderboard.md).
    """
    from bench.leaderboard import publish
    from bench.leaderboard.board import stored
    from bench.storage.atomic import write_atomically

    wanted = Filter(**only, budget=_budget(budget))  # type: ignore[arg-type]
    if margin is not None and pair is None:
        raise BenchError("--margin goes with --compare A B")
    if pair is not None:
        if output or form not in ("console", "json") or html or figures or readme or check:
            raise BenchError(
                "--compare is only printed, as text or with --json; leave --output, --html and the like out"
            )
        _compare(results, form == "json", pair, margin, wanted)
        return
    whole = not (str(wanted) or output or form != "console")
    if (check or readme) and not whole:
        raise BenchError("--check and --readme take the whole leaderboard; give no filter, --format or --output")
    made = stored(results, wanted)
    places = publish.Places(results, html, figures, readme)
    files, missing = publish.files(made, places, drawn)
    if check:
        publish.check(files, places)
        more = f"; files checked beside it: {len(files) - 1}" if len(files) > 1 else ""
        click.echo(f"{places.leaderboard} agrees with the records{more}")
        return
    text = _rendered(made, form, None if output else width())
    if not whole:
        del files[places.leaderboard]
    if output:
        files[output] = text.encode()
    else:
        click.echo(text, nl=False)
    for place, data in files.items():
        write_atomically(place, data)
    for reason in missing:
        click.echo(f"not drawn: {reason}", err=True)


def _rendered(made: Board, form: str, columns: int | None) -> str:
    from bench.leaderboard.render.csv import to_csv
    from bench.leaderboard.render.latex import to_latex
    from bench.leaderboard.render.text import to_console, to_json, to_markdown

    if form == "console":
        return to_console(made, columns)
    return {"markdown": to_markdown, "latex": to_latex, "csv": to_csv, "json": to_json}[form](made)


def _budget(pairs: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for pair in pairs:
        key, _, number = pair.partition("=")
        if not key or not number.isdecimal():
            raise BenchError(f"--budget {pair}: give KEY=NUMBER, such as epochs=20")
        found[key] = int(number)
    return found


def _compare(results: Path, as_json: bool, pair: tuple[str, str], margin: float | None, part: Filter) -> None:
    from bench.leaderboard import compare
    from bench.leaderboard.render.comparison import to_console, to_json
    from bench.storage.records import Store

    chosen = compare.MARGIN if margin is None else margin
    found = compare.compare(Store(results).results(), *pair, margin=chosen, results=results, part=part)
    click.echo(to_json(found) if as_json else to_console(found, width()), nl=False)
