"""What the documents say is what the code does: examples run, outputs are real, links lead somewhere."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

from oneloop.cli.main import run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_EXAMPLES = [
    str(path.relative_to(ROOT / "src")).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    for path in (ROOT / "src").rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_docstring_examples(name: str) -> None:
    failures, count = doctest.testmod(importlib.import_module(name))
    assert count > 0 and failures == 0


def commands() -> list[tuple[str, str]]:
    """Commands of every page's console blocks with the output printed under them."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [
        (command.strip(), output.strip())
        for block in blocks
        for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n?)*)", block, re.MULTILINE)
    ]


@pytest.mark.parametrize(("command", "output"), commands(), ids=lambda text: text[:30])
def test_pages_show_the_real_output(command: str, output: str, capsys) -> None:
    assert run(command.removeprefix("oneloop ").split()) == 0
    assert capsys.readouterr().out.strip() == output


def test_there_are_commands_to_check() -> None:
    assert len(commands()) >= 2


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http)([^)#]+)", text)
    named = re.findall(r"`((?:tests|docs|src|benchmarks)/[\w/.-]+)`", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_papers_page_is_up_to_date() -> None:
    from oneloop.recipes.explain import papers_page

    assert (ROOT / "docs" / "papers.md").read_text(encoding="utf-8") == papers_page()
