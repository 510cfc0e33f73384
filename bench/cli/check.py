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
    as_json: bool,
) -> None:
    """Check the method, balancer or data set NAME against the contract, in plain words.

    Without NAME: list stored records whose numbers came from other code than is here, under unchanged versions.
    """
    if name is None:
        _audit(results)
        return
    methods, balancers, datasets = registry.methods(), registry.entries("balancers"), registry.entries("datasets")
    if name not in {*methods, *balancers, *datasets}:
        raise unknown("method, balancer or data set", name, [*methods, *balancers, *datasets])
    from bench.data.describe import verify
    from bench.training import contract

    if name in methods:
        report(contract.method(name), as_json)
    elif name in balancers:
        report(contract.balancer(name), as_json)
    else:
        report(verify(*loaded(name, knobs, folder)), as_json)


def _audit(results: Path) -> None:
    from bench.execution.audit import stale_records
    from bench.storage.records import Store

    store: Store = Store(results)
    stale, unaudited = stale_records(store)
    click.echo("\n".join([*stale, f"{len(stale)} changed, {unaudited} not audited: their digest is of another scheme"]))
    if stale:
        sys.exit(1)
