"""The documentation: what it points to is there, and what it says to type can be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from bench.cli import main
from bench.registry import ROOT

PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "results" / "README.md", *(ROOT / "docs").glob("*.md")]
)
page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())


def anchors(text: str) -> set[str]:
    """What a reader of a page can jump to: its titles, as forges spell them."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(text: str) -> list[list[str]]:
    """The words of each `bench` command in the page's shell blocks and in its code spans."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()
    lines = [*blocks, *re.findall(r"`(bench [^`]+)`", text)]
    split = [shlex.split(line, comments=True) for line in lines]
    return [words[words.index("bench") :] for words in split if "bench" in words]


@page
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, anchor = target.partition("#")
        if not name.startswith("http"):
            found = page.parent / name if name else page
            assert found.exists(), target
            assert not anchor or anchor in anchors(found.read_text("utf-8")), target


@page
def test_files_and_modules_that_it_names_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for name in re.findall(r"\b(?:bench|baselines|methods|tests|docs)/[\w./-]*\w", text):
        if not re.search("my_|NAME", name):
            assert (ROOT / name).exists(), name
    for module in re.findall(r"^from (bench[\w.]*) import", text, re.MULTILINE):
        path = ROOT / module.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").exists(), module


@page
def test_commands_and_options_exist(page: Path) -> None:
    for words in commands(page.read_text("utf-8")):
        known: click.Command = main
        while isinstance(known, click.Group) and len(words) > 1 and words[1] in known.commands:
            known, words = known.commands[words[1]], words[1:]
        known_options = {name for option in known.params for name in option.opts} | {"--help"}
        used = {word.partition("=")[0] for word in words[1:] if word.startswith("--") and word != "--"}
        assert used <= known_options, (words, used - known_options)
        assert not isinstance(known, click.Group) or words[1:2] in ([], ["COMMAND"]) or words[1].startswith("-"), words


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    assert {p.name for p in PAGES if p.parent.name == "docs"} - {"README.md"} <= set(
        re.findall(r"\]\((\w+\.md)\)", index)
    )


def test_the_readme_is_short_and_its_table_is_made() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert text.count("\n") <= 150
    assert re.search(r"<!-- table: [^>]+ -->\n\|.*\|\n<!-- /table -->\n", text, re.DOTALL)
    assert text.index("make bench") < text.index("make test") < text.index("<!-- table")
