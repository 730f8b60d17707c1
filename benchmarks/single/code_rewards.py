"""Gradings of the code reward: `python benchmarks/single/code_rewards.py [--gradings 2000]`.

How many a second with every core, how long one takes that has the machine to itself (the program itself needs next to
nothing, so that is what isolation and judging cost), and what is left of all of them. Prints a JSON line for each form
of tests: half of the programs are right, a tenth try something that they may not.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from time import perf_counter
from typing import Any

from oneloop.rewards.code import UnitTests
from oneloop.sandbox.tiers import close, tier

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "rewards" / "attacks"))
from leftovers import adopt_orphans, left, own_temporaries, state

RIGHT = "def f(a, b):\n    return a + b\nif __name__ == '__main__':\n    print(f(*map(int, input().split())))\n"
WRONG = RIGHT.replace("a + b", "a - b")
SLY = "import os\nos.fork()\n"
PROGRAMS = (*[RIGHT] * 5, *[WRONG] * 4, SLY)
FORMS: dict[str, Any] = {
    "streams": [{"input": "1 2\n", "output": "3\n"}],
    "calls": [{"args": [1, 2], "expected": 3}, {"args": [5, 7], "expected": 12}],
    "asserts": ["assert f(1, 2) == 3", "assert f(5, 7) == 12"],
}
ALONE = 200
"""Gradings one after the other."""


def main() -> None:
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gradings", type=int, default=2000, help="of each form")
    count = parser.parse_args().gradings
    adopt_orphans()
    close()
    with own_temporaries():
        before = state()
        for form, tests in FORMS.items():
            print(json.dumps({"form": form, "tier": str(tier()), **measured(tests, count)}), flush=True)
        close()
        print(json.dumps({"gradings": count * len(FORMS), "left": left(before)}))


def measured(tests: Any, count: int) -> dict[str, Any]:
    alone = sorted(seconds_of_one(tests) for _ in range(min(ALONE, count)))
    programs = [PROGRAMS[number % len(PROGRAMS)] for number in range(count)]
    begin = perf_counter()
    values = UnitTests()(programs, [tests] * count, ["f"] * count)
    seconds = perf_counter() - begin
    assert values == [float(program is RIGHT) for program in programs]
    return {
        "gradings_a_second": round(count / seconds, 1),
        "ms_median": round(1000 * alone[len(alone) // 2], 1),
        "ms_p99": round(1000 * alone[int(len(alone) * 0.99)], 1),
    }


def seconds_of_one(tests: Any) -> float:
    begin = perf_counter()
    [value] = UnitTests(workers=1)([RIGHT], [tests], ["f"])
    assert value == 1.0
    return perf_counter() - begin


if __name__ == "__main__":
    main()
