"""The group of all commands."""

from __future__ import annotations

import sys
from typing import Any

import click

from bench import __version__
from bench.errors import BenchError, Terminated, unknown

HELP = ["-h", "--help"]


class Commands(click.Group):
    """A group that suggests the nearest command, and whose errors are one line and an exit code."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """See click; a command keeps the names of its help from the first time that it is parsed, which may be without
        the group."""
        cmd.context_settings.setdefault("help_option_names", HELP)
        super().add_command(cmd, name)

    def invoke(self, ctx: click.Context) -> Any:
        """See click; bad input becomes one line and exit code 2, Ctrl-C exit code 130, SIGTERM 143."""
        try:
            return super().invoke(ctx)
        except BenchError as error:
            click.echo(f"bench: {' '.join(str(error).splitlines())}", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            click.echo("bench: stopped; stored records are whole, and the same command continues", err=True)
            sys.exit(130)
        except Terminated:
            click.echo("bench: terminated; what was kept is whole, and the same command continues", err=True)
            raise

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """See click; an unknown command names the nearest."""
        if args and self.get_command(ctx, args[0]) is None:
            raise unknown("command", args[0], self.commands)
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": HELP})
@click.version_option(__version__, prog_name="bench")
def main() -> None:
    """Benchmarks of multi-task learning over pretrained language models in recommenders.

    \b
    Reproduce   bench run --suite quick          then   bench board
    Add         bench new method my_idea         then   bench check my_idea
    One run     bench run -d movielens-100k -m mmoe -s experts=8 --seeds 5
    """
