"""The second process as its parent sees it: messages in order one way, completions as they end the other way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import count
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from safetensors import SafetensorError
from torch import Tensor
from transformers import PretrainedConfig

from oneloop import pipes
from oneloop.errors import EngineError
from oneloop.ports import Begun
from oneloop.rollout.beside.arriving import Arriving
from oneloop.rollout.beside.weights import shared_folder, write
from oneloop.types import Completion, Sampling

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from oneloop.rollout.beside.child import main; main(*map(int, sys.argv[2:]))"
)
TAIL = 2000
"""Characters of its standard error that are shown when it dies."""


class Sampler:
    """A process with a copy of the model, in which the built-in engine runs.

    It reads its messages in order. One that finds completions on their way waits for their end, or with `continues` is
    taken between two tokens of each.

    Args:
        config: of the model.
        state: its weights as they are, by name.
        setup: what `child.Setup` takes.
        taken: told for each message, in order, after how many tokens of the process it was taken.
    """

    def __init__(
        self,
        config: PretrainedConfig,
        state: Callable[[], Mapping[str, Tensor]],
        setup: Mapping[str, Any],
        taken: Callable[[int], None] = lambda passes: None,
    ) -> None:
        self._config, self._state, self._setup, self._taken = config, state, setup, taken
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = Lock()
        self._arriving: dict[int, Arriving] = {}
        self._numbers: Iterator[int] = count()
        self._failure: EngineError | None = None

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        self._folder = shared_folder()
        self._config.save_pretrained(self._folder)
        their_requests, self._requests = os.pipe()
        answers, their_answers = os.pipe()
        theirs = (their_requests, their_answers)
        try:
            with (self._folder / "stderr").open("wb") as errors:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _START, json.dumps(sys.path), *map(str, (os.getpid(), *theirs))],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, pass_fds=theirs,
                    start_new_session=True,  # Ctrl-C is for the trainer
                )  # fmt: skip
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        Thread(target=self._listen, args=(answers, self._process), name="sampler", daemon=True).start()
        self._send({"folder": str(self._folder), **self._setup})

    def update(self, version: int) -> None:
        """Raises: EngineError where the process is gone, or there is no room for the weights."""
        path = self._folder / f"{version}.safetensors"
        try:
            write(self._state(), path)
        except SafetensorError as error:
            raise self._failure or EngineError(
                f"the weights cannot be put at {path} ({error}). Fix: room there"
            ) from None
        self._send({"weights": str(path), "version": version})

    def begin(self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]) -> Begun:
        """Raises: EngineError where the process is gone."""
        arriving, number = Arriving(len(prompts)), next(self._numbers)
        if prompts:
            with self._lock:
                self._arriving[number] = arriving
            self._send({
                "begin": number, "prompts": [list(prompt) for prompt in prompts], "seeds": list(seeds),
                "sampling": asdict(sampling),
            })  # fmt: skip
        return arriving

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            pipes.send(self._requests, message)
        except OSError:
            process = self._process
            raise self._failure or (EngineError(_gone(process, self._folder)) if process else _closed()) from None

    def _listen(self, answers: int, process: subprocess.Popen[bytes]) -> None:
        """In a thread, for as long as the process lives."""
        failure = ""
        with os.fdopen(answers, "rb", 0) as stream:
            for body in pipes.bodies(stream.fileno()):
                message = json.loads(body)
                if "taken" in message:
                    self._taken(message["taken"])
                elif "failure" in message:
                    failure = message["failure"]
                else:
                    self._arrived(message)
        process.wait()
        what = f"the sampler's process failed: {failure}" if failure else _gone(process, self._folder)
        with self._lock:
            self._failure = self._failure or EngineError(f"{what}. --resume goes on from the last checkpoint")
            for arriving in self._arriving.values():
                arriving.failed(self._failure)

    def _arrived(self, message: Mapping[str, Any]) -> None:
        number, index = message["of"]
        completion = Completion.of_words(message["completion"])
        with self._lock:
            self._arriving[number].done(index, completion)
            if self._arriving[number].complete:
                del self._arriving[number]

    def close(self) -> None:
        """Kill it. Whoever waits for a completion hears that the run ended."""
        process, self._process = self._process, None
        if process is None:
            return
        with self._lock:
            self._failure = self._failure or _closed()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        os.close(self._requests)
        process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _closed() -> EngineError:
    return EngineError("the run ended before this was drawn")


def _gone(process: subprocess.Popen[bytes], folder: Path) -> str:
    code = process.wait()
    how = f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"
    try:
        words = (folder / "stderr").read_text(encoding="utf-8", errors="replace").strip()[-TAIL:]
    except OSError:
        words = ""
    return f"the sampler's process ended by {how}" + (f"; its last words:\n{words}\n" if words else "")
