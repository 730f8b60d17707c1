"""`oneloop train --ranks N`: torchrun on this machine, with the signals and the exit code of a single process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from oneloop.parallel.launch import TOLD
from oneloop.pipes import die_with


def on_this_machine(count: int, arguments: Sequence[str]) -> int:
    """Carry out `oneloop train` in that many processes; returns rank 0's exit code, where torchrun's own is 1.

    A signal goes to rank 0, which stops all after the step. torchrun would leave them half a minute.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    threads = str(max((os.cpu_count() or 1) // count, 1))
    with TemporaryDirectory(prefix="oneloop-") as folder:
        told = Path(folder) / "told"
        process = subprocess.Popen(
            [*command, "-m", "oneloop", "train", *arguments],
            env={"OMP_NUM_THREADS": threads, **os.environ, TOLD: str(told)},
            start_new_session=True,  # Ctrl-C comes here alone
            # torchrun ends its ranks when it is asked to, and is asked when this process ends in whatever way
            preexec_fn=partial(die_with, os.getpid(), signal.SIGTERM),
        )

        def passed_on(signum: int, frame: object) -> None:
            lines = _lines(told)
            with suppress(ProcessLookupError):
                os.kill(int(lines[0]) if lines else process.pid, signum)

        before = {number: signal.signal(number, passed_on) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            code = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        lines = _lines(told)
        return int(lines[1]) if len(lines) > 1 else code


def _lines(told: Path) -> list[str]:
    return told.read_text(encoding="ascii").splitlines() if told.exists() else []
