"""docs/methods: every value is the one in the code, and every command runs, at the smallest size."""

import doctest
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from oneloop.algorithms import ALGORITHMS
from oneloop.cli.parse import parse_run
from oneloop.recipes.execute import execute
from oneloop.recipes.explain import SOURCES
from toy_models import Silent

PAGES = sorted((Path(__file__).parents[1] / "docs" / "methods").glob("*.md"))
page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)


def commands(page: Path) -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@page
def test_values_are_those_of_the_code(page: Path) -> None:
    failures, count = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert count > 0 and failures == 0


@page
def test_commands_run(page: Path, tmp_path: Path, monkeypatch) -> None:
    """In order, in one folder: later ones take up what earlier ones made."""
    monkeypatch.chdir(tmp_path)
    for tool, verb, *words in commands(page):
        assert (tool, verb) == ("oneloop", "train")
        run = parse_run(words, "usage")
        tiny = {
            "steps": 1,
            "prompts_per_step": 2,
            "data_size": 6,
            "eval_size": 2,
            "max_new_tokens": 5,
            "max_refills": 0,
        }
        execute(replace(run, **tiny, minibatch=min(run.minibatch, 1)), Silent())
        assert (tmp_path / run.out / "final").is_dir()


def test_every_method_has_its_section_with_a_command() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
    headings = set(re.findall(r"^##? (\w+)$", text, re.MULTILINE))
    trained = {words[2] for path in PAGES for words in commands(path)}
    assert set(ALGORITHMS) == set(SOURCES) <= headings and set(ALGORITHMS) == trained
    overview = (PAGES[0].parents[1] / "algorithms.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in overview for name in ALGORITHMS)
    assert all(f"(methods/{path.name})" in overview for path in PAGES)
