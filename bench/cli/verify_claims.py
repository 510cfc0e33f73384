"""bench verify-claims"""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli._main import main
from bench.cli._options import json_option, results_option, width
from bench.errors import BenchError, unknown


@main.command("verify-claims")
@click.argument("names", nargs=-1)
@click.option(
    "--claims", "file", type=click.Path(path_type=Path, dir_okay=False),
    help="A .yaml file of claims instead of the suite's own.",
)  # fmt: skip
@results_option
@json_option
@click.option("--check", is_flag=True, help="Write nothing; fail if the stored answers differ.")
def verify_claims(names: tuple[str, ...], file: Path | None, results: Path, as_json: bool, check: bool) -> None:
    """Whether stored records confirm or refute published claims, or leave them undecided, and what is missing then.

    NAMES: print only these claims. All of them are tested nevertheless, since p-values are corrected for all. Writes
    RESULTS/CLAIMS.md, except with NAMES, --claims or --json.
    """
    from bench.claims.declared import PATH, declared
    from bench.claims.show import to_console, to_json, to_markdown
    from bench.claims.verify import verify
    from bench.storage.atomic import write_atomically
    from bench.storage.records import Store

    known = declared(file or PATH)
    for name in names:
        if name not in [claim.name for claim in known]:
            raise unknown("claim", name, [claim.name for claim in known])
    found = verify(Store(results).results(), known)
    path, text = results / "CLAIMS.md", to_markdown(found).encode()
    if check:
        if not path.exists() or path.read_bytes() != text:
            raise BenchError(f"{path} is not what the records give; run `bench verify-claims --results {results}`")
        click.echo(f"{path} agrees with the records")
        return
    shown = [finding for finding in found if not names or finding.claim.name in names]
    if as_json:
        click.echo(to_json(shown), nl=False)
        return
    click.echo(to_console(shown, width()), nl=False)
    if not names and file is None:
        write_atomically(path, text)
