"""bench explain"""

from __future__ import annotations

import json
from pathlib import Path

import click

from bench import registry
from bench.cli._main import main
from bench.cli._options import (
    domains_option,
    from_option,
    json_option,
    knob_option,
    knobs_of,
    plugin_option,
    settings_of,
)


@main.command()
@click.option("-d", "--dataset", required=True, help="Data set.")
@click.option("-m", "--method", required=True, help="Method or baseline.")
@click.option(
    "-s", "--set", "given", multiple=True, metavar="KEY=VALUE", help="A setting of the method, such as experts=8."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The run's seed.")
@click.option("--epochs", type=click.IntRange(1), help="Most epochs (default 20).")
@click.option("--patience", type=click.IntRange(1), help="Epochs without improvement before stopping (default 3).")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@domains_option
@knob_option
@from_option
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder to write to (default results/explain/RUN)."
)
@plugin_option
@json_option
def explain(
    dataset: str,
    method: str,
    given: tuple[str, ...],
    seed: int,
    epochs: int | None,
    patience: int | None,
    device: str,
    domains: str | None,
    knobs: tuple[str, ...],
    folder: Path | None,
    out: Path | None,
    plugins: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Explain how the tasks of one run work on one another: explain.md, explain.html, explain.json.

    The run is trained again as `bench run` with the same options would, with measurements beside. Only training and
    validation data are used. See docs/explaining.md.
    """
    for plugin in plugins:
        registry.add_plugin(plugin)
    registry.find("dataset", dataset)  # names are checked before the slow imports
    registry.find("method", method)
    from bench.execute import prepare_all
    from bench.explain import explain as explained
    from bench.explain.report import to_html, to_markdown
    from bench.machine import device_of
    from bench.progress import progress
    from bench.run import specify
    from bench.store import write_atomically

    budget = {k: v for k, v in (("epochs", epochs), ("patience", patience)) if v is not None}
    chosen, settings = knobs_of(knobs, domains), settings_of(given)
    spec = specify(dataset, method, given=settings, knobs=chosen, seed=seed, budget=budget)
    with progress(1) as shown:
        (path,) = prepare_all([spec], folder, shown)
        shown.begin(job := f"{dataset}/{method}/{seed}")
        found = explained(spec, device=device_of(device), folder=path, report=shown.note)
        shown.end(job, "ok")
    target = out or Path("results") / "explain" / f"{dataset}-{method}-{spec.key}"
    text = json.dumps(found, indent=1, allow_nan=False)
    for name, content in (("json", text + "\n"), ("md", to_markdown(found)), ("html", to_html(found))):
        write_atomically(target / f"explain.{name}", content.encode())
    click.echo(text if as_json else target / "explain.html")
