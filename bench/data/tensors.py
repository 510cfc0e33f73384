"""A prepared split: contiguous tensors, and batches that are indices into them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.api import Batch, Items, Schema


@dataclass(frozen=True)
class Split:
    """G groups in time order and their R rows, group after group. Labels and truth are NaN where undefined."""

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

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """One epoch in random group order: whole groups, about ``size`` rows a batch, labels included."""
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
            yield self._gather(order[first:last], rows[part], local[part] - first)

    def to(self, device: torch.device) -> Split:
        """This split with its tensors on a device, so that batches are made there; ``start`` stays on the CPU."""
        if self.item.device == device:
            return self
        moved = {f.name: _moved(getattr(self, f.name), device) for f in fields(self) if f.name != "start"}
        return replace(self, **moved)

    def _gather(self, groups: Tensor, rows: Tensor, local: Tensor) -> Batch:
        scope = {t.name: groups if t.scope == "user" else rows for t in self.schema.tasks}
        return Batch(
            user_cat=self.user_cat.index_select(0, groups),
            user_num=self.user_num.index_select(0, groups),
            history=self.history.index_select(0, groups),
            item=self.item.index_select(0, rows),
            pair_cat=self.pair_cat.index_select(0, rows),
            pair_num=self.pair_num.index_select(0, rows),
            group=local,
            items=self.items,
            labels={name: self.labels[name].index_select(0, index) for name, index in scope.items()},
        )

    def cut(self, group: int) -> tuple[Split, Split]:
        """The groups before ``group``, and the rest."""
        row = int(self.start[group])
        return self._part(slice(0, group), slice(0, row)), self._part(slice(group, None), slice(row, None))

    def _part(self, groups: slice, rows: slice) -> Split:
        of_group = {t.name: groups if t.scope == "user" else rows for t in self.schema.tasks}
        start = self.start[groups.start : None if groups.stop is None else groups.stop + 1]
        return replace(
            self,
            **{name: getattr(self, name)[groups] for name in ("user_cat", "user_num", "history", "user", "cold_user")},
            **{name: getattr(self, name)[rows] for name in ("item", "pair_cat", "pair_num", "cold_item")},
            start=start - start[0],
            labels={name: label[of_group[name]] for name, label in self.labels.items()},
            truth={name: truth[of_group[name]] for name, truth in self.truth.items()},
        )

    def inputs(self, size: int) -> Iterator[Batch]:
        """The whole split in stored order without labels: slices, nothing is copied."""
        for first, last in _cuts(self.start[1:], size):
            rows = slice(int(self.start[first]), int(self.start[last]))
            groups = slice(first, last)
            yield Batch(
                user_cat=self.user_cat[groups],
                user_num=self.user_num[groups],
                history=self.history[groups],
                item=self.item[rows],
                pair_cat=self.pair_cat[rows],
                pair_num=self.pair_num[rows],
                group=_sent(torch.repeat_interleave(torch.arange(last - first), self.sizes[groups]), self.item.device),
                items=self.items,
            )


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
