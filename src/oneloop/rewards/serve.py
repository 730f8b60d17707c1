"""The process in which a user's reward function runs: told its name, asked for grades, killed when it hangs.

It and its parent send each other JSON: nothing that either says can run anything in the other. Neither torch nor
transformers is imported here; the function's own file may.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from oneloop.errors import ConfigError
from oneloop.pipes import bodies, die_with, send
from oneloop.rewards.blame import described
from oneloop.rewards.grading import Asked, Grade, grade
from oneloop.rewards.load import NamedReward, load_reward


def main(spec: str, parent: int, requests: int, answers: int, traces: int, memory: int) -> None:
    """Load the function, say what it takes, and answer until the parent is gone.

    Args:
        parent: process id.
        requests, answers, traces: file descriptors. Standard output stays the function's own.
        memory: MiB that this process may map; 0 = all there are.
    """
    if not die_with(parent, signal.SIGKILL):
        _end()
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory << 20, memory << 20))
    faulthandler.register(signal.SIGUSR1, traces, all_threads=False)  # where it hangs, asked before it is killed
    channel = _Channel(requests, answers)
    reward = _loaded(spec, channel)
    signature = reward.grader.signature
    channel.send({"ready": asdict(signature), "name": reward.name})
    while True:
        request = channel.requests.get()
        try:
            grade(reward.function, signature, Asked(**json.loads(request)), channel.tell, apart=True)
        except BaseException as error:
            channel.send({"failure": f"could not be called: {described(error)}"})
        channel.send({"end": True})


def _loaded(spec: str, channel: _Channel) -> NamedReward:
    place = Path(spec.rpartition(":")[0])
    if place.suffix == ".py":
        sys.path.insert(0, str(place.resolve().parent))  # what it imports while it is called lies beside it too
    try:
        return load_reward(spec)
    except ConfigError as error:
        channel.send({"refused": str(error)})
    except BaseException as error:
        channel.send({"refused": f"--reward {spec}: importing {place} raised {described(error)}"})
    raise SystemExit(_end())


class _Channel:
    """Messages between two processes; a thread of its own sees when the other one is gone."""

    def __init__(self, requests: int, answers: int) -> None:
        self.requests: SimpleQueue[bytes] = SimpleQueue()
        self._answers, self._lock, self._process = answers, Lock(), os.getpid()
        Thread(target=self._listen, args=(requests,), daemon=True).start()

    def _listen(self, requests: int) -> None:
        for body in bodies(requests):
            self.requests.put(body)
        _end()

    def send(self, message: Mapping[str, Any]) -> None:
        if os.getpid() != self._process:  # a fork that the function did not end
            os._exit(0)
        with self._lock:
            send(self._answers, message)

    def tell(self, grades: Mapping[int, Grade]) -> None:
        self.send({"grades": [[place, *grade[:4]] for place, grade in grades.items()]})


def _end() -> None:
    """At once, with every process that the function started."""
    os.killpg(os.getpgrp(), signal.SIGKILL)
