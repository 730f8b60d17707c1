"""What programs and tests may take, how the reward may be called, and what is no fault of a program."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import pytest

from code_rows import Graded, Row
from oneloop.errors import ConfigError, SandboxError
from oneloop.recipes.graders import Graders, form_of
from oneloop.rewards.code import UnitTests, grader, run, unit_tests, unit_tests_share
from oneloop.sandbox import tiers
from oneloop.sandbox.confined import Confined, Exit
from oneloop.sandbox.limits import Limits

ONE = [{"args": [0], "expected": 0}, {"args": [1], "expected": 1}]
SCRIPT = [{"input": "0", "output": "0"}, {"input": "1", "output": "1"}]


def on_zero(statement: str, name: str, share: float) -> tuple[Row, ...]:
    """A program that is right on 1 and does something else on 0; as calls it does not live on."""
    body = "import os, sys, time\ndef f(a):\n    if a == 0:\n        " + statement + "\n    return a\n"
    return (
        Row(f"{name}, calls", body, ONE, 0.0, 0.0, "f"),
        Row(f"{name}, text", body, ["assert f(1) == 1", "assert f(0) == 0", "assert f(1) == 1"], 0.0, 1 / 3),
        Row(f"{name}, script", body + "if __name__ == '__main__':\n    print(f(int(input())))", SCRIPT, 0.0, share),
    )


ROWS = (
    *on_zero("while True: pass", "hangs", 0.5),
    *on_zero("time.sleep(60)", "sleeps", 0.5),
    *on_zero("9 ** 9 ** 9", "hangs in C", 0.5),
    *on_zero("sys.stdout.write('x' * (2 << 20)); sys.stdout.flush(); time.sleep(60)", "prints", 0.5),
    *on_zero("os.kill(os.getpid(), 19); time.sleep(60)", "stops itself", 0.5),
    Row("memory", "def f(a):\n    return a or len(bytes(1 << 30))", [*ONE], 0.0, 0.5, "f"),
    Row(
        "prints in the last call",
        "def f(a):\n    print('x' * (2 << 20), flush=True)\n    return a",
        ONE[:1],
        0.0,
        0.0,
        "f",
    ),
    Row(
        "prints too much beside what is right",
        "import sys\nprint(1)\nsys.stderr.write('x' * (2 << 20))",
        [{"input": "", "output": "1"}],
        0.0,
    ),
    Row("tests that hang", "def f(a):\n    return a", "assert f(1)\nwhile True: pass\nassert f(1)", 0.0, 0.5),
    Row("tests that exit", "def f(a):\n    return a", "assert f(1)\nimport os\nos._exit(0)\nassert f(1)", 0.0, 0.5),
    Row(
        "no end of tests",
        "def f(a):\n    return a",
        "import itertools\nassert f(1)\nfor _ in itertools.count():\n    f(1)",
        0.0,
        1.0,
    ),
)
limited = Graded(ROWS, UnitTests(seconds=0.5, output_mb=1, memory_mb=256, workers=16))


@pytest.mark.parametrize("share", [False, True])
def test_limits(share: bool) -> None:
    began = monotonic()
    values = limited.of(share)
    assert values == {row.name: row.of_share if share else row.value for row in ROWS}
    assert monotonic() - began < 60


class Busy(Confined):
    """A run that is right, and took three quarters of a second."""

    def __init__(self) -> None:
        self.channel, self._there = socket.socketpair()

    def wait(self, deadline: float) -> Exit:
        return Exit(status=0, signal=None, cpu_seconds=0.75, limit_hit=None)

    def stdout(self) -> bytes:
        return b"1"

    def close(self) -> None:
        self.channel.close()
        self._there.close()


def test_a_share_has_four_times_the_seconds_for_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    given = list[float]()

    def start(role: str, limits: Limits, *, stdin: bytes) -> Busy:
        given.append(limits.seconds)
        return Busy()

    monkeypatch.setattr(run, "start", start)
    tests = [[{"input": str(number), "output": "1"} for number in range(12)]]
    assert UnitTests(seconds=1, share=True)(["print(1)"], tests) == [0.5]
    assert given == [1, 1, 1, 1, 1, 0.25]
    given.clear()
    assert UnitTests(seconds=1)(["print(1)"], tests) == [1.0]
    assert given == [1] * 12


SUM = "def f(a, b):\n    return a + b"
TESTS = [[{"args": [1, 2], "expected": 3}], "assert f(1, 2) == 3", "assert f(1, 2) == 4"]


def graded() -> list[float | None]:
    return unit_tests([SUM] * 3, TESTS, ["f"] * 3)


def test_from_several_threads_and_a_running_loop() -> None:
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda _: graded(), range(4))) == [[1.0, 1.0, 0.0]] * 4

    async def inside() -> list[float | None]:
        return graded()

    assert asyncio.run(inside()) == [1.0, 1.0, 0.0]
    assert unit_tests(completions=[SUM], tests=[TESTS[1]], answer=["x"]) == [1.0]


def test_what_is_there_before_is_there_after() -> None:
    def seen() -> Any:
        return (
            os.umask(os.umask(0o022)),
            os.nice(0),
            os.sched_getscheduler(0),
            sorted(os.listdir("/proc/self/fd")),
            signal.getsignal(signal.SIGINT),
            signal.getsignal(signal.SIGCHLD),
            dict(os.environ),
            os.getcwd(),
        )

    graded()
    before = seen()
    assert graded() == [1.0, 1.0, 0.0] and seen() == before


def test_the_command_line_s_names() -> None:
    graders = Graders()
    names = ["oneloop.rewards.code:unit_tests", "unit_tests_share?seconds=2&workers=1"]
    whole, share = graders.named(names, "rows.jsonl")
    assert (whole.name, share.name) == ("unit_tests", "unit_tests_share")
    assert whole.function == UnitTests() and share.function == UnitTests(share=True, seconds=2.0, workers=1)
    assert whole.grader.signature.columns == ("tests",)
    assert form_of(whole) == f"reward unit_tests: programs are isolated by {tiers.tier()}"
    assert unit_tests_share == UnitTests(share=True)
    with pytest.raises(ConfigError, match="no setting 'second'"):
        graders.named(["oneloop.rewards.code:unit_tests?second=2"], "rows.jsonl")


def test_a_failure_of_the_machine_is_no_value(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*given: Any, **options: Any) -> Any:
        raise SandboxError("no more processes\x1b[31m")

    monkeypatch.setattr(grader, "_told", set())
    monkeypatch.setattr(run, "start", fails)
    with caplog.at_level(logging.WARNING):
        assert graded() == [None] * 3
    assert caplog.messages == ["unit_tests: a program could not be run: no more processes\\x1b[31m"]


def test_where_nothing_isolates_the_first_call_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses() -> Any:
        raise ConfigError("no namespaces, no Landlock")

    monkeypatch.setattr(grader, "tier", refuses)
    with pytest.raises(ConfigError, match="no Landlock"):
        graded()


@pytest.mark.parametrize(
    "tests",
    [
        [{"args": [], "expected": 1}],
        [{"input": "", "output": ""}],
        "assert f() == 1",
        "import time\ntime.sleep(9)\nassert f()",
    ],
)
def test_a_starter_that_dies_is_no_value_and_replaced(tests: Any) -> None:
    graded()
    program = "def f():\n    import time\n    time.sleep(9)\nif __name__ == '__main__':\n    f()"
    with ThreadPoolExecutor(1) as threads:
        value = threads.submit(unit_tests, [program], [tests], ["f"])
        _kill_the_starter(lambda: value.running())
        assert value.result() == [None]
    # who asks while it dies has no value either, and never a wrong one
    assert all(value in (None, right) for value, right in zip(graded(), [1.0, 1.0, 0.0], strict=True))
    assert graded() == [1.0, 1.0, 0.0]


def _kill_the_starter(running: Callable[[], bool]) -> None:
    from time import sleep

    sleep(0.3)
    assert running()
    os.kill(tiers.starter()._process.pid, signal.SIGKILL)


def test_nothing_of_a_program_is_logged(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    program = "import sys\nprint('SECRET', file=sys.stderr)\ndef f():\n    raise ValueError('SECRET')\nprint('SECRET')"
    with caplog.at_level(logging.DEBUG):
        assert (
            unit_tests(
                [program] * 3, [[{"args": [], "expected": 1}], "assert f()", [{"input": "", "output": ""}]], ["f"] * 3
            )
            == [0.0] * 3
        )
    printed = capfd.readouterr()
    assert "SECRET" not in caplog.text + printed.out + printed.err


def test_nothing_of_oneloop_is_seen_by_a_program() -> None:
    program = "import sys\ntry:\n    import oneloop\nexcept ImportError:\n    print('oneloop' in ' '.join(sys.modules))"
    assert unit_tests([program], [[{"input": "", "output": "False"}]]) == [1.0]
