"""YAML files that declare runs or figures: plain data, each value with its place, so that every error names it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from bench.errors import BenchError, unknown

TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null")}


@contextmanager
def at(place: str) -> Iterator[None]:
    """Names a place of a file in every BenchError of this block; no place if it is empty."""
    try:
        yield
    except BenchError as error:
        if place:
            raise BenchError(f"{place}: {error}") from error
        raise


class _Loader(yaml.SafeLoader):
    """Unmarked words mean what they do in YAML 1.2 and JSON: 1e-3 is a number, ``no`` and 2024-01-01 are words."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Reads a node as PyYAML does, and refuses tags that mean more than plain data."""
        node: yaml.Node | None = super().compose_node(parent, index)
        if node is not None and node.tag not in TAGS:
            problem = f"the tag {node.tag} is not allowed; write plain values"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return node


for _kind, _pattern, _first in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false", ["t", "f"]),
    ("int", r"[-+]?(0|[1-9]\d*)", list("-+0123456789")),
    ("float", r"[-+]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$", re.ASCII), _first)


class Reader:
    """Reads the parts of one file, each from its node. Everything raises BenchError with the node's line.

    needs: what an empty file lacks, for its error. Raises BenchError if the file cannot be read.
    """

    def __init__(self, path: Path, needs: str) -> None:
        self.path = path
        with self.whole_file():
            self.loader = _Loader(path.read_text("utf-8"))
            root = self.loader.get_single_node()
            if root is None:
                raise BenchError(f"{path}: is empty; it needs {needs}")
            self.root: yaml.Node = root

    @contextmanager
    def whole_file(self) -> Iterator[None]:
        """What goes wrong inside because of the file as a whole becomes a BenchError that names it."""
        path = self.path
        try:
            yield
        except OSError as error:
            raise BenchError(f"{path}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise BenchError(f"{path}: is no text in UTF-8") from error
        except yaml.reader.ReaderError as error:
            raise BenchError(f"{path}: {error.reason} (character {error.position})") from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f" line {mark.line + 1}" if mark is not None else ""
            raise BenchError(f"{path}{where}: {error.problem or error.context}") from error
        except RecursionError as error:
            raise BenchError(f"{path}: something in it contains itself, or is nested too deep") from error

    def place(self, node: yaml.Node) -> str:
        """Returns the file and line of a node."""
        return f"{self.path} line {node.start_mark.line + 1}"

    def wrong(self, node: yaml.Node, what: str, wanted: str) -> BenchError:
        """Returns the error that ``what`` should be ``wanted`` and is not."""
        return BenchError(f"{self.place(node)}: {what}: expected {wanted}, got {json.dumps(self.value(node))}")

    def budget(self, node: yaml.Node) -> dict[str, int]:
        """Returns epochs and patience, as far as they are given."""
        parts = self.parts(node, "budget", ("epochs", "patience"))
        return {key: self.whole(part, key) for key, part in parts.items()}

    def settings(self, node: yaml.Node, what: str) -> dict[str, Any]:
        """Returns a mapping of any keys to plain data."""
        return {key: self.value(part) for key, part in self.parts(node, what).items()}

    def parts(
        self, node: yaml.Node, what: str, known: Iterable[str] | None = None, needed: Iterable[str] = ()
    ) -> dict[str, yaml.Node]:
        """Returns the nodes of a mapping by key; refuses other keys than the known ones, if they are given, and a
        mapping without one of those needed."""
        if not isinstance(node, yaml.MappingNode):
            raise self.wrong(node, what, "a mapping such as KEY: VALUE")
        found: dict[str, yaml.Node] = {}
        for key_node, part in node.value:
            key = self.text(key_node, f"a key of {what}")
            if known is not None and key not in known:
                raise BenchError(f"{self.place(key_node)}: {unknown('key', key, known)}")
            if key in found:
                raise BenchError(f"{self.place(key_node)}: '{key}' is there twice; leave one out")
            found[key] = part
        for key in needed:
            if key not in found:
                raise BenchError(f"{self.place(node)}: '{key}' is missing")
        return found

    def items(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        """Returns the nodes of a list that has any."""
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            raise self.wrong(node, what, "a list with at least one item")
        return list(node.value)

    def whole(self, node: yaml.Node, what: str) -> int:
        """Returns a whole number, at least 1."""
        value = self.value(node)
        if type(value) is not int or value < 1:
            raise self.wrong(node, what, "a whole number, at least 1")
        return value

    def text(self, node: yaml.Node, what: str, wanted: str = "a text") -> str:
        """Returns a text."""
        value = self.value(node)
        if not isinstance(value, str):
            raise self.wrong(node, what, wanted)
        return value

    def word(self, node: yaml.Node, what: str, known: Iterable[str]) -> str:
        """Returns a text that is one of the known words."""
        chosen = self.text(node, what)
        if chosen not in known:
            raise BenchError(f"{self.place(node)}: {unknown(what, chosen, known)}")
        return chosen

    def value(self, node: yaml.Node) -> Any:
        """Returns plain data: what JSON has, no key twice."""
        if isinstance(node, yaml.MappingNode):
            return {key: self.value(part) for key, part in self.parts(node, "a mapping").items()}
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item) for item in node.value]
        with suppress(ValueError, KeyError):
            made = self.loader.construct_object(node)
            if not isinstance(made, float) or math.isfinite(made):
                return made
        raise BenchError(f"{self.place(node)}: '{node.value}' is no {node.tag.rpartition(':')[2]}")
