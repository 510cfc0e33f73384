"""Standard tables -> arrays. Everything that is fitted (codes, scalers) is fitted on the training part only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from bench.api import Dataset, Field, Side, Tables, Task
from bench.data.split import PARTS, PURGED, assign
from bench.errors import BenchError, unknown

Arrays = dict[str, np.ndarray]
RESERVED = ("group", "rows", "row", "part", "position", "given", "time", "known", "extra", "history", "text")


@dataclass
class Encoded:
    """Arrays by name (``train/item``, ``items/cat`` ...), the item texts, and what describes them."""

    arrays: Arrays
    texts: list[str]
    cardinality: dict[str, int]
    purged: int
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)  # groups, rows and label rates of each


def encode(dataset: Dataset, tables: Tables) -> Encoded:
    """Splits, encodes and lays out a data set. Raises BenchError naming the column that breaks the standard form."""
    check(dataset, tables)
    groups, rows = _ordered(tables)
    sizes = groups["rows"].to_numpy()
    users = groups.join(tables.users, on="user", how="left", maintain_order="left")
    part = _within_domains(dataset, users, assign(groups, sizes, dataset.split))
    groups = groups.with_columns(part.alias("part"))
    rows = rows.join(groups.select("group", "part"), on="group", how="left", maintain_order="left")

    item_rows = tables.items.select("item").with_row_index("row", offset=1)
    rows = rows.join(item_rows, on="item", how="left", maintain_order="left")
    history = _history(groups, item_rows, dataset.history)
    seen = np.zeros(tables.items.height + 1, dtype=bool)
    in_train = (groups["part"] == "train").to_numpy()
    seen[rows.filter(pl.col("part") == "train")["row"].to_numpy()] = True
    seen[history[in_train].ravel()] = True
    seen[0] = False

    encoder = _Encoder(dataset.fields)
    sides: dict[Side, tuple[pl.DataFrame, np.ndarray]] = {
        "user": (users, in_train),
        "item": (tables.items, seen[1:]),
        "pair": (rows, (rows["part"] == "train").to_numpy()),
    }
    coded = {side: encoder.side(side, frame, fit) for side, (frame, fit) in sides.items()}
    arrays: Arrays = {
        "items/cat": _with_padding(coded["item"][0]),
        "items/num": _with_padding(coded["item"][1]),
    }
    result = Encoded(arrays, ["", *tables.items["text"].fill_null("")], encoder.cardinality, 0)
    user_number = groups["user"].rank("dense").to_numpy().astype(np.int32)
    known_users = groups.filter(pl.col("part") == "train")["user"].unique()
    cold_user = ~groups["user"].is_in(known_users.implode()).to_numpy()
    extra = sorted(set(groups["part"].unique()) - {*PARTS, PURGED})
    for name in (*PARTS, *extra):
        g, r = (groups["part"] == name).to_numpy(), (rows["part"] == name).to_numpy()
        arrays |= {
            f"{name}/user_cat": coded["user"][0][g],
            f"{name}/user_num": coded["user"][1][g],
            f"{name}/history": history[g],
            f"{name}/start": np.concatenate([[0], np.cumsum(sizes[g])]).astype(np.int64),
            f"{name}/item": rows["row"].to_numpy()[r].astype(np.int32),
            f"{name}/pair_cat": coded["pair"][0][r],
            f"{name}/pair_num": coded["pair"][1][r],
            f"{name}/user": user_number[g],
            f"{name}/cold_user": cold_user[g],
            f"{name}/cold_item": ~seen[rows["row"].to_numpy()[r]],
        }
        rates: dict[str, Any] = {}
        for task in dataset.tasks:
            frame, mask = (groups, g) if task.scope == "user" else (rows, r)
            label = _label(task, frame)[mask]
            arrays[f"{name}/label/{task.name}"] = label
            rates[task.name] = _rate(task, label)
            if f"truth:{task.name}" in frame.columns:
                arrays[f"{name}/truth/{task.name}"] = _truth(task, frame)[mask]
        result.parts[name] = {"groups": int(g.sum()), "rows": int(r.sum()), "labels": rates}
    result.purged = int((rows["part"] == PURGED).sum())
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
        lost = frame.join(other.select(column), on=column, how="anti")
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


def _ordered(tables: Tables) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Groups in time order with their row counts, rows in group order; groups without rows are dropped."""
    counts = tables.rows.group_by("group").agg(pl.len().cast(pl.Int64).alias("rows"))
    groups = tables.groups.join(counts, on="group").sort("time", "group")
    order = groups.select("group").with_row_index("position")
    rows = (
        tables.rows.with_row_index("given").join(order, on="group").sort("position", "given").drop("position", "given")
    )
    return groups, rows


def _history(groups: pl.DataFrame, item_rows: pl.DataFrame, length: int) -> np.ndarray:
    """[G, length] item rows, most recent last, padded with 0 in front. Items that the table lacks become 0."""
    out = np.zeros((groups.height, length), dtype=np.int32)
    if not length:
        return out
    flat = (
        groups.with_row_index("g")
        .select("g", pl.col("history").list.tail(length).alias("item"))
        .explode("item", empty_as_null=False)
        .join(item_rows, on="item", how="left", maintain_order="left")
        .with_columns(pl.col("row").fill_null(0))
        .with_columns((pl.len().over("g") - pl.int_range(pl.len()).over("g")).alias("back"))
    )
    out[flat["g"].to_numpy(), length - flat["back"].to_numpy().astype(np.int64)] = flat["row"].to_numpy()
    return out


class _Encoder:
    def __init__(self, fields: tuple[Field, ...]) -> None:
        self.fields = fields
        self.cardinality: dict[str, int] = {}

    def side(self, side: Side, frame: pl.DataFrame, fit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes [N, fields] and standardised numbers [N, fields] of one side; ``fit`` marks the rows to fit on."""
        mine = [f for f in self.fields if f.side == side]
        cat = [self._codes(f.name, frame[f.name], fit) for f in mine if f.kind != "numerical"]
        num = [_standardised(frame[f.name], fit) for f in mine if f.kind == "numerical"]
        return _columns(cat, frame.height, np.int32), _columns(num, frame.height, np.float32)

    def _codes(self, name: str, values: pl.Series, fit: np.ndarray) -> np.ndarray:
        """Codes 1.. in value order for the values in the fitted rows; 0 for any other value and for null."""
        known = values.filter(pl.Series(fit)).unique().drop_nulls().sort()
        self.cardinality[name] = len(known) + 1
        table = pl.DataFrame({"value": known}).with_row_index("code", offset=1)
        found = pl.DataFrame({"value": values}).join(table, on="value", how="left", maintain_order="left")
        return found["code"].fill_null(0).to_numpy().astype(np.int32)


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


def _label(task: Task, frame: pl.DataFrame) -> np.ndarray:
    """Labels as float32, NaN where undefined; multi-class names become their position in ``task.classes``."""
    column = frame[task.name]
    if task.kind != "multiclass":
        values: np.ndarray = column.cast(pl.Float32).to_numpy()
        return values
    unknown = set(column.drop_nulls().unique()) - set(task.classes)
    if unknown:
        raise BenchError(f"label '{task.name}': value '{sorted(unknown)[0]}' is not among its classes")
    places = pl.DataFrame({task.name: list(task.classes), "place": np.arange(len(task.classes), dtype=np.float32)})
    joined = frame.select(pl.col(task.name).cast(pl.String)).join(
        places, on=task.name, how="left", maintain_order="left"
    )
    found: np.ndarray = joined["place"].to_numpy()
    return found


def _rate(task: Task, label: np.ndarray) -> dict[str, float | None]:
    """How many labels are defined, and their mean."""
    known = label[~np.isnan(label)].astype(np.float64)
    mean = None if task.kind == "multiclass" or not len(known) else float(known.mean())
    return {"defined": len(known), "mean": mean}


def _truth(task: Task, frame: pl.DataFrame) -> np.ndarray:
    column = frame[f"truth:{task.name}"]
    if task.kind == "multiclass":
        return np.stack(column.to_list()).astype(np.float32)
    values: np.ndarray = column.cast(pl.Float32).to_numpy()
    return values
