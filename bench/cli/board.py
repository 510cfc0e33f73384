"""bench board"""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli._main import main
from bench.cli._options import results_option, width
from bench.errors import BenchError
from bench.filters import FAMILIES, Filter

FORMATS = ("console", "markdown", "latex", "csv", "json")


@main.command()
@results_option
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="console", show_default=True, help="How to print."
)
@click.option("--json", "form", flag_value="json", help="The same as --format json.")
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
@click.option("--check", is_flag=True, help="Write nothing; fail if the stored leaderboard differs.")
def board(results: Path, form: str, output: Path | None, budget: tuple[str, ...], check: bool, **only: object) -> None:
    """Print the leaderboard of the stored records, and write it to RESULTS/LEADERBOARD.md.

    It is written where nothing is filtered and neither --format nor --output is given. -d, -m and --task may be
    repeated (docs/leaderboard.md).
    """
    from bench import leaderboard, render
    from bench.render_csv import to_csv
    from bench.render_latex import to_latex
    from bench.runs import stored, uncollected
    from bench.store import write_atomically

    wanted = Filter(**only, budget=_budget(budget))  # type: ignore[arg-type]
    if check and (str(wanted) or output or form != "console"):
        raise BenchError("--check compares the whole leaderboard; give it no filter, --format or --output")
    with uncollected():
        made = leaderboard.of_groups(stored(results), wanted)
    path = results / "LEADERBOARD.md"
    if check:
        if not path.exists() or path.read_bytes() != render.to_markdown(made).encode():
            raise BenchError(f"{path} is not what the records give; run `bench board --results {results}`")
        click.echo(f"{path} agrees with the records")
        return
    renderers = {
        "console": lambda: render.to_console(made, None if output else width()),
        "markdown": lambda: render.to_markdown(made),
        "latex": lambda: to_latex(made),
        "csv": lambda: to_csv(made),
        "json": lambda: render.to_json(made),
    }
    text = renderers[form]()
    if output:
        write_atomically(output, text.encode())
        return
    click.echo(text, nl=False)
    if form == "console" and not str(wanted):
        write_atomically(path, render.to_markdown(made).encode())


def _budget(pairs: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for pair in pairs:
        key, _, number = pair.partition("=")
        if not key or not number.isdecimal():
            raise BenchError(f"--budget {pair}: give KEY=NUMBER, such as epochs=20")
        found[key] = int(number)
    return found
