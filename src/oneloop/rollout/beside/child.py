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
        self._decoding: Decoding | PlainDecoding | None = None
        self._sampling = Sampling()
        self._asked: dict[int, tuple[int, int]] = {}  # by number in the decoding: who asked, and for which prompt
        self._passes = self._taken = self._begun = 0
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
        if self._decoding is None:
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
                self._engine = Engine(self._model, setup.end_ids, dtype=dtype)
                stack.enter_context(self._engine.reading())
            self._engine.update(message["version"])
            if self._decoding is not None:
                self._decoding.renew(message["version"])
            return
        assert self._engine is not None, "weights come first"
        sampling, prompts = Sampling(**message["sampling"]), message["prompts"]
        if self._decoding is None:
            self._sampling = sampling
        assert sampling == self._sampling, "all that is drawn together is drawn in one way"
        self._asked |= {self._begun + index: (message["begin"], index) for index in range(len(prompts))}
        self._decoding = self._engine.decoding(
            prompts, sampling, message["seeds"], first=self._begun, running=self._decoding
        )
        self._begun += len(prompts)

    def _step(self) -> None:
        """One more token of everything that is on its way."""
        assert self._decoding is not None, "the last message began something"
        self._passes += 1
        for number, completion in self._decoding.step():
            pipes.send(self._answers, {"of": self._asked.pop(number), "completion": asdict(completion)})
        if not self._decoding.left:
            self._decoding = None


def _blank(folder: Path, device: torch.device) -> PreTrainedModel:
    """The model with any weights."""
    with device:
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    return model.eval().requires_grad_(False)
