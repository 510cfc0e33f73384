"""bench list"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from bench import registry
from bench.cli._main import main
from bench.cli._options import json_option

if TYPE_CHECKING:
    from bench.papers.table import Paper

LISTED = ("methods", "baselines", "balancers", "datasets", "suites", "papers")


@main.command("list")
@click.argument("kind", type=click.Choice(LISTED), required=False)
@json_option
def list_(kind: str | None, as_json: bool) -> None:
    """What is there: methods, baselines, balancers, datasets, suites, papers (all of them without an argument).

    `bench list datasets` also tells size, tasks and licence, and whether a data set is prepared, can be fetched, or
    needs files and which; `bench list papers` the data sets and figures of each table.
    """
    found = {k: _listing(k, details=kind is not None) for k in ([kind] if kind else LISTED)}
    if as_json:
        click.echo(json.dumps(found[kind] if kind else found, indent=1))
        return
    for k, rows in found.items():
        if kind is None:
            click.secho(k, bold=True)
        width = max((len(r["name"]) for r in rows), default=0)
        for row in rows:
            click.echo(f"  {row['name']:<{width}}  {row['about']}")
            for line in DETAILS[kind](row) if kind in DETAILS else ():
                click.echo(f"  {'':<{width}}  {line}")
        if not rows:
            click.echo("  none yet")


def _details(row: dict[str, Any]) -> list[str]:
    lines = [f"{row['domain']}; {row['size']}; {', '.join(row['tasks'])}", f"licence: {row['licence']}", row["state"]]
    if row["files"]:
        lines[-1] += f": {', '.join(row['files'])} (see `bench data prepare {row['name']}`)"
    return lines


def _figures(row: dict[str, Any]) -> list[str]:
    data = ", ".join(row["datasets"]) or "no data set of ours"
    return [f"{data}; {row['cells']} figures in {row['rows']} rows, {row['here']} of them with a method here"]


DETAILS = {"datasets": _details, "papers": _figures}


def _listing(kind: str, details: bool) -> list[dict[str, Any]]:
    if kind == "datasets" and details:
        from bench.data import catalogue

        return catalogue.datasets()
    if kind == "suites":
        from bench.suites import sweep

        return [{"name": name, "about": sweep.load(name).about} for name in sweep.paths()]
    if kind == "papers":
        from bench.papers import table

        return [_table(table.load(name)) for name in table.paths()]
    return [{"name": e.name, "about": e.summary} for e in registry.entries(kind).values()]


def _table(paper: Paper) -> dict[str, Any]:
    return {
        "name": paper.name,
        "about": paper.title,
        "datasets": list(dict.fromkeys(part.dataset for part in paper.parts.values())),
        "cells": paper.cells,
        "rows": len(paper.rows),
        "here": sum(bool(row.method) for row in paper.rows),
    }
