"""Small changes to the source that a test must notice, applied one at a time: `make mutants`.

Each runs the tests named beside it in `list.toml`, over a copy of `src`. Killed: a test fails that passes without the
change. Tests that are not done in time say nothing, and count as an error.

What a test process needs to begin is loaded once, and each mutant gets a fork of that. Shapes and types are checked
only where a mutant survives without: they are most of the time, and what is killed by its results alone is killed.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from queue import SimpleQueue
from signal import SIGKILL
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, Literal, NamedTuple

ROOT = Path(__file__).parents[2]
WANTED = 0.9
UNCHECKED = "ONELOOP_TESTS_UNCHECKED"
"""As `tests/checked.py` has it."""
SET = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
LEAVES = 5.0
"""Seconds in which a process whose tests are done may put away what it has."""
LOADED = (
    "torch", "transformers", "transformers.models.llama.modeling_llama", "pyarrow.parquet", "tyro", "jaxtyping",
    "beartype", "hypothesis", "pytest",
)  # fmt: skip
"""Modules that most tests need, and that none of them changes."""
OPTIONS = ["-qp", "no:cacheprovider", "--no-header", "--tb=line", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
"""Of pytest. It would like to rewrite asserts of plugins that are loaded."""
FORKED = get_context("forkserver")
FORKED.set_forkserver_preload(list(LOADED))
Outcome = Literal["killed", "survived", "error"]


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change of one file."""

    room: str
    name: str
    """What goes wrong, in words."""
    file: str
    """Below src/oneloop."""
    old: str
    new: str
    tests: tuple[str, ...]
    """Below tests/."""
    survives: str = ""
    """Why no test can notice it; "" where one must."""

    def fault(self, package: Path) -> str:
        """Why it cannot be applied to `package`; empty if it can."""
        file = package / self.file
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        if (found := text.count(self.old)) != 1:
            return f"{self.file}: {self.old!r} is there {found} times; wanted once"
        try:
            ast.parse(text.replace(self.old, self.new))
        except SyntaxError as error:
            return f"{self.file}: would be no Python any more: {error}"
        return f"{self.file}: nothing would change" if self.old == self.new else ""

    @contextmanager
    def applied(self, package: Path) -> Iterator[None]:
        file = package / self.file
        before = file.read_text(encoding="utf-8")
        _write(file, before.replace(self.old, self.new))
        try:
            yield
        finally:
            _write(file, before)


def _write(file: Path, text: str) -> None:
    """A source file, without what Python had compiled of it: two texts of one second look alike."""
    file.write_text(text, encoding="utf-8")
    for compiled in file.parent.glob(f"__pycache__/{file.stem}.*"):
        compiled.unlink()


class Tested(NamedTuple):
    """What became of tests."""

    code: int | None
    """Of pytest; None: it did not come to its end."""
    fault: str
    """Why these tests say nothing; "" where they passed or failed."""
    failed: tuple[str, ...]
    """Tests, as pytest names them."""
    said: str


class Found(NamedTuple):
    """What became of a mutant."""

    mutant: Mutant
    end: Outcome
    detail: str = ""
    killer: str = ""
    """A test that failed."""
    checked: bool = False
    """Whether shapes and types were checked in it."""


def mutants() -> list[Mutant]:
    table = tomllib.loads(Path(__file__).with_name("list.toml").read_text(encoding="utf-8"))
    return [Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in table["mutant"]]


@contextmanager
def source() -> Iterator[Path]:
    """A copy of `src` to change, with what Python has compiled of it."""
    with TemporaryDirectory(prefix="mutant-") as folder:
        yield Path(shutil.copytree(ROOT / "src", Path(folder) / "src"))


def tested(copy: Path, tests: Sequence[str], timeout: float, *, checked: bool, all_of_them: bool = False) -> Tested:
    """Tests over that copy of `src`, up to the first that fails or all of them."""
    receiver, sender = FORKED.Pipe(duplex=False)
    output = copy.with_name("output")
    options = OPTIONS if all_of_them else [*OPTIONS, "-x"]
    process = FORKED.Process(target=_pytest, args=(copy, [*options, *tests], output, sender, checked))
    process.start()
    sender.close()
    code, failed, late = None, (), not receiver.poll(timeout)
    fault = f"no answer in {timeout:g} seconds: name fewer tests"
    if not late:
        try:
            code, failed = receiver.recv()
            fault = "" if code in (0, 1) else f"pytest ended with {code}"
        except EOFError:
            fault = "the process of the tests ended without an answer"
    process.join(0 if late else LEAVES)
    with suppress(ProcessLookupError):
        os.killpg(process.pid or 0, SIGKILL)
    process.join()
    return Tested(code, fault, failed, output.read_text(errors="replace") if output.exists() else "")


def _pytest(copy: Path, arguments: Sequence[str], output: Path, sender: Any, checked: bool) -> None:
    """In a process of its own, and a group that ends with it."""
    os.setsid()
    told = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(told, 1)
    os.dup2(told, 2)
    os.chdir(ROOT)
    os.environ |= {"PYTHONPATH": str(copy)} | ({} if checked else {UNCHECKED: "1"})
    sys.path.insert(0, str(copy))
    import pytest

    failures = Failures()
    code = int(pytest.main(list(arguments), plugins=[failures]))
    import oneloop

    if not str(oneloop.__file__).startswith(str(copy)):
        raise RuntimeError(f"{oneloop.__file__} was tested, and not the copy in {copy}")
    sys.stdout.flush()
    sender.send((code, tuple(failures.tests)))


class Failures:
    """Plugin of pytest: which tests failed."""

    def __init__(self) -> None:
        self.tests: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.tests.append(report.nodeid)


def outcome(mutant: Mutant, copy: Path, timeout: float) -> Found:
    tests = [f"tests/{test}" for test in mutant.tests]
    if fault := mutant.fault(copy / "oneloop"):
        return Found(mutant, "error", fault)
    with mutant.applied(copy / "oneloop"):
        for checked in (False, True):
            code, fault, failed, said = tested(copy, tests, timeout, checked=checked)
            if code == 1:
                return Found(mutant, "killed", said, failed[0], checked)
            if fault:
                return Found(mutant, "error", f"{fault}: {said[-500:]}")
    return Found(mutant, "survived")


def confirmed(found: Sequence[Found], jobs: int, timeout: float) -> list[Found]:
    """The same, but an error where what killed a mutant fails without it too."""
    guilty: set[tuple[str, bool]] = set()
    with source() as copy, ThreadPoolExecutor(jobs) as pool:
        for checked in (False, True):
            tests = sorted({one.killer for one in found if one.end == "killed" and one.checked is checked})
            piles = [pile for first in range(jobs) if (pile := tests[first::jobs])]
            test = partial(tested, copy, timeout=timeout * 10, checked=checked, all_of_them=True)
            for pile, (_, fault, failed, said) in zip(piles, pool.map(test, piles), strict=True):
                if fault:
                    print(f"without a change: {fault}: {said[-1000:]}")
                guilty |= {(name, checked) for name in (pile if fault else failed)}
    return [
        one._replace(end="error", detail=f"{one.killer} fails without the change")
        if (one.killer, one.checked) in guilty
        else one
        for one in found
    ]


def report(found: Sequence[Found]) -> bool:
    """Print the score of each room and what is left; whether it is enough."""
    print(f"\n{'room':<14}{'killed':>8}{'of':>6}{'share':>8}")
    ends = [(one.mutant.room, one.end == "killed") for one in found]
    for room in (*dict.fromkeys(one.mutant.room for one in found), "all"):
        kills = [killed for of, killed in ends if room in (of, "all")]
        print(f"{room:<14}{sum(kills):>8}{len(kills):>6}{sum(kills) / len(kills):>8.0%}")
    for line in left(found):
        print(line)
    share = sum(killed for _, killed in ends) / len(ends)
    return share >= WANTED and not any(one.end == "error" for one in found)


def left(found: Iterable[Found]) -> Iterator[str]:
    """A line for each that was not killed, and for reasons that do not hold."""
    for mutant, end, detail, killer, _ in found:
        if end == "error":
            yield f"error: {mutant.room}: {mutant.name} ({mutant.file}): {detail}"
        elif end == "survived":
            yield f"survived: {mutant.room}: {mutant.name} ({mutant.file}): {mutant.survives or 'NO REASON IS GIVEN'}"
        elif mutant.survives:
            yield f"killed by {killer}, though a reason is given why it survives: {mutant.room}: {mutant.name}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--room", nargs="*", default=[], help="only these rooms")
    parser.add_argument("--name", default="", help="only names that contain this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for the tests of one mutant")
    options = parser.parse_args()
    chosen = [m for m in mutants() if options.name in m.name and (not options.room or m.room in options.room)]
    if not chosen:
        parser.error("no mutant is called that")
    os.environ |= SET
    begin = monotonic()

    def one(mutant: Mutant) -> Found:
        copy = copies.get()
        try:
            found = outcome(mutant, copy, options.timeout)
        finally:
            copies.put(copy)
        print(f"{found.end:<9}{mutant.room}: {mutant.name}", flush=True)
        return found

    with ExitStack() as stack, ThreadPoolExecutor(options.jobs) as pool:
        copies = SimpleQueue[Path]()
        for _ in range(options.jobs):
            copies.put(stack.enter_context(source()))
        found = list(pool.map(one, chosen))
    enough = report(confirmed(found, options.jobs, options.timeout))
    print(f"{monotonic() - begin:.0f} s")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
