"""bench merge"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click

from bench.cli._main import main
from bench.cli._options import json_option, results_option


@main.command()
@click.argument("folders", nargs=-1, metavar="DIR...", type=click.Path(path_type=Path))
@click.option("--pack", is_flag=True, help="Publish --results: move its records into one file a data set.")
@results_option
@json_option
def merge(folders: tuple[Path, ...], pack: bool, results: Path, as_json: bool) -> None:
    """Copy the records (with predictions) and studies of results folders DIR... into the folder of --results.

    A result that is there stays; a failure that is there gives way to a result, a study to one that has gone on. A
    folder that is published already (runs/*.jsonl) stays so; it takes only records of code that is committed. The
    exit code is 1 if a run has another result here and there, is refused, or if a file cannot be read.
    """
    from bench.storage.merge import merge as merged

    if not (folders or pack):
        raise click.UsageError("Missing argument 'DIR...'.")
    found = merged(folders, results, pack)
    if as_json:
        click.echo(json.dumps([asdict(done) for done in found], indent=1))
    else:
        for done in found:
            if done.why:
                click.echo(f"{done.what}: {done.file}: {done.why}")
        counts = Counter(done.what for done in found)
        click.echo(", ".join(f"{n} {what}" for what, n in sorted(counts.items())) or "no records")
    if any(done.what in ("conflict", "refused", "unreadable") for done in found):
        sys.exit(1)
