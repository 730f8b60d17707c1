"""Rows of programming problems, as data sets of unit tests write them: made into `prompt`, `tests` and `entry_point`,
which `oneloop.rewards.code` reads, and for demonstrations `completion`, a whole program.

Nothing here runs or unpickles what a data set holds.
"""

from __future__ import annotations

import json
from typing import Any

from oneloop.data.kinds import BadRow, Row, short

_SOLUTION = "class Solution"
"""How LeetCode wants a function: as a method of a class of this name."""


def human_eval(row: Row) -> Row:
    """`prompt` (imports, a head and a docstring), `test` with a function `check`, `entry_point`; `canonical_solution`
    goes on where the prompt ends."""
    rest = _without(row, "test", "canonical_solution")
    made = {**rest, "tests": _text(row, "test"), "entry_point": _text(row, "entry_point")}
    solution = row.get("canonical_solution")
    return {**made, "completion": f"{_text(row, 'prompt')}{solution}"} if isinstance(solution, str) else made


def mbpp(row: Row) -> Row:
    """`prompt`, `test_list`, and before each of them `test_setup_code` or `test_imports`; `code` solves it.

    The first test goes into the prompt: nothing else says what the function is called.
    """
    tests = row.get("test_list")
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
        raise BadRow(f"test_list is {short(tests)}; wanted a list of texts with asserts")
    before = [*_lines(row, "test_imports"), *_lines(row, "test_setup_code")]
    rest = _without(row, "test_list", "test_imports", "test_setup_code", "code")
    made = {**rest, "tests": ["\n".join([*before, test]) for test in tests]}
    made["prompt"] = f"{_text(row, 'prompt')}\n\nIt must pass tests such as:\n{tests[0]}\n"
    return {**made, "completion": row["code"]} if "code" in row else made


def apps(row: Row) -> Row:
    """`prompt`, and `input_output`, JSON with `inputs`, `outputs` and for calls `fn_name`; `starter_code` and
    `solutions`, a list in JSON, may be there."""
    cases = _json(row, "input_output")
    inputs, outputs = (cases.get(name) if isinstance(cases, dict) else None for name in ("inputs", "outputs"))
    if not isinstance(inputs, list) or not isinstance(outputs, list) or not inputs or len(inputs) != len(outputs):
        raise BadRow(f"input_output is {short(cases)}; wanted an object with as many inputs as outputs, at least one")
    name = cases.get("fn_name")
    made = {**_without(row, "input_output", "solutions", "starter_code"), "prompt": _asked(row, name)}
    made |= _calls(row, name, inputs, _unwrapped(outputs)) if name else {"tests": _runs(inputs, outputs)}
    solutions = _json(row, "solutions") if row.get("solutions") else None
    return {**made, "completion": solutions[0]} if isinstance(solutions, list) and solutions else made


def live_code_bench(row: Row) -> Row:
    """`prompt`, `public_test_cases` and `private_test_cases`, JSON lists of `input`, `output` and `testtype`; for calls
    an input has one argument a line, and `metadata` in JSON names the function in `func_name`."""
    cases = [case for column in ("public_test_cases", "private_test_cases") for case in _cases(row, column)]
    if not cases:
        raise BadRow("public_test_cases and private_test_cases are empty: no tests")
    name = _json(row, "metadata").get("func_name") if row.get("metadata") else None
    inputs, outputs = [case["input"] for case in cases], [case["output"] for case in cases]
    made = {**_without(row, "public_test_cases", "private_test_cases", "starter_code"), "prompt": _asked(row, name)}
    if not any(case.get("testtype") == "functional" for case in cases):
        return {**made, "tests": _runs(inputs, outputs)}
    if not name:
        raise BadRow(f"metadata is {short(row.get('metadata'))}; wanted func_name in it, for tests that are calls")
    arguments = [[_parsed("a test's input", line) for line in text.splitlines() if line.strip()] for text in inputs]
    return made | _calls(row, name, arguments, [_parsed("a test's output", text) for text in outputs])


def _cases(row: Row, column: str) -> list[dict[str, str]]:
    text = row.get(column)
    if isinstance(text, str) and text and text.lstrip()[:1] != "[":
        raise BadRow(
            f"{column} is {short(text)}: packed, in the original by pickle, which runs code when it is read. "
            "Fix: write it as JSON, see docs/code-rewards.md, or --on-bad-row skip"
        )
    cases = _json(row, column) if isinstance(text, str) and text else text or []
    if not all(isinstance(case, dict) and {"input", "output"} <= set(case) for case in cases):
        raise BadRow(f"{column} is {short(cases)}; wanted a list of objects with input and output")
    return cases


def _runs(inputs: list[Any], outputs: list[Any]) -> list[Row]:
    """Tests of a program that reads and writes; a list is its lines."""
    return [{"input": _joined(given), "output": _joined(out)} for given, out in zip(inputs, outputs, strict=True)]


def _joined(text: Any) -> str:
    return "\n".join(map(str, text)) if isinstance(text, list) else str(text)


def _calls(row: Row, name: str, inputs: list[Any], outputs: list[Any]) -> Row:
    """Tests of a function, or of a method of LeetCode's class."""
    if _SOLUTION not in (row.get("starter_code") or ""):
        tests = [{"args": given, "expected": out} for given, out in zip(inputs, outputs, strict=True)]
        return {"tests": tests, "entry_point": name}
    calls = (f"Solution().{name}({', '.join(map(repr, given))})" for given in inputs)
    return {"tests": [f"assert {call} == {out!r}" for call, out in zip(calls, outputs, strict=True)]}


def _unwrapped(outputs: list[Any]) -> list[Any]:
    """Many rows of APPS have each result in a list of its own, and nothing but that to tell it by."""
    return [out[0] for out in outputs] if all(isinstance(out, list) and len(out) == 1 for out in outputs) else outputs


def _asked(row: Row, name: str | None) -> str:
    """The question, the code to begin with, and the function's name where neither has it."""
    text = "\n\n".join(part for part in (_text(row, "prompt"), row.get("starter_code")) if part)
    return f"{text}\n\nWrite a function {name}.\n" if name and name not in text else text


def _without(row: Row, *names: str) -> Row:
    return {name: value for name, value in row.items() if name not in names}


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BadRow(f"{name} is {short(value)}; wanted text")
    return value


def _lines(row: Row, name: str) -> list[str]:
    value = row.get(name) or []
    return [value] if isinstance(value, str) else value


def _json(row: Row, name: str) -> Any:
    value = row.get(name)
    return _parsed(name, value) if isinstance(value, str) else value


def _parsed(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise BadRow(f"{name} is {short(text)}; wanted JSON") from None
