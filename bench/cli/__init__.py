"""The ``bench`` command, a module for each of its commands. Nothing outside imports them."""

from bench.cli._commands import main

__all__ = ["main"]
