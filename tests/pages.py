"""The fenced blocks of every page, and the commands in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """One fenced block. Behind the fence stand its language and the file it goes into: `python file=rewards.py`."""

    line: int
    language: str
    file: str
    text: str


def blocks(page: Path) -> list[Block]:
    found, opened, info = [], 0, ""
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.startswith("```"):
            continue
        if opened:
            language, _, rest = info.partition(" ")
            text = "\n".join(lines[opened : number - 1]) + "\n"
            found.append(Block(opened, language, rest.removeprefix("file="), text))
            opened = 0
        else:
            opened, info = number, line[3:].strip()
    assert not opened, f"{page}:{opened}: the block is not closed"
    return found


def commands(text: str) -> list[list[str]]:
    """The words of each command of a shell block; a line that ends with a backslash goes on."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def answers(page: Path) -> list[tuple[str, str]]:
    """The commands of a page's console blocks, with the output printed under each."""
    return [
        (command.strip(), output.strip())
        for block in blocks(page)
        if block.language == "console"
        for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n?)*)", block.text, re.MULTILINE)
    ]
