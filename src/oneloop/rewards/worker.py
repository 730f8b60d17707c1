"""Reward functions in processes of their own, where a hang can be killed and a crash is one failed batch."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Any

from oneloop.errors import ConfigError
from oneloop.pipes import HEAD
from oneloop.rewards.adapters import Signature
from oneloop.rewards.blame import deepest
from oneloop.rewards.grading import Asked, Grade, Grader, Tell
from oneloop.rewards.load import split_spec
from oneloop.rewards.processes import kill_all, new_mark
from oneloop.rewards.values import real

LOAD_SECONDS = 120.0
"""How long the import of a reward's file may take."""
_LOOK = 0.1
"""Seconds between looks whether a silent worker lives: its children may hold its end of the pipe open."""
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from oneloop.rewards.serve import main; main(sys.argv[2], *map(int, sys.argv[3:]))"
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What user code may take."""

    timeout: float = 60.0
    """Seconds for a batch: what the scorer is given at once."""
    workers: int = 1
    """Processes per function. More than one serve functions that are called once per completion."""
    each: float | None = None
    """Seconds for one completion; then every completion is asked for by itself, and a failure is that one's alone."""
    memory: int = 0
    """MiB that a process may map; 0 = all there are."""


class Pool(Grader):
    """Workers of one function. Started once; one that hung or died is replaced at the next call.

    Raises: ConfigError where the function cannot be loaded.
    """

    def __init__(self, spec: str, limits: Limits) -> None:
        _, self.name = split_spec(spec)
        self._spec, self._limits, self._lock = spec, limits, Lock()
        self.lenient = limits.each is not None
        # the kernel ends a worker with the thread that started it, so that this one stays
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="reward-start")
        self._workers: list[_Worker | None] = [None] * limits.workers
        self.close = weakref.finalize(self, _close, self._workers, self._starter)
        try:
            self.signature = self._ready(0).signature
        except _Failed as failure:
            self.close()
            raise ConfigError(f"--reward {spec}: while it was imported, {failure}") from None
        except BaseException:
            self.close()
            raise

    def grade(self, asked: Asked, tell: Tell) -> None:
        with self._lock:
            self._grade(asked.read_by(self.signature), tell, monotonic() + self._limits.timeout)

    def _grade(self, asked: Asked, tell: Tell, deadline: float) -> None:
        shares = self._shares(len(asked))
        if len(shares) == 1:
            self._graded(0, asked, shares[0], tell, deadline)
            return
        left, told = iter(shares), Lock()

        def one_at_a_time(grades: Mapping[int, Grade]) -> None:
            with told:
                tell(grades)

        def work(number: int) -> None:
            while True:
                with told:
                    share = next(left, None)
                if share is None:
                    return
                self._graded(number, asked, share, one_at_a_time, deadline)

        with ThreadPoolExecutor(min(self._limits.workers, len(shares)), thread_name_prefix="reward") as threads:
            futures = [threads.submit(work, number) for number in range(min(self._limits.workers, len(shares)))]
            try:
                for future in futures:
                    future.result()
            except BaseException:  # Ctrl-C: nobody waits for the others
                left = iter(())
                for worker in self._workers:
                    if worker is not None:
                        worker.stop()
                raise

    def _shares(self, count: int) -> list[Sequence[int]]:
        """Places that are asked for together."""
        if self._limits.each is not None:
            return [[place] for place in range(count)]
        if not self.signature.form.each or self._limits.workers == 1:
            return [range(count)]
        step = min(self._limits.workers, count) if self.signature.asynchronous else count
        return [range(start, count, step) for start in range(step)]

    def _graded(self, number: int, asked: Asked, share: Sequence[int], tell: Tell, deadline: float) -> None:
        """Grades of a share; those of a worker that hung or died are failures."""
        missing = set(share)
        try:
            for grades in self._answers(number, asked.at(share), self._until(deadline)):
                places = {share[place]: grade for place, grade in grades.items()}
                missing -= places.keys()
                tell(places)
            failure = "sent no value for it"
        except _Failed as failed:
            failure = str(failed)
        if missing:
            tell({place: Grade(None, failure) for place in sorted(missing)})

    def _until(self, deadline: float) -> float:
        """When the next share must be done."""
        if self._limits.each is None:
            return deadline
        if monotonic() >= deadline:
            raise _Failed(f"was not reached within --reward-timeout {self._limits.timeout:g}")
        return monotonic() + self._limits.each

    def _answers(self, number: int, asked: Asked, deadline: float) -> Iterator[dict[int, Grade]]:
        try:
            request = json.dumps(vars(asked)).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise _Failed(f"cannot be given this data in another process: {type(error).__name__}: {error}") from None
        began = monotonic()
        try:
            worker = self._ready(number)
        except ConfigError as error:  # its file has changed
            raise _Failed(f"could not be loaded again: {error}") from None
        deadline += monotonic() - began  # loading does not count
        try:
            worker.send(request, deadline)
            while "end" not in (message := worker.receive(deadline)):
                if "failure" in message:
                    raise _Failed(str(message["failure"]))
                yield _grades(message, len(asked))
        except _Silent:
            where = worker.where()
            self._drop(number)
            if self._limits.each is not None:
                raise _Failed(f"took over {self._limits.each:g} s") from None
            raise _Failed(
                f"was not done after {self._limits.timeout:g} s{f', at {where},' if where else ''} and its process was "
                "killed. Fix: --reward-timeout for more seconds a batch"
                + (", or --reward-workers N for N completions at a time" if self.signature.form.each else "")
            ) from None
        except BaseException:
            self._drop(number)
            raise

    def _ready(self, number: int) -> _Worker:
        worker = self._workers[number]
        if worker is None or worker.ended():
            self._drop(number)
            worker = self._workers[number] = self._starter.submit(_Worker, self._spec, self._limits.memory).result()
            try:
                worker.load()
            except BaseException:
                self._drop(number)
                raise
        return worker

    def _drop(self, number: int) -> None:
        worker, self._workers[number] = self._workers[number], None
        if worker is not None:
            worker.kill()


def _close(workers: list[_Worker | None], starter: ThreadPoolExecutor) -> None:
    for place, worker in enumerate(workers):
        if worker is not None:
            worker.kill()
            workers[place] = None
    starter.shutdown(wait=False)


class _Failed(Exception):
    """Why there are no grades, as in "reward NAME {failed}"."""


class _Silent(Exception):
    """Nothing came before the deadline."""


class _Worker:
    """One process, and the pipes to it."""

    def __init__(self, spec: str, memory: int) -> None:
        self._mark = new_mark()
        their_requests, self._requests = os.pipe()
        self._answers, their_answers = os.pipe()
        self._traces, their_traces = os.pipe()
        theirs = (their_requests, their_answers, their_traces)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, json.dumps(sys.path), spec, *map(str, (os.getpid(), *theirs, memory))],
                stdin=subprocess.DEVNULL,
                pass_fds=theirs,
                env={**os.environ, self._mark: ""},
                start_new_session=True,  # Ctrl-C is for the trainer, which asks for the end of the step
            )
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        for descriptor in (self._requests, self._answers, self._traces):
            os.set_blocking(descriptor, False)
        self._received = bytearray()
        self._open = True

    def load(self) -> None:
        try:
            message = self.receive(monotonic() + LOAD_SECONDS)
        except _Silent:
            where = self.where()
            raise _Failed(f"it was not done after {LOAD_SECONDS:g} s{f' at {where}' if where else ''}") from None
        if "refused" in message:
            raise ConfigError(str(message["refused"]))
        told = message["ready"]
        names, required = tuple(told.pop("names")), tuple(told.pop("required"))
        self.signature = Signature(names=names, required=required, **told)

    def send(self, body: bytes, deadline: float) -> None:
        data = memoryview(len(body).to_bytes(HEAD) + body)
        while data:
            self._wait(self._requests, select.POLLOUT, deadline)
            try:
                data = data[os.write(self._requests, data) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise self._death() from None

    def receive(self, deadline: float) -> dict[str, Any]:
        size = HEAD + int.from_bytes(self._bytes(HEAD, deadline)[:HEAD])
        body = bytes(self._bytes(size, deadline)[HEAD:size])
        del self._received[:size]
        try:
            message = json.loads(body)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise _Failed("sent what is no answer")
        return message

    def _bytes(self, count: int, deadline: float) -> bytearray:
        """At least so many bytes that were received and not read."""
        while len(self._received) < count:
            self._wait(self._answers, select.POLLIN, deadline)
            try:
                piece = os.read(self._answers, 2**20)
            except BlockingIOError:
                continue
            if not piece:
                raise self._death()
            self._received += piece
        return self._received

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        while not poll.poll(1000 * max(0.0, min(_LOOK, deadline - monotonic()))):
            if self.ended():
                raise self._death()
            if monotonic() >= deadline:
                raise _Silent

    def ended(self) -> bool:
        """Whether its process is dead. It is not reaped yet: until then nobody else can get its number."""
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _death(self) -> _Failed:
        self.kill()
        code = self._process.returncode
        how = f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"
        return _Failed(f"ended its process by {how}")

    def where(self) -> str:
        """file:line that it is at, as far as it still tells."""
        with suppress(OSError):
            self._process.send_signal(signal.SIGUSR1)
            poll = select.poll()
            poll.register(self._traces, select.POLLIN)
            text = b""
            while poll.poll(200) and (piece := os.read(self._traces, 2**16)):
                text += piece
                if text.endswith(b'<string>", line 1 in <module>\n'):
                    break
            return deepest(text.decode("utf-8", "replace"))
        return ""

    def stop(self) -> None:
        """Kill the process and all that it started."""
        kill_all(self._process.pid, self._mark)

    def kill(self) -> None:
        """Stop it, and forget it."""
        if not self._open:
            return
        self._open = False
        self.stop()
        self._process.wait()
        for descriptor in (self._requests, self._answers, self._traces):
            os.close(descriptor)


def _grades(message: Mapping[str, Any], count: int) -> dict[int, Grade]:
    """What a worker sent, taken for nothing but what it should be."""

    def finite(value: Any) -> float:
        if (number := real(value)) is None:
            raise ValueError
        return number

    try:
        rows = [tuple(row) for row in message["grades"]]
        grades = {
            int(place): Grade(
                None if value is None else finite(value),
                None if failure is None else str(failure),
                {str(name): finite(number) for name, number in measures.items()},
                {str(name): None if text is None else str(text) for name, text in extras.items()},
            )
            for place, value, failure, measures, extras in rows
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _Failed("sent what is no answer") from None
    if not grades.keys() <= set(range(count)):
        raise _Failed("sent what is no answer")
    return grades
