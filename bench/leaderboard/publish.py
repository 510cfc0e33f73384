"""The page and the figures of a results folder as files, to be written or compared with those that are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from bench.errors import BenchError
from bench.leaderboard.figures.contents import figures as figures_of
from bench.leaderboard.figures.contents import studies_of
from bench.leaderboard.tables import Board
from bench.storage.records import Store


def files(
    board: Board, results: Path, page: Path | None, figures: Path | None, form: Literal["svg", "png"]
) -> tuple[dict[Path, bytes], list[str]]:
    """The page's file and a file for each figure, where folders for them are given; and why figures are missing."""
    if page is None and figures is None:
        return {}, []
    made, missing = figures_of(board, records := list(Store(results).records()), studies_of(results))
    found = {}
    if page is not None:
        from bench.leaderboard.page.html import to_html

        found[page / "index.html"] = to_html(board, records, made).encode()
    if figures is not None:
        from bench.leaderboard.figures.draw import draw

        found |= {figures / f"{figure.name}.{form}": draw(figure, form) for figure in made}
    return found, missing


def check(found: Mapping[Path, bytes], figures: Path | None, command: str) -> None:
    """Raises BenchError naming the first file that is different, missing or left over. ``command``: makes them anew."""
    wrong = next(_wrong(found, figures), None)
    if wrong is not None:
        raise BenchError(f"{wrong}; run `{command}`")


def _wrong(found: Mapping[Path, bytes], figures: Path | None) -> Iterator[str]:
    for path, data in found.items():
        if not path.exists() or path.read_bytes() != data:
            yield f"{path} is not what the records give"
    for path in sorted(figures.iterdir()) if figures is not None else ():
        if path not in found:
            yield f"{path} is no figure of these records: delete it"
