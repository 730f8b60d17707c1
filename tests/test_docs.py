"""What the documents say is what the code does: examples run, outputs are real, links lead somewhere."""

import doctest
import importlib
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from oneloop.cli.main import run
from pages import PAGES, ROOT, answers, name_of

WITH_EXAMPLES = [
    str(path.relative_to(ROOT / "src")).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    for path in (ROOT / "src").rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_docstring_examples(name: str) -> None:
    failures, count = doctest.testmod(importlib.import_module(name))
    assert count > 0 and failures == 0


@pytest.mark.parametrize(
    ("command", "output"), [pair for page in PAGES for pair in answers(page)], ids=lambda text: text[:30]
)
def test_pages_show_the_real_output(command: str, output: str, capsys) -> None:
    tool, *words = shlex.split(command)
    assert tool == "oneloop"
    code = run(words)
    said = capsys.readouterr()
    assert (code, (said.err if code else said.out).strip()) == (2 if said.err else 0, output)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http)([^)#]+)", text)
    named = re.findall(r"`((?:tests|docs|src|benchmarks)/[\w/.-]+)`", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_papers_page_is_up_to_date() -> None:
    from oneloop.recipes.explain import papers_page

    assert (ROOT / "docs" / "papers.md").read_text(encoding="utf-8") == papers_page()


def test_every_dependency_has_its_reason() -> None:
    """docs/dependencies.md: a row for each package and for each extra, which names all that it brings; no others."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    packages, extras = (
        {name: cells for name, *cells in re.findall(r"^\| (.+) \| (.+) \| (.+) \|$", part, re.MULTILINE)}
        for part in text.partition("|---")[2].split("| extra |")
    )
    named = {re.split(r"[\[<>=]", requirement)[0] for requirement in project["dependencies"]}
    assert set(packages) == named
    rows = {name: cells for row, cells in extras.items() for name in row.split(", ")}
    assert set(rows) == set(project["optional-dependencies"])
    for extra, requirements in project["optional-dependencies"].items():
        brought = {re.split(r"[\[<>=]", requirement)[0] for requirement in requirements} - {"oneloop"}
        brings, reason = rows[extra]
        assert reason.strip()
        assert brought == {extra} or all(re.search(rf"\b{name}\b", brings) for name in brought), extra


def test_the_map_of_the_source_leads_somewhere() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").partition("\nsrc/oneloop/\n")[2].partition("```")[0]
    named = re.findall(r"\b([a-z]+(?:/|\.py))", lines)
    assert len(named) > 15 and [name for name in named if not (ROOT / "src" / "oneloop" / name).exists()] == []
