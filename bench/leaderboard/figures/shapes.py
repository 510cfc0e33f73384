"""What figures are made of: points, lines, a heat map, a ranking; and nothing about how they are drawn."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """A row's mean skill on test and its cost. ``front``: no competitor is cheaper and at least as good."""

    label: str
    kind: str
    cost: float
    skill: float
    half_width: float | None
    front: bool


@dataclass(frozen=True)
class Curve:
    """A curve; ``low`` and ``high``: its band, the range over seeds."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Panel:
    """One pair of axes, with points or lines."""

    title: str
    x_label: str
    y_label: str
    points: tuple[Point, ...] = ()
    lines: tuple[Curve, ...] = ()


@dataclass(frozen=True)
class Grid:
    """Gain over the baseline in percent, positive is better: a row for each method, a column for each task and one for
    the mean. ``stars``: significant."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    stars: tuple[tuple[bool, ...], ...]


@dataclass(frozen=True)
class Ranking:
    """Mean ranks, best first. ``groups``: first and last index of rows that the critical difference doesn't part."""

    labels: tuple[str, ...]
    ranks: tuple[float, ...]
    critical: float
    groups: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Figure:
    """Panels side by side, or a heat map, or a ranking. ``table``: its index
    among the board's tables and those over data sets. ``shown``: the lines that are drawn where there is no choice."""

    name: str
    kind: str
    table: int
    title: str
    caption: str
    panels: tuple[Panel, ...] = ()
    grid: Grid | None = None
    ranking: Ranking | None = None
    shown: tuple[str, ...] = ()
