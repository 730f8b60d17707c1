"""task:tiny_code, beside Python itself: these programs are the task's own, so they may run here."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oneloop.config import default_run
from oneloop.recipes.execute import execute
from oneloop.recipes.watched import Silent
from oneloop.record.reader import read_run
from oneloop.sandbox import tiers
from oneloop.tasks import TinyCode

SPLITS = ("train", "test")


def passed(program: str, row: dict[str, Any]) -> bool:
    space: dict[str, Any] = {}
    try:
        exec(program, space)
        return all(space["f"](list(test["args"][0])) == test["expected"] for test in row["tests"])
    except SyntaxError:
        return False


@pytest.mark.parametrize("split", SPLITS)
def test_answers_pass_their_tests_and_rejected_ones_fail(split: Any) -> None:
    for row in TinyCode(steps=(1, 4)).preferences(300, 0, split):
        assert row["entry_point"] == "f" and len(row["tests"]) == 4
        assert passed(row["chosen"], row) and row["chosen"] == row["answer"]
        assert not passed(row["rejected"], row)


def test_no_step_of_a_prompt_can_be_left_out() -> None:
    for row in TinyCode(steps=(1, 4)).prompts(300, 0, "train"):
        lines = row["answer"].split("\n")
        assert len(lines) == row["prompt"].count(",") + 2
        for place in range(1, len(lines) - 1):
            assert not passed("\n".join(lines[:place] + lines[place + 1 :]), row), row["prompt"]


def test_a_program_may_be_written_in_another_way() -> None:
    row = {"tests": [{"args": [[4, 7, 8]], "expected": 18}], "entry_point": "f"}
    text = "```python\ndef f(numbers):\n    return sum(n + 3 for n in numbers if n % 2 == 0)\n```"
    columns = {name: [value] * 3 for name, value in row.items()}
    wrong = "def f(x):\n return 0"
    assert TinyCode().reward([text, wrong, "def f(x"], **columns) == [1.0, 0.0, 0.0]


def test_the_share_of_flawed_demonstrations() -> None:
    rows = TinyCode(flawed=0.5).demonstrations(400, 0, "train")
    assert 0.4 < sum(passed(row["completion"], row) for row in rows) / 400 < 0.6
    assert all(passed(row["completion"], row) for row in TinyCode().demonstrations(100, 0, "train"))


def test_prompts_and_answers_are_ascii_and_short() -> None:
    rows = TinyCode().demonstrations(500, 0, "train")
    assert all((row["prompt"] + row["answer"]).isascii() for row in rows)
    assert max(len(row["answer"]) for row in rows) < 120


def test_a_run_says_what_holds_its_programs(tmp_path: Path) -> None:
    run = replace(
        default_run("grpo"), model="scratch:tiny", data="task:tiny_code", out=str(tmp_path / "run"), steps=1,
        prompts_per_step=2, group_size=2, max_new_tokens=8, data_size=10, eval_size=2,
    )  # fmt: skip
    record = read_run(execute(run, Silent()))
    assert record.info["isolation"] == {"tiny_code": tiers.tier()}
    assert [row["reward"] for row in record.rollouts(0)] == [0.0] * 4
