"""The fields of a data set as one table, a line for each row or group: what the tabular references read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.api import Field, Schema, Scope, Side


def fields_of(schema: Schema, scope: Scope, *kinds: str) -> list[Field]:
    """The fields that a task of this scope may see, in the column order of ``columns``; kinds as in ``Schema.side``."""
    sides: tuple[Side, ...] = ("user",) if scope == "user" else ("user", "item", "pair")
    return [f for side in sides for f in schema.side(side, *kinds)]


def columns(source: Any, scope: Scope) -> tuple[Tensor, Tensor]:
    """Codes [N, fields] and numbers [N, fields] of a batch or split: of the rows, or of the groups for user scope."""
    if scope == "user":
        return source.user_cat, source.user_num
    group, item = torch.as_tensor(source.group), source.item
    return (
        torch.cat([source.user_cat[group], source.items.cat[item], source.pair_cat], dim=1),
        torch.cat([source.user_num[group], source.items.num[item], source.pair_num], dim=1),
    )
