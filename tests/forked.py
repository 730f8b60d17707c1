"""Interpreters that need no seconds for their imports: forked from one process, which has done them."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path

import torch

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(
    ["oneloop.recipes.execute", "oneloop.cli.train", "transformers.models.llama.modeling_llama"]
)


class Forked:
    """What tests ask of `Popen([sys.executable, *arguments], text=True, stdout=PIPE, stderr=PIPE)`.

    Args:
        arguments: `-m MODULE WORDS` or `-c CODE WORDS`.
        environment: is added to this process's.

    The process leads a session of its own.
    """

    def __init__(self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
        mine, theirs = zip(*(FORKS.Pipe(duplex=False) for _ in range(2)), strict=True)
        given = (list(arguments), str(folder), dict(environment or {}))
        self._process = FORKS.Process(target=_interpret, args=(*given, *theirs))
        self._process.start()
        self.pid: int = self._process.pid or 0
        self.stdout, self.stderr = (os.fdopen(os.dup(pipe.fileno()), encoding="utf-8") for pipe in mine)
        for pipe in (*mine, *theirs):
            pipe.close()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float) -> int | None:
        self._process.join(timeout)
        return self.returncode

    def kill(self) -> None:
        self._process.kill()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """What it says until its end, no more than fits into a pipe (64 KiB).

        Raises: TimeoutError where it has not ended by then; it is killed.
        """
        code = self.wait(timeout)
        with self.stdout, self.stderr:
            if code is None:
                self.kill()
                raise TimeoutError(f"not done after {timeout} s: {self.stderr.read()}")
            return self.stdout.read(), self.stderr.read()


def _interpret(arguments, folder, environment, out, said) -> None:
    os.setsid()
    for pipe, number in ((out, 1), (said, 2)):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    os.chdir(folder)
    os.environ.update({"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment})
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    flag, what, *words = arguments
    sys.argv = [flag, *words]
    if flag == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(what, {"__name__": "__main__"})
