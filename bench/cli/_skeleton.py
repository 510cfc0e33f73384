"""Writes the skeleton of a method, balancer or data set: a file that already runs, to be changed where the idea is."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from bench import registry
from bench.errors import BenchError

TEMPLATES = Path(__file__).with_name("skeletons")
# Where a file of each kind is found without further ado: in the checkout.
TARGETS = {
    "method": registry.ROOT / "methods",
    "balancer": registry.ROOT / "baselines" / "balancers",
    "dataset": registry.ROOT / "bench" / "datasets",
}


def create(kind: str, name: str, folder: Path | None = None) -> Path:
    """Writes a skeleton to a folder, by default where its kind belongs in the checkout; returns its path.

    Raises BenchError for a bad or taken name.
    """
    stem = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", stem) or keyword.iskeyword(stem):
        raise BenchError(
            f"'{name}' cannot be a file name here; use lower-case letters, digits and _, such as my_{kind}"
        )
    taken = registry.methods() if kind == "method" else registry.entries(f"{kind}s")
    path = (folder or TARGETS[kind]) / f"{stem}.py"
    if path.exists() or registry.name_of(f"{kind}s", path) in taken:
        raise BenchError(f"{kind} '{name}' exists already; choose another name")
    words = stem.split("_")
    text = Template((TEMPLATES / f"{kind}.txt").read_text("utf-8")).substitute(
        title=" ".join(words).capitalize(), class_name="".join(w.capitalize() for w in words)
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror}; choose another folder with --to") from error
    return path
