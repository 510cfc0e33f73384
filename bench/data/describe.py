"""Describes a prepared data set and checks that it keeps the rules: sizes, rates, hashes, leaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from bench import metrics
from bench.api import Dataset
from bench.data.load import Data
from bench.data.prepare import content_hash
from bench.data.split import assign
from bench.data.tensors import Split

# A single input that ranks a label better than this is taken for the label itself.
SUSPICIOUS_AUC = 0.999


def info(name: str, dataset: Dataset, data: Data) -> dict[str, Any]:
    """Returns sizes, label rates, sparsity, cold shares, text coverage, licence and citation, JSON-able."""
    splits = (data.train, data.valid, data.test, *data.extra)
    parts = {p.name: {**data.meta["parts"][p.name], **_part(p)} for p in splits}
    shown = [np.column_stack([p.user.numpy()[p.group], p.item.numpy()]) for p in splits]
    pairs = np.unique(np.concatenate(shown), axis=0)
    users, candidates = (len(np.unique(column)) for column in pairs.T)
    items = len(data.schema.texts) - 1
    texts = [t for t in data.schema.texts[1:] if t]
    return {
        "name": name,
        "domain": dataset.domain,
        "about": dataset.about,
        "knobs": data.meta["knobs"],
        "tasks": [
            {"name": t.name, "role": t.role, "kind": t.kind, "scope": t.scope, "space": t.space, "metric": t.metrics[0]}
            for t in data.schema.tasks
        ],
        "fields": {side: [f.name for f in data.schema.fields if f.side == side] for side in ("user", "item", "pair")},
        "users": users,
        "items": items,
        "candidates": candidates,
        "rows": sum(p["rows"] for p in parts.values()),
        "density": len(pairs) / (users * candidates),
        "purged_rows": data.meta["purged"],
        "parts": parts,
        "texts": {
            "share": len(texts) / items,
            "unique": len(set(texts)),
            "mean_words": float(np.mean([len(t.split()) for t in texts] or [0])),
        },
        "simulated_truth": sorted(data.test.truth),
        "licence": dataset.licence,
        "citation": dataset.citation,
        "url": dataset.url,
        "sha256": data.meta["sha256"],
        "folder": str(data.folder),
    }


def _part(split: Split) -> dict[str, Any]:
    return {
        "cold_users": float(split.cold_user.float().mean()),
        "cold_items": float(split.cold_item.float().mean()),
        "mean_history": float((split.history > 0).sum(1).float().mean()) if split.history.numel() else 0.0,
    }


def as_text(found: dict[str, Any]) -> str:
    """Renders what ``info`` found for the console."""
    texts, left_out = found["texts"], found["purged_rows"]
    width = max(len(t["name"]) for t in found["tasks"]) + 2
    lines = [f"{found['name']} ({found['domain']})", f"  {found['about']}", ""]
    lines += [f"  {key:<14}{found[key]:,}" for key in ("users", "items", "candidates", "rows")]
    lines += [
        f"  {'density':<14}{found['density']:.3%} of user-candidate pairs shown",
        f"  {'texts':<14}{texts['share']:.1%} of items, {texts['unique']:,} unique, {texts['mean_words']:.1f} words",
    ]
    if left_out:
        lines += [f"  {'left out':<14}{left_out:,} rows whose outcome is known only after the next part begins"]
    for name, part in found["parts"].items():
        lines += [
            "",
            f"  {name}: {part['rows']:,} rows in {part['groups']:,} groups, {part['mean_history']:.1f} of history, "
            f"unseen users {part['cold_users']:.1%}, unseen items {part['cold_items']:.1%}",
        ]
        for task, rate in part["labels"].items():
            mean = "" if rate["mean"] is None else f", mean {rate['mean']:.4f}"
            lines += [f"    {task:<{width}}{rate['defined']:>9,} labels{mean}"]
    lines += ["", "  tasks"]
    lines += [
        f"    {t['name']:<{width}}{t['kind']}, {t['scope']} scope, {t['space']}, {t['metric']}" for t in found["tasks"]
    ]
    if found["simulated_truth"]:
        lines += [f"  true values known for {', '.join(found['simulated_truth'])}"]
    lines += ["", *(f"  {key:<10}{found[key] or '-'}" for key in ("licence", "citation", "url", "sha256", "folder"))]
    return "\n".join(lines)


def verify(dataset: Dataset, data: Data) -> Iterator[tuple[str, str]]:
    """Checks a prepared data set; yields what was checked and what is wrong (empty: nothing), one after the other."""
    yield (
        "stored arrays have the recorded hash",
        "" if content_hash(data.folder) == data.meta["sha256"] else "the hash differs; prepare again",
    )
    groups = pl.read_parquet(data.folder / "tables" / "groups.parquet")
    rows = pl.read_parquet(data.folder / "tables" / "rows.parquet")
    yield (
        "histories end before their group's time",
        _count(groups.filter(pl.col("history_time") >= pl.col("time")), "group"),
    )
    yield "parts follow one another in time, outcomes known before the next part", _order(dataset, groups, rows)
    yield "no outcome column is an input", ", ".join(f.name for f in data.schema.fields if f.name in dataset.forbidden)
    yield "codes are fitted on the training part", _codes(data)
    yield "no single input gives a label away", ", ".join(_giveaways(data.train))
    yield "labels are undefined outside their sample space, defined inside", _spaces(data)


def _count(bad: pl.DataFrame, key: str) -> str:
    return f"{bad.height} rows, first {key} {bad[key][0]}" if bad.height else ""


def _order(dataset: Dataset, groups: pl.DataFrame, rows: pl.DataFrame) -> str:
    counts = rows.group_by("group").agg(pl.len().cast(pl.Int64).alias("rows"))
    groups = groups.join(counts, on="group").sort("time", "group")
    known = groups["known"] if "known" in groups.columns else groups["time"]
    part = assign(groups, groups["rows"].to_numpy(), dataset.split)
    for before, after in (("train", "valid"), ("valid", "test")):
        if known.filter(part == before).to_numpy().max() > groups["time"].filter(part == after).to_numpy().min():
            return f"outcomes of the {before} part reach into the {after} part"
    return ""


def _codes(data: Data) -> str:
    """Every code that occurs in a later part occurs in training, or is 0."""
    for side in ("user_cat", "pair_cat"):
        trained = getattr(data.train, side).numpy()
        for column in range(trained.shape[1]):
            known = np.union1d(trained[:, column], [0])
            for part in (data.valid, data.test, *data.extra):
                if not np.isin(getattr(part, side).numpy()[:, column], known).all():
                    return f"{part.name} has codes in {side} column {column} that training lacks"
    seen = np.union1d(np.unique(data.train.item.numpy()), np.unique(data.train.history.numpy()))
    fresh = np.setdiff1d(np.arange(1, len(data.schema.texts)), seen)
    for column, f in enumerate(data.schema.side("item")):
        if f.kind == "id" and data.train.items.cat.numpy()[fresh, column].any():
            return f"items that training never saw have codes of field {f.name}"
    return ""


def _giveaways(split: Split) -> Iterator[str]:
    """Inputs whose order alone predicts a binary label."""
    columns = {f"pair field {i}": split.pair_num.numpy()[:, i] for i in range(split.pair_num.shape[1])}
    columns |= {f"pair code {i}": split.pair_cat.numpy()[:, i] for i in range(split.pair_cat.shape[1])}
    group = split.group
    columns |= {f"user field {i}": split.user_num.numpy()[group, i] for i in range(split.user_num.shape[1])}
    columns["position in the group"] = np.arange(split.rows) - split.start.numpy()[:-1][group]
    for task in split.schema.tasks:
        if task.scope == "pair" and task.traits.marks:
            label = split.labels[task.name].numpy()
            use = ~np.isnan(label)
            for name, column in columns.items():
                auc = metrics.auc(label[use], column[use])
                if auc is not None and max(auc, 1 - auc) > SUSPICIOUS_AUC:
                    yield f"{name} ranks '{task.name}' with AUC {auc:.4f}"


def _spaces(data: Data) -> str:
    for split in (data.train, data.valid, data.test):
        for task in split.schema.tasks:
            undefined = split.labels[task.name].isnan()
            if task.space == "all rows" and undefined.any():
                return f"'{task.name}' says all rows, but {int(undefined.sum())} {split.name} rows have no label"
            if task.space != "all rows" and task.scope == "pair" and not undefined.any():
                return f"'{task.name}' is defined on every {split.name} row, yet its space is {task.space}"
            if undefined.all():
                return f"'{task.name}' has no label in the {split.name} part"
    return ""
