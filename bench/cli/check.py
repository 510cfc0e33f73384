"""bench check"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bench import registry
from bench.cli._main import main
from bench.cli._options import from_option, json_option, knob_option, loaded, plugin_option, report, results_option
from bench.errors import unknown


@main.command()
@click.argument("name", required=False)
@from_option
@knob_option
@results_option
@plugin_option
@json_option
def check(
    name: str | None,
    folder: Path | None,
    knobs: tuple[str, ...],
    results: Path,
    plugins: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Check the method or data set NAME against the contract, in plain words.

    Without NAME: list stored records whose method has other code now under an unchanged version.
    """
    for plugin in plugins:
        registry.add_plugin(plugin)
    if name is None:
        _stale(results)
        return
    methods, datasets = registry.methods(), registry.entries("datasets")
    if name not in methods and name not in datasets:
        raise unknown("method or data set", name, [*methods, *datasets])
    from bench.data.describe import verify as checks
    from bench.training import contract

    report(contract.method(name) if name in methods else checks(*loaded(name, knobs, folder)), as_json)


def _stale(results: Path) -> None:
    from bench.execution.audit import stale_records
    from bench.storage.records import Store

    store: Store = Store(results)
    found = list(stale_records(store))
    click.echo("\n".join(found) or "every record's method has the code it was run with")
    if found:
        sys.exit(1)
