"""docs/methods: a page for each method, with all that a page has. That its blocks run is in tests/test_pages_run.py."""

import re
from pathlib import Path

import pytest

from oneloop.algorithms import ALGORITHMS
from oneloop.health import CODES
from oneloop.recipes.explain import SOURCES
from pages import ROOT, blocks, commands

FOLDER = ROOT / "docs" / "methods"
OVERVIEW = FOLDER / "README.md"


def page_of(name: str) -> Path:
    return FOLDER / f"{name}.md"


def test_each_method_has_its_page_and_its_line_in_the_overview() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} == {*ALGORITHMS, "README"}
    overview = OVERVIEW.read_text(encoding="utf-8")
    assert [name for name in ALGORITHMS if f"| [`{name}`]({name}.md) |" not in overview] == []


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_page_says_what_where_from_and_what_goes_wrong(name: str) -> None:
    text, source = page_of(name).read_text(encoding="utf-8"), SOURCES[name]
    assert text.startswith(f"# {name}: {source.title}\n")
    assert re.findall("^## (.*)$", text, re.MULTILINE) == ["Value", "Recipe", "Watch", "What goes wrong", "Source"]
    assert " ".join(source.reference.split()) in " ".join(text.partition("## Source")[2].split())
    if source.parent:
        assert f"]({source.parent}.md)" in text
    wrong = text.partition("## What goes wrong")[2].partition("## ")[0]
    codes = set(re.findall(r"`([AI]_[A-Z_]+)`", wrong))
    assert codes and codes <= set(CODES)
    assert 40 <= len(text.splitlines()) <= 90


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_page_has_the_value_and_a_recipe_of_it(name: str) -> None:
    found = blocks(page_of(name))
    values = "".join(block.text for block in found if block.language == "python")
    assert re.search(rf">>> (print\()?{name.upper()}( == |\.)", values)
    trained = [words[2] for block in found if block.language == "bash" for words in commands(block.text)]
    assert name in trained
