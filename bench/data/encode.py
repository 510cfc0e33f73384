"""Encodes standard tables as arrays. What is fitted (codes, scalers) is fitted on the training part only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from bench.api import Dataset, Field, Side, Tables, Task
from bench.data.split import PARTS, PURGED, assign
from bench.errors import BenchError, unknown

Arrays = dict[str, np.ndarray]
CHUNK = 1 << 18  # groups whose histories are laid out at a time
RESERVED = ("group", "rows", "row", "part", "position", "given", "time", "known", "extra", "history", "text")


@dataclass
class Encoded:
    """Holds arrays by name (``train/item``, ``items/cat`` ...), the item texts, and what describes them."""

    arrays: Arrays
    texts: list[str]
    cardinality: dict[str, int]
    purged: int
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)  # groups, rows and label rates of each


def encode(dataset: Dataset, tables: Tables) -> Encoded:
    """Splits, encodes and lays out a data set. Raises BenchError naming the column that breaks the standard form.

    Works column by column: beside the tables and the result, little more than one column is held.
    """
    check(dataset, tables)
    groups, order = _ordered(tables)
    sizes = groups["rows"].to_numpy()
    users = groups.join(tables.users, on="user", how="left", maintain_order="left")
    part = _within_domains(dataset, users, assign(groups, sizes, dataset.split))
    names = (*PARTS, *sorted(set(part.unique()) - {*PARTS, PURGED}))
    of_group = {name: (part == name).to_numpy() for name in names}
    of_row = {name: np.repeat(mask, sizes) for name, mask in of_group.items()}

    item_rows = tables.items.select("item").with_row_index("row", offset=1)
    item = _looked_up(tables.rows["item"], item_rows)[order].astype(np.int32)
    history = _history(groups, item_rows, dataset.history)
    seen = np.zeros(tables.items.height + 1, dtype=bool)
    seen[item[of_row["train"]]] = True
    seen[history[of_group["train"]].ravel()] = True
    seen[0] = False

    encoder = _Encoder(dataset.fields)
    user_cat, user_num = encoder.side("user", users, of_group["train"])
    item_cat, item_num = encoder.side("item", tables.items, seen[1:])
    pair_cat, pair_num = encoder.side("pair", tables.rows, of_row["train"], order)
    result = Encoded(
        {"items/cat": _with_padding(item_cat), "items/num": _with_padding(item_num)},
        ["", *tables.items["text"].fill_null("")],
        encoder.cardinality,
        purged=len(order) - sum(int(mask.sum()) for mask in of_row.values()),
        parts={n: {"groups": int(of_group[n].sum()), "rows": int(of_row[n].sum()), "labels": {}} for n in names},
    )

    def lay(key: str, array: np.ndarray, masks: dict[str, np.ndarray]) -> None:
        result.arrays |= {f"{name}/{key}": array[mask] for name, mask in masks.items()}

    for key, array in (("user_cat", user_cat), ("user_num", user_num), ("history", history)):
        lay(key, array, of_group)
    known_users = groups["user"].filter(part == "train").unique()
    lay("cold_user", ~groups["user"].is_in(known_users.implode()).to_numpy(), of_group)
    lay("user", groups["user"].rank("dense").to_numpy().astype(np.int32), of_group)
    for key, array in (("item", item), ("pair_cat", pair_cat), ("pair_num", pair_num), ("cold_item", ~seen[item])):
        lay(key, array, of_row)
    for name, mask in of_group.items():
        result.arrays[f"{name}/start"] = np.concatenate([[0], np.cumsum(sizes[mask])]).astype(np.int64)
    for task in dataset.tasks:
        frame, masks = (groups, of_group) if task.scope == "user" else (tables.rows, of_row)
        place = slice(None) if task.scope == "user" else order
        lay(f"label/{task.name}", _label(task, frame[task.name])[place], masks)
        for name in names:
            result.parts[name]["labels"][task.name] = _rate(task, result.arrays[f"{name}/label/{task.name}"])
        if f"truth:{task.name}" in frame.columns:
            lay(f"truth/{task.name}", _truth(task, frame[f"truth:{task.name}"])[place], masks)
    return result


def check(dataset: Dataset, tables: Tables) -> None:
    """Raises BenchError unless the tables have the standard form that ``bench.api.Tables`` states."""
    has: dict[str, list[str]] = {
        "user": [*tables.groups.columns, *tables.users.columns],
        "item": tables.items.columns,
        "pair": tables.rows.columns,
    }
    for f in dataset.fields:
        if f.name in dataset.forbidden:
            raise BenchError(f"field '{f.name}' is an outcome: the data set lists it as forbidden")
        if f.name in RESERVED:
            raise BenchError(f"field name '{f.name}' is taken by the engine; name the column otherwise")
        if f.name not in has[f.side]:
            raise BenchError(f"{f.side}-side field '{f.name}' is in no table")
    for task in dataset.tasks:
        frame, name = (tables.groups, "groups") if task.scope == "user" else (tables.rows, "rows")
        if task.name not in frame.columns:
            raise BenchError(f"label column '{task.name}' is missing from the {name} table")
        if not task.outputs:
            raise BenchError(f"task '{task.name}' has no classes: name them in `tasks`, or set `tasks` in `build`")
        if task.name in {f.name for f in dataset.fields}:
            raise BenchError(f"'{task.name}' is both a label and a field")
    for frame, name, key in (
        (tables.groups, "groups", "group"),
        (tables.items, "items", "item"),
        (tables.users, "users", "user"),
    ):
        if frame[key].is_duplicated().any():
            raise BenchError(f"{name} table: column '{key}' has duplicates")
    late = tables.groups.filter(pl.col("history_time") >= pl.col("time"))
    if late.height:
        raise BenchError(
            f"groups table: {late.height} histories reach the group's own time, first in group {late['group'][0]}"
        )
    for column, frame, other, name in (
        ("item", tables.rows, tables.items, "items"),
        ("user", tables.groups, tables.users, "users"),
        ("group", tables.rows, tables.groups, "groups"),
    ):
        lost = frame.select(column).join(other.select(column), on=column, how="anti")
        if lost.height:
            raise BenchError(f"{column} '{lost[column][0]}' is not in the {name} table ({lost.height} rows)")


def _within_domains(dataset: Dataset, users: pl.DataFrame, part: pl.Series) -> pl.Series:
    """The parts, with groups of domains that are not wanted in them left out. Raises BenchError for an unknown domain,
    or if nothing is left of a part."""
    if dataset.domains is None:
        return part
    value = users[dataset.domain_field].cast(pl.String)
    known = sorted(value.drop_nulls().unique())
    for name in (*dataset.domains["train"], *dataset.domains["test"]):
        if name not in known:
            raise unknown(dataset.domain_field, name, known)
    wanted = {name: dataset.domains["train" if name in ("train", "valid") else "test"] for name in part.unique()}
    allowed = pl.Series([v in wanted[p] for p, v in zip(part, value, strict=True)])
    kept = pl.select(pl.when(allowed).then(part).otherwise(pl.lit(PURGED)).alias("part"))["part"]
    for name in PARTS:
        if not (kept == name).any():
            raise BenchError(f"no {name} rows in the wanted domains of {dataset.domain_field}")
    return kept


def _ordered(tables: Tables) -> tuple[pl.DataFrame, np.ndarray]:
    """Groups in time order with their row counts, and the places of the rows in group order [R]; groups without rows
    are dropped."""
    counts = tables.rows.group_by("group").agg(pl.len().cast(pl.Int64).alias("rows"))
    groups = tables.groups.join(counts, on="group").sort("time", "group")
    positions = groups.select("group").with_row_index("position")
    return groups, np.argsort(_looked_up(tables.rows["group"], positions), kind="stable")


def _looked_up(values: pl.Series, table: pl.DataFrame) -> np.ndarray:
    """The number (0 if there is none) that a table of two columns, number and value, gives each value."""
    number, value = table.columns
    found = pl.DataFrame({value: values}).join(table, on=value, how="left", maintain_order="left")
    result: np.ndarray = found[number].fill_null(0).to_numpy()
    return result


def _history(groups: pl.DataFrame, item_rows: pl.DataFrame, length: int) -> np.ndarray:
    """[G, length] item rows, most recent last, padded with 0 in front. Items that the table lacks become 0."""
    out = np.zeros((groups.height, length), dtype=np.int32)
    for start in range(0, groups.height if length else 0, CHUNK):
        lists = groups["history"][start : start + CHUNK].list.tail(length)
        counts = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
        group = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
        items = lists.filter(pl.Series(counts > 0)).explode()
        out[start + group, length - counts[group] + within] = _looked_up(items, item_rows)
    return out


class _Encoder:
    def __init__(self, fields: tuple[Field, ...]) -> None:
        self.fields = fields
        self.cardinality: dict[str, int] = {}

    def side(
        self, side: Side, frame: pl.DataFrame, fit: np.ndarray, order: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Codes [N, fields] and standardised numbers [N, fields] of one side.

        fit: marks the rows to fit on. order: places of the rows in the frame; by default they are as they stand.
        """
        mine = {
            f: frame[f.name] if order is None else frame[f.name].gather(order) for f in self.fields if f.side == side
        }
        cat = [self._codes(f.name, values, fit) for f, values in mine.items() if f.kind != "numerical"]
        num = [_standardised(values, fit) for f, values in mine.items() if f.kind == "numerical"]
        return _columns(cat, frame.height, np.int32), _columns(num, frame.height, np.float32)

    def _codes(self, name: str, values: pl.Series, fit: np.ndarray) -> np.ndarray:
        """Codes 1.. in value order for the values in the fitted rows; 0 for any other value and for null."""
        known = values.filter(pl.Series(fit)).unique().drop_nulls().sort()
        self.cardinality[name] = len(known) + 1
        return _looked_up(values, pl.DataFrame({"value": known}).with_row_index("code", offset=1)).astype(np.int32)


def _standardised(values: pl.Series, fit: np.ndarray) -> np.ndarray:
    """(value - mean) / sd of the fitted rows; null becomes the mean, 0."""
    x = values.cast(pl.Float64).to_numpy()
    known = x[fit & np.isfinite(x)]
    mean, sd = (known.mean(), known.std()) if len(known) else (0.0, 0.0)
    return np.where(np.isfinite(x), (x - mean) / (sd or 1.0), 0.0)


def _columns(columns: list[np.ndarray], height: int, dtype: Any) -> np.ndarray:
    return np.stack(columns, axis=1).astype(dtype) if columns else np.zeros((height, 0), dtype=dtype)


def _with_padding(array: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros_like(array[:1]), array])


def _label(task: Task, column: pl.Series) -> np.ndarray:
    """Labels as float32, NaN where undefined; multi-class names become their position in ``task.classes``."""
    if not task.traits.classes:
        values: np.ndarray = column.cast(pl.Float32).to_numpy()
        low, high = task.traits.labels
        if (wrong := values[(values < low) | (values > high)]).size:
            raise BenchError(
                f"label '{task.name}': {wrong[0]:g} is outside {low:g} to {high:g}, those of a {task.kind} task"
            )
        return values
    unknown = set(column.drop_nulls().unique()) - set(task.classes)
    if unknown:
        raise BenchError(f"label '{task.name}': value '{sorted(unknown)[0]}' is not among its classes")
    table = pl.DataFrame({"value": list(task.classes)}).with_row_index("place", offset=1)
    place = _looked_up(column.cast(pl.String), table).astype(np.float32)
    return np.where(place > 0, place - 1, np.float32(np.nan))


def _rate(task: Task, label: np.ndarray) -> dict[str, float | None]:
    """How many labels are defined, and their mean."""
    known = label[~np.isnan(label)].astype(np.float64)
    mean = None if task.traits.classes or not len(known) else float(known.mean())
    return {"defined": len(known), "mean": mean}


def _truth(task: Task, column: pl.Series) -> np.ndarray:
    if task.traits.classes:
        return np.stack(column.to_list()).astype(np.float32)
    values: np.ndarray = column.cast(pl.Float32).to_numpy()
    return values
