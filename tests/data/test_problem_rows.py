"""Problems in the shapes of HumanEval, MBPP, APPS and LiveCodeBench, read as `prompt`, `tests`, `entry_point`."""

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from oneloop.data import Reading, from_rows, open_data
from oneloop.errors import DataError

HEAD = 'def twice(n: int) -> int:\n    """Two times n."""\n'
CHECK = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(0) == 0\n"
HUMAN_EVAL = {
    "task_id": "own/0", "prompt": HEAD, "test": CHECK, "entry_point": "twice",
    "canonical_solution": "    return 2 * n\n",
}  # fmt: skip
ASSERTS = ["assert twice(2) == 4", "assert twice(0) == 0"]
MBPP = {
    "task_id": 1, "text": "Write a function that doubles.", "code": "def twice(n):\n    return 2 * n",
    "test_list": ASSERTS,
    "test_setup_code": "", "challenge_test_list": [],
}  # fmt: skip
SANITIZED = {
    "task_id": 1, "prompt": "Write a function that doubles.", "code": "def twice(n):\n    return 2 * n",
    "test_imports": ["import math"], "test_list": ASSERTS,
}  # fmt: skip
APPS = {
    "problem_id": 0, "question": "Read n, print 2n.", "starter_code": "", "difficulty": "introductory",
    "solutions": json.dumps(["print(2 * int(input()))", "n = int(input())\nprint(n + n)"]),
    "input_output": json.dumps({"inputs": ["2\n", ["0", ""]], "outputs": ["4\n", ["0"]]}),
}  # fmt: skip
APPS_CALLS = {
    "problem_id": 1, "question": "Double a number.", "starter_code": "def twice(n):\n\t",
    "input_output": json.dumps({"fn_name": "twice", "inputs": [[2], [0]], "outputs": [[4], [0]]}),
}  # fmt: skip
LCB = {
    "question_title": "Double", "question_content": "Read n, print 2n.", "starter_code": "", "metadata": "{}",
    "public_test_cases": json.dumps([{"input": "2\n", "output": "4\n", "testtype": "stdin"}]),
    "private_test_cases": json.dumps([{"input": "0\n", "output": "0\n", "testtype": "stdin"}]),
}  # fmt: skip
LCB_CALLS = {
    "question_content": "Place of a number.", "metadata": '{"func_name": "place"}',
    "starter_code": "class Solution:\n    def place(self, numbers: List[int], n: int) -> int:\n        ",
    "public_test_cases": json.dumps([{"input": "[3, 7]\n7", "output": "1", "testtype": "functional"}]),
    "private_test_cases": "",
}  # fmt: skip


def prompts(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    return list(from_rows(rows, "prompts").rows)


def demonstrations(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    return list(from_rows(rows, "demonstrations").rows)


def test_human_eval() -> None:
    wanted = {"task_id": "own/0", "prompt": HEAD, "tests": CHECK, "entry_point": "twice"}
    assert prompts(HUMAN_EVAL) == [{**wanted, "completion": HEAD + "    return 2 * n\n"}]
    assert demonstrations(HUMAN_EVAL) == prompts(HUMAN_EVAL)


@pytest.mark.parametrize(("row", "before"), [(MBPP, ""), (SANITIZED, "import math\n")], ids=["full", "sanitized"])
def test_mbpp(row: dict[str, Any], before: str) -> None:
    [made] = prompts(row)
    asked = "Write a function that doubles.\n\nIt must pass tests such as:\nassert twice(2) == 4\n"
    assert made["prompt"] == asked and made["tests"] == [before + test for test in ASSERTS]
    assert "entry_point" not in made and "text" not in made and "test_list" not in made
    assert demonstrations(row)[0]["completion"] == row["code"]


def test_apps_with_streams() -> None:
    [made] = prompts(APPS)
    assert made["tests"] == [{"input": "2\n", "output": "4\n"}, {"input": "0\n", "output": "0"}]
    assert made["prompt"] == "Read n, print 2n." and "input_output" not in made
    assert demonstrations(APPS)[0]["completion"] == "print(2 * int(input()))"


def test_apps_with_calls() -> None:
    """Each result lies in a list of its own."""
    [made] = prompts(APPS_CALLS)
    assert made["tests"] == [{"args": [2], "expected": 4}, {"args": [0], "expected": 0}]
    assert made["entry_point"] == "twice" and made["prompt"] == "Double a number.\n\ndef twice(n):\n\t"


def test_results_that_are_lists_stay_lists() -> None:
    cases = {"fn_name": "pair", "inputs": [[1], [2]], "outputs": [[1, 1], [2]]}
    [made] = prompts({**APPS_CALLS, "starter_code": "", "input_output": json.dumps(cases)})
    assert [test["expected"] for test in made["tests"]] == [[1, 1], [2]]
    assert made["prompt"] == "Double a number.\n\nWrite a function pair.\n"


def test_live_code_bench_with_streams() -> None:
    [made] = prompts(LCB)
    assert made["tests"] == [{"input": "2\n", "output": "4\n"}, {"input": "0\n", "output": "0\n"}]
    assert made["prompt"] == "Read n, print 2n." and made["question_title"] == "Double"


def test_live_code_bench_with_methods_and_functions() -> None:
    [made] = prompts(LCB_CALLS)
    assert made["tests"] == ["assert Solution().place([3, 7], 7) == 1"] and "entry_point" not in made
    [made] = prompts({**LCB_CALLS, "starter_code": "def place(numbers, n):"})
    assert made["tests"] == [{"args": [[3, 7], 7], "expected": 1}] and made["entry_point"] == "place"


def test_a_row_that_has_its_tests_is_left_as_it_is() -> None:
    row = {"prompt": "2n", "tests": CHECK, "entry_point": "twice", "test": CHECK}
    assert prompts(row) == [row]


def test_from_a_file_and_by_name(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(MBPP), encoding="utf-8")
    data = open_data(str(path), "prompts")
    assert data.notes[0].startswith(f"{path}: prompts in the layout 'MBPP' (text), because of text, test_list")
    assert "tests" in data.columns


PACKED = base64.b64encode(zlib.compress(b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02[]\x94.")).decode()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**LCB, "private_test_cases": PACKED}, "private_test_cases is .*pickle, which runs code when it is read. Fix"),
        ({**LCB, "public_test_cases": "[]", "private_test_cases": ""}, "no tests"),
        ({**LCB, "public_test_cases": '[{"input": "1"}]'}, "wanted a list of objects with input and output"),
        ({**LCB, "public_test_cases": "[1"}, "public_test_cases is '.1'; wanted JSON"),
        ({**LCB_CALLS, "metadata": "{}"}, "wanted func_name in it"),
        ({**LCB_CALLS, "public_test_cases": LCB_CALLS["public_test_cases"].replace("7]", "x]")}, "a test's input is"),
        ({**APPS, "input_output": ""}, "input_output is ''; wanted JSON"),
        ({**APPS, "input_output": "[]"}, "wanted an object with as many inputs as outputs"),
        ({**APPS, "input_output": '{"inputs": [], "outputs": []}'}, "at least one"),
        ({**APPS, "input_output": '{"inputs": ["1"], "outputs": []}'}, "as many inputs as outputs"),
        ({**MBPP, "test_list": []}, "test_list is .*; wanted a list of texts with asserts"),
        ({**MBPP, "test_list": "assert f() == 1"}, "wanted a list of texts"),
        ({**HUMAN_EVAL, "test": None}, "test is None; wanted text"),
        ({**HUMAN_EVAL, "entry_point": " "}, "entry_point is ' '; wanted text"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_graded_is_a_bad_row(row: dict[str, Any], said: str) -> None:
    good = {name: value for name, value in row.items()}
    for other in (HUMAN_EVAL, MBPP, APPS, LCB, LCB_CALLS):
        if set(other) == set(row):
            good = other
    with pytest.raises(DataError, match=rf"data\[1\]: .*{said}"):
        from_rows([good, row], "prompts")
    assert len(from_rows([good, row], "prompts", reading=Reading(on_bad_row="skip")).rows) == 1
