"""A save that is killed, or refused by the disk, at any of its system calls; and bits that turn: part of `make chaos`.

A small PPO run with a critic of its own goes on until its second checkpoint is due. From there a child is forked for
each trial: it saves with strace on it, which ends it at the k-th call of a kind (SIGKILL), or answers that call with an
error. Afterwards the folder is tidied as the next start would, and the newest checkpoint that verifies must be the old
or the new one, byte for byte. After an error the child must go on, say what happened, leave nothing half written, and
save at its next try. At last single bits of a whole checkpoint are turned and its files are cut, each of which
must be found.

    python tests/chaos/disk.py                 every call, and 10,000 damages: minutes
    python tests/chaos/disk.py --share 12 --flips 300
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from oneloop.config import default_run
from oneloop.errors import CheckpointError
from oneloop.recipes import execute as recipe
from oneloop.recipes.resume import needed
from oneloop.recipes.saver import Saver
from oneloop.recipes.watched import Silent
from oneloop.record.atomic import MANIFEST, clean_temporaries, verify
from oneloop.record.checkpoints import checkpoints

TRACED = (
    "openat", "mkdir", "write", "pwrite64", "writev", "fsync", "fdatasync", "rename", "unlink", "unlinkat", "rmdir",
    "linkat", "ftruncate", "fallocate", "close", "chmod", "fchmod",
)  # fmt: skip
WRITING = ("openat", "mkdir", "write", "pwrite64", "writev", "fsync", "fdatasync", "rename", "ftruncate", "fallocate")
"""Those that a full or failing disk answers with an error."""
ERRORS = ("ENOSPC", "EIO")
OLD, NEW = 1, 2
SAVED, TOLD, BROKEN = 0, 3, 4
"""What a child ends with: saved at once; said what was refused, and saved at its next try; anything else."""
PR_SET_PTRACER, ANYBODY = 0x59616D61, ctypes.c_ulong(-1)


class Call(NamedTuple):
    """The k-th call of a kind."""

    name: str
    number: int
    writes: bool
    """Whether it changes something in the run folder."""


class Laboratory(Saver):
    """Stops at the second checkpoint, and tries what can happen to it. `findings` are what was seen."""

    share, flips, seed = 1, 0, 0
    findings: Counter[str] = Counter()  # noqa: RUF012

    def __call__(self, step: int, algorithm: Any) -> None:
        if step + 1 < NEW:
            return super().__call__(step, algorithm)
        self._remember(step + 1, algorithm)
        with tempfile.TemporaryDirectory() as aside:
            self._whole = Path(aside) / "whole"
            shutil.copytree(self._folder.path, self._whole)
            self._trials(Path(aside) / "trace")
        raise KeyboardInterrupt

    def _trials(self, trace: Path) -> None:
        assert self._trial(trace, ()) == SAVED
        calls = list(self._calls(trace.read_text(errors="replace")))
        self._good = {number: _content(path) for number, path in checkpoints(self._folder.path)}
        assert sorted(self._good) == [OLD, NEW]
        rng = Random(self.seed)
        trials = [(call, f"inject={call.name}:signal=SIGKILL:when={call.number}") for call in calls]
        for call in calls:
            if call.writes and call.name in WRITING:
                trials += [(call, f"inject={call.name}:error={error}:when={call.number}") for error in ERRORS]
        for call, injection in rng.sample(trials, -(-len(trials) // self.share)):
            self._restore()
            end = self._trial(trace, ("-e", injection))
            self._judge(call, injection, end)
        self._turn_bits(rng)

    def _calls(self, text: str) -> Iterator[Call]:
        seen: Counter[str] = Counter()
        for line in text.splitlines():
            if found := re.match(r"(?:\d+ +)?(\w+)\((.*)", line):
                seen[found[1]] += 1
                name, rest = found.groups()
                creates = name != "openat" or "O_CREAT" in rest
                yield Call(name, seen[name], creates and str(self._folder.path) in rest)

    def _restore(self) -> None:
        """The folder as it was before the save; the files that are open in this process keep their names."""
        shutil.rmtree(self._folder.path / "checkpoints")
        shutil.copytree(self._whole / "checkpoints", self._folder.path / "checkpoints")
        for leftover in self._folder.path.glob(".tmp-*"):
            leftover.unlink()
        for name in ("run.json", "events.jsonl"):
            # the same file: the child compares it with the one that it has open
            with (self._folder.path / name).open("r+b") as file:
                file.truncate()
                file.write((self._whole / name).read_bytes())

    def _trial(self, trace: Path, injection: tuple[str, ...]) -> int:
        """Save in a child with strace on it; returns its exit code, or minus the signal that ended it."""
        waits, goes = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(goes)
            os._exit(self._child(waits))
        os.close(waits)
        command = ["strace", "-f", "-y", "-qq", "-e", f"trace={','.join(TRACED)}", *injection, "-o", str(trace)]
        with subprocess.Popen([*command, "-p", str(child)], stderr=subprocess.PIPE, text=True) as strace:
            while f"TracerPid:\t{strace.pid}" not in Path(f"/proc/{child}/status").read_text():
                assert strace.poll() is None, strace.stderr.read()  # pyright: ignore[reportOptionalMemberAccess]
            os.write(goes, b"1")
            os.close(goes)
            _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)

    def _child(self, waits: int) -> int:
        ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANYBODY, 0, 0, 0)  # strace is no parent of this process
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.read(waits, 1)
        try:
            self._try(last=False)
            if not self._refused:
                return SAVED
            left = [path.name for path in (self._folder.path / "checkpoints").iterdir()]
            assert not any(name.startswith(".") for name in left), left
            self._try(last=False)
            return BROKEN if self._refused else TOLD
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            return BROKEN

    def _judge(self, call: Call, injection: str, end: int) -> None:
        killed = "SIGKILL" in injection
        assert end == -signal.SIGKILL if killed else end in (SAVED, TOLD), f"{injection}: the process ended with {end}"
        out = self._folder.path
        clean_temporaries(out)
        left = [path for path in out.rglob(".*") if path.name not in (".lock", ".reserve")]
        assert not left, f"{injection} leaves {left}"
        number = next((number for number, path in reversed(checkpoints(out)) if self._verifies(path)), None)
        assert number is not None, f"{injection}: no checkpoint is left"
        assert _content(dict(checkpoints(out))[number]) == self._good[number] or not killed, f"{injection}: other bytes"
        assert killed or number == NEW, f"{injection}: the next try saved nothing"
        what = "killed" if killed else "refused" if end == TOLD else "refused, and not needed"
        self.findings[f"{what}: {'old' if number == OLD else 'new'}"] += 1

    def _verifies(self, path: Path) -> bool:
        try:
            verify(path, needed(self._run, recipe.resolved(self._run)))
        except CheckpointError:
            return False
        return True

    def _turn_bits(self, rng: Random) -> None:
        """Damage one file of the old checkpoint after the other, and put it back."""
        folder = self._whole / "checkpoints" / f"step_{OLD:06d}"
        verify(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        for number in range(self.flips):
            file = files[number % len(files)]
            whole = file.read_bytes()
            damaged = bytearray(whole)
            if rng.random() < 0.2:
                del damaged[rng.randrange(len(whole)) :]
            else:
                damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
            file.write_bytes(damaged)
            try:
                verify(folder)
            except CheckpointError as error:
                assert file.name in str(error) or file.name == MANIFEST, error
                self.findings["damages found"] += 1
            else:
                raise AssertionError(f"damage {number} of {file} goes unnoticed")
            file.write_bytes(whole)
        verify(folder)


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def attempt(folder: Path, share: int, flips: int, seed: int) -> Counter[str]:
    """What was seen, by kind. Raises: AssertionError for a checkpoint that is lost or a damage that goes unnoticed."""
    lesson = replace(default_run("sft"), data="task:addition", data_size=8, eval_size=4, prompts_per_step=2)
    recipe.execute(replace(lesson, steps=1, out=str(folder / "lesson")), Silent())
    start = str(folder / "lesson" / "final")
    run = replace(
        default_run("ppo"), model=start, data="task:addition", data_size=8, eval_size=4, prompts_per_step=4,
        minibatch=2, max_new_tokens=4, steps=4, save_every=1, critic="separate", keep_checkpoints=2,
        out=str(folder / "run"), trace=False,
    )  # fmt: skip
    Laboratory.share, Laboratory.flips, Laboratory.seed = share, flips, seed
    Laboratory.findings = Counter()
    recipe.Saver = Laboratory
    try:
        recipe.execute(run, Silent())
    except KeyboardInterrupt:
        pass
    finally:
        recipe.Saver = Saver
    return Laboratory.findings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=int, default=1, help="try one in so many")
    parser.add_argument("--flips", type=int, default=10_000, help="damages of a whole checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if shutil.which("strace") is None:
        sys.exit("strace is missing: apt-get install strace")
    with tempfile.TemporaryDirectory() as folder:
        findings = attempt(Path(folder).resolve(), options.share, options.flips, options.seed)
    for what, count in sorted(findings.items()):
        print(f"{count:6,} {what}")


if __name__ == "__main__":
    main()
