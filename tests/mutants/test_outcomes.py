"""What is told of tests that say nothing about a mutant."""

import os
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import run


def crashes(*_: Any) -> None:
    os._exit(3)


def sleeps(*_: Any) -> None:
    time.sleep(1)


def stops_collecting(copy: Path, arguments: Any, output: Path, sender: Any, checked: bool) -> None:
    output.write_text("no such test")
    sender.send((4, ()))


@pytest.mark.parametrize(
    ("child", "timeout", "said"),
    [
        (crashes, 60.0, "the process of the tests ended without an answer: "),
        (sleeps, 0.1, "no answer in 0.1 seconds: name fewer tests: "),
        (stops_collecting, 60.0, "pytest ended with 4: no such test"),
    ],
)
def test_each_has_a_reason_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, child: Any, timeout: float, said: str
) -> None:
    monkeypatch.setattr(run, "_pytest", child)
    monkeypatch.setattr(run, "FORKED", get_context("spawn"))
    file = tmp_path / "src" / "oneloop" / "one.py"
    file.parent.mkdir(parents=True)
    file.write_text("one = 1\n")
    mutant = run.Mutant(room="one", name="two", file="one.py", old="1", new="2", tests=("test_one.py",))
    found = run.outcome(mutant, tmp_path / "src", timeout)
    assert (found.end, found.detail) == ("error", said)
    assert file.read_text() == "one = 1\n"
