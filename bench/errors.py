"""Errors that are the user's to mend: one clear line, exit code 2, no traceback."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class BenchError(Exception):
    """Bad input. The message names the file, column or value, and what to do next."""


class Diverged(ValueError):
    """A loss or a prediction is not finite."""


class Terminated(SystemExit):
    """SIGTERM has come, and what could be kept has been: the process ends with code 143."""

    status = 143  # as of a process that the signal ends: 128 + 15

    def __init__(self) -> None:
        super().__init__(self.status)


def in_one_line(error: Exception) -> str:
    """The kind of an error and what it says, whatever line breaks that has."""
    return " ".join(f"{type(error).__name__}: {error}".split())


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Surrounds imports of packages that only the optional extra ``name`` installs.

    Raises BenchError with the command that installs it if one of them is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing(f"the package '{error.name}'", name) from error


def missing(what: str, extra: str) -> BenchError:
    """Returns the error for something that is not installed and comes with an extra of pyproject.toml."""
    return BenchError(f"{what} is not installed; pip install 'mlm-mtl-bench[{extra}]' adds it")


def unknown(kind: str, name: str, known: Iterable[str]) -> BenchError:
    """An error for a name that is not there; it suggests the nearest one that is."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names) or 'none'}"
    return BenchError(f"unknown {kind} '{name}'; {hint}")
