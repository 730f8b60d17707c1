"""The reward: programs that a model wrote, graded by the unit tests of their rows."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any

from oneloop.errors import ConfigError, SandboxError
from oneloop.rewards.code.forms import NotGradable, tests_of
from oneloop.rewards.code.program import program
from oneloop.rewards.code.run import outcome
from oneloop.sandbox.limits import Limits
from oneloop.sandbox.tiers import tier

_log = logging.getLogger("oneloop.rewards.code")
_LINE = 200
"""Characters of a log line."""
_REASONS = 100
"""Different ones that are logged, at most."""


@dataclass(frozen=True)
class UnitTests:
    """1 where a program passes every test of its row, else 0; or the share of the tests that it passes.

    The row's column `tests` is a list of `{"input", "output"}`, of `{"args", "kwargs", "expected"}`, Python text with
    asserts, or a list of such texts; calls need the column `entry_point`, the name of a function. None for rows
    whose tests cannot be used, and where the sandbox or the machine fails; the reason is logged once. Whatever the
    program does is a failed test.

    Args:
        share: pay the share of the tests passed.
        seconds: of CPU time for one process; it may last twice as long.
        memory_mb: of address space.
        output_mb: of printed text.
        scratch_mb: of files.
        threads: at once.
        workers: rows that are graded at once; None = one per core.

    Raises: ConfigError where nothing on this machine isolates the programs.
    """

    share: bool = False
    seconds: float = 4.0
    memory_mb: int = 512
    output_mb: int = 8
    scratch_mb: int = 64
    threads: int = 64
    workers: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf:
            raise ConfigError(f"UnitTests(seconds={self.seconds}): wanted more than 0, and an end")
        if self.memory_mb < 64:
            raise ConfigError(f"UnitTests(memory_mb={self.memory_mb}): wanted at least 64, which Python itself takes")
        for name in ("output_mb", "scratch_mb", "threads", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"UnitTests({name}={value}): wanted at least 1")

    def __call__(
        self, completions: Sequence[str], tests: Sequence[Any], entry_point: Sequence[Any] | None = None, **columns: Any
    ) -> list[float | None]:
        tier()  # before any thread: what is missing is said once
        names = [None] * len(completions) if entry_point is None else entry_point
        rows = list(zip(completions, tests, names, strict=True))
        workers = min(self.workers or len(os.sched_getaffinity(0)), len(rows))
        if workers < 2:
            return [self._row(*row) for row in rows]
        with ThreadPoolExecutor(workers, thread_name_prefix="unit-tests") as threads:
            futures = [threads.submit(self._row, *row) for row in rows]
            try:
                return [future.result() for future in futures]
            except BaseException:  # Ctrl-C: nobody waits for the others
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def _row(self, completion: str, tests: Any, entry_point: Any) -> float | None:
        try:
            found = outcome(program(completion), tests_of(tests, entry_point), self._limits, self.share)
        except NotGradable as why:
            return _unscored(f"a row cannot be graded: {why}")
        except (SandboxError, OSError, MemoryError) as error:
            return _unscored(f"a program could not be run: {error}")
        return found.passed / found.tests if self.share else float(found.clean)

    @property
    def isolation(self) -> str:
        """What holds the programs on this machine.

        Raises: ConfigError where nothing does.
        """
        return tier().value

    @property
    def _limits(self) -> Limits:
        return Limits(
            seconds=self.seconds,
            memory_mb=self.memory_mb,
            output_mb=self.output_mb,
            scratch_mb=self.scratch_mb,
            threads=self.threads,
        )


_told: set[str] = set()
_telling = Lock()


def _unscored(reason: str) -> None:
    """No value; say why, each reason once. What comes from the data is escaped and cut."""
    line = f"unit_tests: {reason}".encode("unicode_escape").decode()
    line = line if len(line) <= _LINE else f"{line[: _LINE - 3]}..."
    with _telling:
        new = line not in _told and len(_told) < _REASONS
        _told.add(line) if new else None
    if new:
        _log.warning("%s", line)


unit_tests = UnitTests()
unit_tests_share = UnitTests(share=True)
