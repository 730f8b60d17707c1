"""Small changes to the source that a test must notice, applied one at a time: `make mutants`.

Each runs the tests named beside it in `list.toml`, over a copy of `src`. Killed: a test fails. Tests that are
not done in time say nothing, and count as an error.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

ROOT = Path(__file__).parents[2]
WANTED = 0.9
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

    def fault(self, package: Path) -> str:
        """Why it cannot be applied to `package`; empty if it can."""
        file = package / self.file
        found = file.read_text(encoding="utf-8").count(self.old) if file.is_file() else 0
        if found != 1:
            return f"{self.file}: {self.old!r} is there {found} times; wanted once"
        return f"{self.file}: nothing would change" if self.old == self.new else ""

    def apply(self, package: Path) -> None:
        file = package / self.file
        file.write_text(file.read_text(encoding="utf-8").replace(self.old, self.new), encoding="utf-8")


def mutants() -> list[Mutant]:
    table = tomllib.loads(Path(__file__).with_name("list.toml").read_text(encoding="utf-8"))
    return [Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in table["mutant"]]


@contextmanager
def source() -> Iterator[Path]:
    """A copy of `src` to change."""
    with TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder) / "src"
        shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
        yield copy


def python(copy: Path, arguments: Sequence[str], timeout: float | None = None) -> tuple[int | None, str]:
    """Exit code and output of Python over that copy; None when it was stopped."""
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout + done.stderr


def tested(copy: Path, tests: Sequence[str], timeout: float) -> tuple[int | None, str]:
    options = ("-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=line")
    return python(copy, ["-m", "pytest", *options, *(f"tests/{test}" for test in tests)], timeout)


def outcome(mutant: Mutant, timeout: float) -> tuple[Outcome, str]:
    with source() as copy:
        if fault := mutant.fault(copy / "oneloop"):
            return "error", fault
        mutant.apply(copy / "oneloop")
        code, output = tested(copy, mutant.tests, timeout)
    if code is None:
        return "error", f"no answer in {timeout:g} seconds: name fewer tests"
    if code not in (0, 1):
        return "error", f"pytest ended with {code}: {output[-500:]}"
    return ("killed" if code else "survived"), output


def baseline(chosen: Sequence[Mutant], jobs: int, timeout: float) -> list[str]:
    """What is wrong before anything is changed."""
    with source() as copy:
        where = python(copy, ["-c", "import oneloop; print(oneloop.__file__)"])[1].strip()
        print(f"oneloop is {where}", flush=True)
        if not where.startswith(str(copy)):
            return ["the copy of src is not what Python imports"]
        tests = sorted({test for mutant in chosen for test in mutant.tests})
        piles = [pile for first in range(jobs) if (pile := tests[first::jobs])]
        with ThreadPoolExecutor(jobs) as pool:
            found = list(pool.map(lambda pile: tested(copy, pile, timeout * len(pile)), piles))
    return [f"tests fail without a change (pytest: {code}): {output[-1000:]}" for code, output in found if code != 0]


def report(found: Sequence[tuple[Mutant, Outcome, str]]) -> bool:
    """Print the score of each room and what is left; whether it is enough."""
    print(f"\n{'room':<14}{'killed':>8}{'of':>6}{'share':>8}")
    ends = [(mutant.room, end == "killed") for mutant, end, _ in found]
    for room in (*dict.fromkeys(mutant.room for mutant, _, _ in found), "all"):
        kills = [killed for of, killed in ends if room in (of, "all")]
        print(f"{room:<14}{sum(kills):>8}{len(kills):>6}{sum(kills) / len(kills):>8.0%}")
    for mutant, end, detail in found:
        if end in ("survived", "error"):
            print(f"{end}: {mutant.room}: {mutant.name} ({mutant.file}){': ' + detail if end == 'error' else ''}")
    share = sum(killed for _, killed in ends) / len(ends)
    return share >= WANTED and not any(end == "error" for _, end, _ in found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--room", nargs="*", default=[], help="only these rooms")
    parser.add_argument("--name", default="", help="only names that contain this")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for the tests of one mutant")
    options = parser.parse_args()
    chosen = [m for m in mutants() if options.name in m.name and (not options.room or m.room in options.room)]
    if not chosen:
        parser.error("no mutant is called that")
    if faults := baseline(chosen, options.jobs, options.timeout):
        print("\n".join(faults))
        return 1

    def one(mutant: Mutant) -> tuple[Mutant, Outcome, str]:
        end, detail = outcome(mutant, options.timeout)
        print(f"{end:<9}{mutant.room}: {mutant.name}", flush=True)
        return mutant, end, detail

    with ThreadPoolExecutor(options.jobs) as pool:
        found = list(pool.map(one, chosen))
    return 0 if report(found) else 1


if __name__ == "__main__":
    sys.exit(main())
