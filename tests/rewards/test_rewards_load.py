"""Reward functions by name: what was asked for is found, or the part of the name that is wrong is said."""

import asyncio
import sys
from pathlib import Path

import pytest

from oneloop.errors import ConfigError
from oneloop.rewards import NamedReward, exact_match, load_reward

GOOD = "def length(completions, **columns):\n    return [float(len(text)) for text in completions]\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def test_a_file_is_found_from_here_and_from_the_root(folder: Path) -> None:
    (folder / "my.rewards.py").write_text(GOOD)
    path, modules = list(sys.path), len(sys.modules)
    for spec in ("my.rewards.py:length", "./my.rewards.py:length", f"{folder}/my.rewards.py:length"):
        named = load_reward(spec)
        assert (named.name, named.weight, named.function(["ab"])) == ("length", 1.0, [2.0])
    assert sys.path == path
    assert len(sys.modules) == modules + 1


def test_a_package_is_imported() -> None:
    assert load_reward("oneloop.rewards.functions:exact_match") == NamedReward("exact_match", exact_match)


def test_two_files_of_one_name_stay_apart(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "rewards.py").write_text(f"SIDE = {name!r}\ndef side(completions):\n    return SIDE\n")
    first, second = load_reward("a/rewards.py:side"), load_reward("b/rewards.py:side")
    assert (first.function([]), second.function([])) == ("a", "b")
    assert "rewards" not in sys.modules
    # pickle and dataclasses find a function's module by name
    assert [sys.modules[named.function.__module__].SIDE for named in (first, second)] == ["a", "b"]


def test_a_file_may_define_dataclasses_and_async_functions(folder: Path) -> None:
    (folder / "modern.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Grade:\n    value: float = 1.0\n"
        "    def __call__(self, completions): return [self.value]\n"
        "grade = Grade()\nasync def later(completions): return [2.0]\n"
    )
    assert load_reward("modern.py:grade").function([""]) == [1.0]
    assert asyncio.run(load_reward("modern.py:later").function([""])) == [2.0]


BAD_NAMES = [  # spec, what the message says
    ("rewards", "wanted file.py:function or package.module:function"),
    ("rewards.py", "wanted file.py:function"),
    (":length", "wanted file.py:function"),
    ("rewards.py:", "wanted file.py:function"),
    ("", "wanted file.py:function"),
    ("reward.py:length", "no file reward.py (looked in "),
    ("reward.py:length", "There is: rewards.py."),
    ("nowhere/rewards.py:length", "no file nowhere/rewards.py"),
    (".py:length", "no file .py"),
    ("rewards.py:lenght", "rewards.py has no 'lenght'. Did you mean 'length'?"),
    ("rewards.py:zzz", "It has: length."),
    ("empty.py:length", "It has: no functions."),
    ("rewards.py:WEIGHT", "WEIGHT is a int; wanted a function"),
    ("no_such_package.rewards:length", "ModuleNotFoundError: No module named 'no_such_package'. Fix: install"),
    ("oneloop.rewards.functions:exact", "has no 'exact'. Did you mean 'exact_match'?"),
    ("..rewards:length", "importing ..rewards raised"),
]


@pytest.mark.parametrize(("spec", "said"), BAD_NAMES)
def test_a_bad_name_is_explained(folder: Path, spec: str, said: str) -> None:
    (folder / "rewards.py").write_text(GOOD + "WEIGHT = 3\n")
    (folder / "empty.py").write_text("")
    with pytest.raises(ConfigError) as caught:
        load_reward(spec)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"--reward {spec}: ")


BAD_FILES = [  # source, what the message says, line at fault
    ("x = 1\n1 / 0\n", "ZeroDivisionError: division by zero at {file}:2", "division"),
    ("x = 1\ndef f(:\n", "SyntaxError: invalid syntax at {file}:2", "syntax"),
    ("  x = 1\n", "IndentationError: unexpected indent at {file}:1", "indent"),
    ("\nimport no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module' at {file}:2", "import"),
    ("import sys\nsys.exit(3)\n", "SystemExit: 3 at {file}:2", "exit"),
    ("import json\njson.loads('{')\n", "at {file}:2", "raised in the standard library"),
    ("def f():\n    raise KeyError('k')\nf()\n", "KeyError: 'k' at {file}:2", "deepest line"),
    ("try:\n    1 / 0\nexcept Exception as e:\n    raise RuntimeError('no') from e\n",
     "RuntimeError: no at {file}:4, caused by ZeroDivisionError: division by zero at {file}:2", "chained"),
    ("class E(Exception):\n    def __str__(self): 1 / 0\nraise E\n", "E: (its message cannot be read)", "str"),
    ("raise ValueError\n", "raised ValueError at {file}:1", "no message"),
    ("def f(): f()\nf()\n", "RecursionError: ", "recursion"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "said"), [pytest.param(*row[:2], id=row[2]) for row in BAD_FILES])
def test_a_file_that_cannot_be_imported_names_the_line(folder: Path, source: str, said: str) -> None:
    path = folder / "broken.py"
    path.write_text(source)
    before = set(sys.modules)
    with pytest.raises(ConfigError) as caught:
        load_reward("broken.py:f")
    assert said.format(file=path) in str(caught.value)
    assert caught.value.__cause__ is not None
    assert caught.value.exit_code == 2
    assert not {name for name in set(sys.modules) - before if name.startswith("oneloop_reward_")}


def test_ctrl_c_while_importing_is_not_an_error_of_the_file(folder: Path) -> None:
    (folder / "slow.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_reward("slow.py:f")


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_is_a_finite_number(weight: float) -> None:
    with pytest.raises(ConfigError, match=f"the weight of reward length is {weight}"):
        NamedReward("length", len, weight)
