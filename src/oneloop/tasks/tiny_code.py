"""Programs of a few lines over a list of integers: `# keep even, add 3, sum` is answered with

    def f(x):
     x=[v for v in x if v%2==0]
     x=[v+3 for v in x]
     return sum(x)

Right is what passes the tests of the row, however it is written: programs are run, in the sandbox of the code reward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from oneloop.errors import ConfigError
from oneloop.rewards.code import UnitTests
from oneloop.tasks.task import Row, Split, draw_rows

Numbers = list[int]
_TESTS = 4


@dataclass(frozen=True)
class _Step:
    """A step in words and as code; `run` is what the code does."""

    words: str
    code: str
    run: Callable[[Numbers], Any]


def _add(n: int) -> _Step:
    return _Step(f"add {n}", f"[v+{n} for v in x]", lambda x: [v + n for v in x])


def _times(n: int) -> _Step:
    return _Step(f"times {n}", f"[v*{n} for v in x]", lambda x: [v * n for v in x])


def _over(n: int) -> _Step:
    return _Step(f"over {n}", f"[v for v in x if v>{n}]", lambda x: [v for v in x if v > n])


def _drop(n: int) -> _Step:
    return _Step(f"drop {n}", f"x[{n}:]", lambda x: x[n:])


def _first(n: int) -> _Step:
    return _Step(f"first {n}", f"x[:{n}]", lambda x: x[:n])


_EVEN = _Step("keep even", "[v for v in x if v%2==0]", lambda x: [v for v in x if v % 2 == 0])
_ODD = _Step("keep odd", "[v for v in x if v%2==1]", lambda x: [v for v in x if v % 2 == 1])
_SORT = _Step("sort", "sorted(x)", sorted)
_REVERSE = _Step("reverse", "x[::-1]", lambda x: x[::-1])
_FAMILIES: tuple[tuple[_Step, ...], ...] = (
    tuple(map(_add, range(1, 10))),
    tuple(map(_times, range(2, 6))),
    tuple(map(_over, range(1, 10))),
    tuple(map(_drop, range(1, 4))),
    tuple(map(_first, range(1, 4))),
    (_EVEN, _ODD),
    (_SORT,),
    (_REVERSE,),
)
"""Each is as likely as the others."""
_ENDS = (
    _Step("list", "x", list),
    _Step("sum", "sum(x)", sum),
    _Step("count", "len(x)", len),
    _Step("largest", "max(x,default=0)", lambda x: max(x, default=0)),
)
_Plan = tuple[_Step, ...]
"""Steps from list to list, and an end."""


@dataclass(frozen=True)
class TinyCode:
    """Write `f(x)` from its steps in words. No step of a prompt can be left out without failing a test of its row.

    Args:
        steps: fewest and most steps before the last one.
        flawed: share of demonstrations that fail a test of their row.
        reward: runs the tests.
    """

    steps: tuple[int, int] = (1, 3)
    flawed: float = 0.0
    reward: UnitTests = field(default_factory=UnitTests)

    def __post_init__(self) -> None:
        fewest, most = self.steps
        if not 1 <= fewest <= most <= 6:
            raise ConfigError(f"TinyCode(steps={self.steps}): wanted fewest and most steps from 1 to 6, as (1, 3)")
        if not 0 <= self.flawed <= 1:
            raise ConfigError(f"TinyCode(flawed={self.flawed}): wanted a share between 0 and 1")

    def prompts(self, count: int, seed: int, split: Split) -> list[Row]:
        """Rows with `prompt`, `tests`, `entry_point` and `answer`, one of the right programs."""
        return [_public(row) for row in self._rows(count, seed, split)]

    def demonstrations(self, count: int, seed: int, split: Split) -> list[Row]:
        rng = Random(f"{seed}-{split}-flaws")
        return [
            _public(row) | {"completion": (_wrong if rng.random() < self.flawed else _right)(row, rng)}
            for row in self._rows(count, seed, split)
        ]

    def preferences(self, count: int, seed: int, split: Split) -> list[Row]:
        rng = Random(f"{seed}-{split}-wrong")
        return [
            _public(row) | {"chosen": _right(row, rng), "rejected": _wrong(row, rng)}
            for row in self._rows(count, seed, split)
        ]

    def _rows(self, count: int, seed: int, split: Split) -> list[Row]:
        return draw_rows(self._row, count, seed, split)

    def _row(self, rng: Random) -> Row:
        while True:
            families = [rng.choice(_FAMILIES) for _ in range(rng.randint(*self.steps))]
            plan = (*map(rng.choice, families), rng.choice(_ENDS))
            tests = [_test(plan, rng) for _ in range(_TESTS)]
            # sorting twice, or counting what was sorted: such prompts would ask for less than they say
            if all(_fails((*plan[:place], *plan[place + 1 :]), tests) for place in range(len(plan) - 1)):
                prompt = f"# {', '.join(step.words for step in plan)}\n"
                return {"prompt": prompt, "tests": tests, "entry_point": "f", "plan": plan}


def _public(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "plan"} | {"answer": _program(row["plan"])}


def _test(plan: _Plan, rng: Random) -> Row:
    numbers = [rng.randint(0, 20) for _ in range(rng.randint(4, 7))]
    return {"args": [numbers], "expected": _result(plan, numbers)}


def _result(plan: _Plan, numbers: Numbers) -> Any:
    for step in plan:
        numbers = step.run(numbers)
    return numbers


def _fails(plan: _Plan, tests: Sequence[Row]) -> bool:
    return any(_result(plan, test["args"][0]) != test["expected"] for test in tests)


def _program(plan: _Plan) -> str:
    lines = [f" x={step.code}\n" for step in plan[:-1]]
    return f"def f(x):\n{''.join(lines)} return {plan[-1].code}"


def _right(row: Row, rng: Random) -> str:
    return _program(row["plan"])


def _wrong(row: Row, rng: Random) -> str:
    """A program that breaks off, one that leaves out a step, or one with another step in the place of one."""
    plan: _Plan = row["plan"]
    while True:
        kind = rng.random()
        if kind < 0.2:
            return _program(plan).rpartition("\n")[0]
        place = rng.randrange(len(plan) - 1)
        other = () if kind < 0.5 else (rng.choice(rng.choice(_FAMILIES)),)
        changed = (*plan[:place], *other, *plan[place + 1 :])
        if _fails(changed, row["tests"]):
            return _program(changed)
