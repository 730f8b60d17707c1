"""The second process: a copy of the model that draws what it is asked for, and takes new weights in their order."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from oneloop import pipes
from oneloop.rollout.beside.weights import read
from oneloop.rollout.decoding import Decoding
from oneloop.rollout.engine import Engine
from oneloop.rollout.plain import PlainDecoding
from oneloop.types import Sampling


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How the process is to work.

    Args:
        folder: with the model's configuration, in memory.
        dtype: as the trainer's, by name.
        threads: of a pass on the CPU: as many as the trainer's, for equal bits.
        continues: messages are taken between two tokens; else when nothing is on its way.
        script: of a recorded process, after how many tokens each message was taken: the same is done again.
    """

    folder: str
    end_ids: Sequence[int]
    dtype: str
    device: str
    threads: int
    cache_bytes: int | None = None
    continues: bool = False
    script: Sequence[int] | None = None


def main(parent: int, requests: int, answers: int) -> None:
    """Work until the parent is gone.

    Args:
        parent: process id.
        requests, answers: file descriptors.
    """
    inbox: SimpleQueue[dict[str, Any]] = SimpleQueue()
    if not pipes.die_with(parent, signal.SIGTERM):
        return
    setup = Setup(**json.loads(next(pipes.bodies(requests))))
    Thread(target=_listen, args=(requests, inbox, setup.folder), daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: _end(setup.folder))
    try:
        Drawer(setup, inbox, answers).run()
    except Exception as error:
        pipes.send(answers, {"failure": f"{type(error).__name__}: {error}"})
        raise


def _listen(requests: int, inbox: SimpleQueue[dict[str, Any]], folder: str) -> None:
    for body in pipes.bodies(requests):
        inbox.put(json.loads(body))
    _end(folder)


def _end(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


class Drawer:
    """Takes messages, and draws one token after another of what they ask for."""

    def __init__(self, setup: Setup, inbox: SimpleQueue[dict[str, Any]], answers: int) -> None:
        self._setup, self._inbox, self._answers = setup, inbox, answers
        self._script = setup.script or ()
        self._running: dict[int, Decoding | PlainDecoding] = {}
        self._passes = self._taken = 0
        torch.set_num_threads(setup.threads)
        self._model = _blank(Path(setup.folder), torch.device(setup.device))
        self._engine: Engine | None = None

    def run(self) -> None:
        with ExitStack() as stack:
            while True:
                while (message := self._next()) is not None:
                    pipes.send(self._answers, {"taken": self._passes})
                    self._taken += 1
                    self._take(message, stack)
                self._step()

    def _next(self) -> dict[str, Any] | None:
        """The next message, if it is to be taken now."""
        if not self._running:
            return self._inbox.get()
        if self._taken < len(self._script):
            return self._inbox.get() if self._script[self._taken] <= self._passes else None
        if not self._setup.continues:
            return None
        try:
            return self._inbox.get_nowait()
        except Empty:
            return None

    def _take(self, message: dict[str, Any], stack: ExitStack) -> None:
        if "weights" in message:
            read(Path(message["weights"]), self._model)
            if self._engine is None:  # its trials are made on the weights it will have
                setup, dtype = self._setup, getattr(torch, self._setup.dtype)
                self._engine = Engine(self._model, setup.end_ids, dtype=dtype, cache_bytes=setup.cache_bytes)
                stack.enter_context(self._engine.reading())
            self._engine.update(message["version"])
            for decoding in self._running.values():
                decoding.renew(message["version"])
            return
        assert self._engine is not None, "weights come first"
        sampling = Sampling(**message["sampling"])
        self._running[message["begin"]] = self._engine.decoding(message["prompts"], sampling, message["seeds"])

    def _step(self) -> None:
        """One more token of everything that is on its way."""
        self._passes += 1
        for number, decoding in list(self._running.items()):
            for index, completion in decoding.step():
                pipes.send(self._answers, {"of": [number, index], "completion": asdict(completion)})
            if not decoding.left:
                del self._running[number]


def _blank(folder: Path, device: torch.device) -> PreTrainedModel:
    """The model with any weights."""
    with device:
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    return model.eval().requires_grad_(False)
