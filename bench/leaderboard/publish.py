"""The files that are made from a results folder: leaderboard, page, figures, and tables in a file of words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.errors import BenchError
from bench.leaderboard.excerpts import filled
from bench.leaderboard.figures.contents import figures as figures_of
from bench.leaderboard.figures.contents import studies_of
from bench.leaderboard.render.text import to_markdown
from bench.leaderboard.tables import Board
from bench.storage.records import Store


@dataclass(frozen=True)
class Places:
    """The results folder, and what is to be made beside its leaderboard: the folders of a page and of figures, and a
    Markdown file whose tables are to be filled."""

    results: Path
    html: Path | None
    figures: Path | None
    readme: Path | None

    @property
    def leaderboard(self) -> Path:
        """The file of the whole leaderboard."""
        return self.results / "LEADERBOARD.md"

    def __str__(self) -> str:
        return " ".join(f"--{name} {place}" for name, place in vars(self).items() if place)


def files(board: Board, places: Places, form: Literal["svg", "png"]) -> tuple[dict[Path, bytes], list[str]]:
    """The leaderboard's file and all others with their contents; and why figures are missing."""
    found = {places.leaderboard: to_markdown(board).encode()}
    if places.readme is not None:
        found[places.readme] = filled(places.readme, board).encode()
    if places.html is None and places.figures is None:
        return found, []
    records = list(Store(places.results).records())
    made, missing = figures_of(board, records, studies_of(places.results))
    if places.html is not None:
        from bench.leaderboard.page.html import to_html

        found[places.html / "index.html"] = to_html(board, records, made).encode()
    if places.figures is not None:
        from bench.leaderboard.figures.draw import draw

        found |= {places.figures / f"{figure.name}.{form}": draw(figure, form) for figure in made}
    return found, missing


def check(found: Mapping[Path, bytes], places: Places) -> None:
    """Raises BenchError naming the first file that is different, missing or left over, and what makes it anew."""
    wrong = next(_wrong(found, places.figures), None)
    if wrong is not None:
        raise BenchError(f"{wrong}; run `bench board {places}`")


def _wrong(found: Mapping[Path, bytes], figures: Path | None) -> Iterator[str]:
    for path, data in found.items():
        if not path.exists() or path.read_bytes() != data:
            yield f"{path} is not what the records give"
    for path in sorted(figures.iterdir()) if figures is not None else ():
        if path not in found:
            yield f"{path} is no figure of these records: delete it"
