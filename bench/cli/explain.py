"""bench explain"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from bench.cli._main import main
from bench.cli._options import from_option, json_option
from bench.cli._plan import run_options, spec_of


@main.command()
@run_options
@click.option(
    "-s", "--set", "given", multiple=True, metavar="KEY=VALUE", help="A setting of the method, such as experts=8."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The run's seed.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@from_option
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder to write to (default results/explain/RUN)."
)
@json_option
def explain(device: str, folder: Path | None, out: Path | None, as_json: bool, **chosen: Any) -> None:
    """Explain how the tasks of one run work on one another: explain.md, explain.html, explain.json.

    The run is trained again as `bench run` with the same options would, with measurements beside. Only training and
    validation data are used. See docs/explaining.md.
    """
    spec = spec_of(**chosen)
    from bench.data.load import load
    from bench.execution.progress import progress
    from bench.execution.ready import prepare_all
    from bench.explain.measure import explain as explained
    from bench.explain.report import to_html, to_markdown
    from bench.machine.device import device_of
    from bench.storage.atomic import write_atomically

    with progress(1) as shown:
        (path,) = prepare_all([spec], folder, shown)
        shown.begin(job := f"{spec.dataset}/{spec.method}/{spec.seed}")
        found = explained(spec, load(path), device=device_of(device), report=shown.note)
        shown.end(job, "ok")
    target = out or Path("results") / "explain" / f"{spec.dataset}-{spec.method}-{spec.key}"
    text = json.dumps(found, indent=1, allow_nan=False)
    for name, content in (("json", text + "\n"), ("md", to_markdown(found)), ("html", to_html(found))):
        write_atomically(target / f"explain.{name}", content.encode())
    click.echo(text if as_json else target / "explain.html")
