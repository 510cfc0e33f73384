"""Holds a prepared split in contiguous tensors and cuts batches out of them by index.

A split of more than ``LARGE`` rows is read from its files piece by piece, so that resident memory does not grow with
it. Its epochs are then shuffled in windows, as ``Split.batches`` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.api import Batch, Items, Schema
from bench.data.mapped import LARGE, in_memory

Take = Callable[[Tensor], Tensor]  # some values of a column

WINDOW = 1 << 20  # rows, about, of a large split that are in memory at a time while training
PIECE = 1 << 18  # rows, about, that are in memory at a time where the order is that of the file
BLOCK = 1 << 13  # rows, about, that stay in one window: neighbours in the file, read at once
OF_GROUPS = ("user_cat", "user_num", "history", "user", "cold_user")  # the columns of a split with a value a group
OF_ROWS = ("item", "pair_cat", "pair_num", "cold_item")  # those with a value a row


@dataclass(frozen=True)
class Split:
    """Holds G groups in time order and their R rows, group after group. Labels and truth are NaN where undefined."""

    name: str
    schema: Schema
    items: Items
    user_cat: Tensor  # [G, fields]
    user_num: Tensor  # [G, fields]
    history: Tensor  # [G, L]
    start: Tensor  # [G + 1] first row of each group
    item: Tensor  # [R]
    pair_cat: Tensor  # [R, fields]
    pair_num: Tensor  # [R, fields]
    user: Tensor  # [G] a number for each user, unseen ones included
    labels: dict[str, Tensor]
    truth: dict[str, Tensor]  # simulated data only; never part of a batch
    cold_user: Tensor  # [G] bool: the user is not in the training part
    cold_item: Tensor  # [R] bool

    @property
    def groups(self) -> int:
        """Number of groups."""
        return self.history.shape[0]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.item.shape[0]

    @cached_property
    def sizes(self) -> Tensor:
        """Rows of each group [G]."""
        return self.start.diff()

    @cached_property
    def group(self) -> np.ndarray:
        """Group of each row [R]."""
        return np.repeat(np.arange(self.groups), self.sizes.numpy())

    @property
    def large(self) -> bool:
        """Says whether the split has too many rows to be used as a whole."""
        return self.rows > LARGE

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yields one epoch in random group order: whole groups, about ``size`` rows a batch, labels included.

        Up to ``LARGE`` rows every order of the groups is as likely as any other. A larger split is cut into blocks of
        about ``BLOCK`` rows, each with equally many groups (the last has the rest). Blocks come in uniformly random
        order; as many as make a window of about ``WINDOW`` rows are in memory at a time, and the groups of a window
        come in uniformly random order. So each group comes once an epoch and is as likely at any place of the epoch as
        at any other, but for the rest; groups of one block are never further apart than a window, and a batch has rows
        of at most WINDOW / BLOCK = 128 blocks. The last batch of a window may be smaller.
        """
        if not self.large:
            yield from self._batches(size, generator)
            return
        block = self._groups_in(BLOCK)
        order = torch.randperm(-(-self.groups // block), generator=generator)
        for window in torch.split(order, WINDOW // BLOCK):
            ranges = [(first, min(first + block, self.groups)) for first in (window * block).tolist()]
            yield from self._held(ranges)._batches(size, generator)

    def _batches(self, size: int, generator: torch.Generator) -> Iterator[Batch]:
        order = torch.randperm(self.groups, generator=generator)
        sizes = self.sizes[order]
        ends = sizes.cumsum(0)
        within = torch.arange(self.rows) - torch.repeat_interleave(ends - sizes, sizes)
        rows = torch.repeat_interleave(self.start[:-1][order], sizes) + within
        local = torch.repeat_interleave(torch.arange(self.groups), sizes)
        device = self.item.device
        order, rows, local = (_sent(index, device) for index in (order, rows, local))
        for first, last in _cuts(ends, size):
            part = slice(int(ends[first - 1]) if first else 0, int(ends[last - 1]))
            yield self._batch(_picks(order[first:last]), _picks(rows[part]), local[part] - first, labels=True)

    def pieces(self) -> Iterator[Split]:
        """Yields the split in stored order: itself, or if it is large pieces of about ``PIECE`` rows, in memory."""
        if not self.large:
            yield self
            return
        size = self._groups_in(PIECE)
        for first in range(0, self.groups, size):
            yield self._held([(first, min(first + size, self.groups))])

    def defined(self, task: str) -> Iterator[Tensor]:
        """Yields the defined labels of a task: all at once, or those of a large split piece by piece."""
        column = self.labels[task]
        for label in map(in_memory, torch.split(column, PIECE)) if self.large else (column,):
            yield label[~label.isnan()]

    def _groups_in(self, rows: int) -> int:
        """Groups that have about so many rows, at least one."""
        return max(1, round(rows * self.groups / self.rows))

    def _held(self, ranges: Sequence[tuple[int, int]]) -> Split:
        """Ranges of groups, one after another, in memory where the item table is."""
        starts = [in_memory(self.start[first : last + 1]) for first, last in ranges]
        groups = [slice(first, last) for first, last in ranges]
        rows = [slice(int(start[0]), int(start[-1])) for start in starts]
        start = F.pad(torch.cat([start.diff() for start in starts]).cumsum(0), (1, 0))

        def read(parts: Sequence[slice]) -> Take:
            return lambda column: torch.cat([in_memory(column[part]) for part in parts])

        return self._of(start, read(groups), read(rows))._all_to(self.items.cat.device)

    def to(self, device: torch.device) -> Split:
        """Returns the split with its tensors on a device, so that batches are made there; ``start`` stays on the CPU.

        Of a large split only the item table goes there, and what is in memory at a time.
        """
        if self.large:
            return replace(self, items=_moved(self.items, device))
        return self._all_to(device)

    def _all_to(self, device: torch.device) -> Split:
        if self.item.device == device:
            return self
        moved = {f.name: _moved(getattr(self, f.name), device) for f in fields(self) if f.name != "start"}
        return replace(self, **moved)

    def _batch(self, groups: Take, rows: Take, local: Tensor, labels: bool) -> Batch:
        """A batch of what ``groups`` and ``rows`` take from the columns. local: the group of each row [B]."""
        of = {t.name: groups if t.scope == "user" else rows for t in self.schema.tasks if labels}
        return Batch(
            user_cat=groups(self.user_cat),
            user_num=groups(self.user_num),
            history=groups(self.history),
            item=rows(self.item),
            pair_cat=rows(self.pair_cat),
            pair_num=rows(self.pair_num),
            group=local,
            items=self.items,
            labels={name: take(self.labels[name]) for name, take in of.items()},
        )

    def cut(self, group: int) -> tuple[Split, Split]:
        """Returns two splits: the groups before number ``group``, and the others."""
        row = int(self.start[group])
        return self._part(slice(0, group), slice(0, row)), self._part(slice(group, None), slice(row, None))

    def _part(self, groups: slice, rows: slice) -> Split:
        start = self.start[groups.start : None if groups.stop is None else groups.stop + 1]
        if int(start[0]):
            start = start - start[0]
        return self._of(start, itemgetter(groups), itemgetter(rows))

    def _of(self, start: Tensor, groups: Take, rows: Take) -> Split:
        """The split of some groups, given what takes them from a column of groups, and their rows from one of rows."""
        of = {t.name: groups if t.scope == "user" else rows for t in self.schema.tasks}
        columns: dict[str, Any] = {
            **{name: groups(getattr(self, name)) for name in OF_GROUPS},
            **{name: rows(getattr(self, name)) for name in OF_ROWS},
            "labels": {name: of[name](label) for name, label in self.labels.items()},
            "truth": {name: of[name](truth) for name, truth in self.truth.items()},
        }
        return replace(self, start=start, **columns)

    def inputs(self, size: int) -> Iterator[Batch]:
        """Yields the whole split in stored order without labels, about ``size`` rows a batch.

        Batches are slices of the split's tensors, without a copy, unless the split is large.
        """
        for piece in self.pieces():
            yield from piece._inputs(size)

    def _inputs(self, size: int) -> Iterator[Batch]:
        for first, last in _cuts(self.start[1:], size):
            rows = slice(int(self.start[first]), int(self.start[last]))
            groups = slice(first, last)
            local = _sent(torch.repeat_interleave(torch.arange(last - first), self.sizes[groups]), self.item.device)
            yield self._batch(itemgetter(groups), itemgetter(rows), local, labels=False)


def _picks(index: Tensor) -> Take:
    return lambda column: column.index_select(0, index)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {k: v.to(device) for k, v in value.items()}
    return Items(value.cat.to(device), value.num.to(device)) if isinstance(value, Items) else value


def _sent(index: Tensor, device: torch.device) -> Tensor:
    """An index on the device. A GPU takes it from pinned memory, beside what it still computes."""
    return index.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else index.to(device)


def _cuts(ends: Tensor, size: int) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of groups that hold about ``size`` rows each. ``ends``: running row count [G]."""
    first, total = 0, int(ends[-1])
    for target in range(size, total + size, size):
        last = int(torch.searchsorted(ends, min(target, total))) + 1
        if last > first:
            yield first, last
            first = last
