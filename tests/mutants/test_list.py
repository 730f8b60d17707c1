"""The list of mutants stands on the source as it is; `make mutants` runs it."""

from pathlib import Path

import pytest
from run import ROOT, Mutant, mutants

PACKAGE = ROOT / "src" / "oneloop"
WITHOUT = {"__init__.py", "__main__.py", "ports.py"}
"""No room of their own: the entry points, and protocols alone."""

WIRING = """evaluation reads the training split
the schedule's length ignores the epochs
demonstrations and pairs are tempered
dropout stays on in the learner
the head's gradient in half precision keeps its last chunk only
the adaptive coefficient counts one rank's sequences
all samples of an evaluation's prompt are equal
a refill repeats the dropped group's seeds
a text is renamed before it is on the disk
a folder's files are not on the disk
the old folder goes before the new one's name is on the disk"""
"""What once stood without a test."""


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: f"{mutant.room}: {mutant.name}")
def test_each_can_be_applied(mutant: Mutant) -> None:
    assert not mutant.fault(PACKAGE)
    assert mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8") if name else True
        assert (ROOT / "tests" / file).is_file()


def test_names_are_told_apart_and_every_room_has_one() -> None:
    names = [mutant.name for mutant in mutants()]
    assert len(set(names)) == len(names)
    assert set(WIRING.splitlines()) <= set(names)
    rooms = {_room(file) for file in PACKAGE.rglob("*.py") if file.name not in WITHOUT}
    assert rooms == {mutant.room for mutant in mutants()}
    assert all(_room(PACKAGE / mutant.file) == mutant.room for mutant in mutants())


def _room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")
