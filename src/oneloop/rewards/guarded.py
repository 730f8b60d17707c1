"""A reward function from Python in the trainer's own process, where it can neither hang, end, fork nor bend the run.

It runs in a thread of its own, so that an exception meant for the user's Ctrl-C can only be the function's, and so that
it can be waited for with a limit. What it would do to the process that it shares is refused or put back.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from threading import Event, Lock, Thread, current_thread, get_ident, main_thread
from traceback import walk_stack
from types import ModuleType
from typing import Any

from oneloop.errors import RewardError
from oneloop.rewards.adapters import signature_of
from oneloop.rewards.blame import place_of
from oneloop.rewards.grading import Asked, Grade, Grader, Tell, grade

TRIES, PAUSE = 20, 0.05
"""How often a function that is over its time is told to end, and seconds between."""
_FIX = "Fix: name it, as 'file.py:function', which runs it in a process of its own"


class Guarded(Grader):
    """Calls a function that was handed over from Python.

    Args:
        name: for messages.
        timeout: seconds for a batch.
    """

    def __init__(self, function: Any, name: str, timeout: float) -> None:
        self._function, self.signature = function, signature_of(function)
        self._name, self._timeout, self._lock = name, timeout, Lock()
        self._caller: Caller | None = None

    def grade(self, asked: Asked, tell: Tell) -> None:
        """Raises: RewardError for a function that is over its time and cannot be ended: it might go on for ever, and
        what it does then is done to the run.
        """
        with self._lock:
            call = _Call(asked, tell)
            caller = self._caller = self._caller or Caller()
            with undisturbed(caller.ident):
                if caller.finishes(lambda: call.made(self._function, self.signature), self._timeout):
                    return
                self._caller = None
                call.abandon()
                where = caller.where()
                failure = f"was not done after {self._timeout:g} s{f', at {where}' if where else ''}"
                if not caller.end():
                    raise RewardError(
                        f"reward {self._name} {failure}, and cannot be ended, as it runs in the trainer's process. "
                        f"{_FIX} that is killed then, or reward_timeout= for more seconds a batch"
                    )
            call.fail(f"{failure}. Fix: reward_timeout= for more seconds a batch")

    def close(self) -> None:
        if self._caller is not None:
            self._caller.close()
            self._caller = None


class _Call:
    """One batch, whose grades count until nobody waits for them any more."""

    def __init__(self, asked: Asked, tell: Tell) -> None:
        self._asked, self._tell, self._lock = asked, tell, Lock()
        self._missing = set(range(len(asked)))
        self._process, self._abandoned = os.getpid(), False

    def made(self, function: Any, signature: Any) -> None:
        try:
            grade(function, signature, self._asked, self._heard, apart=True)
        finally:
            self._end_of_a_fork()

    def _heard(self, grades: Mapping[int, Grade]) -> None:
        self._end_of_a_fork()
        with self._lock:
            if not self._abandoned:
                self._missing -= grades.keys()
                self._tell(grades)

    def _end_of_a_fork(self) -> None:
        """There is one trainer: a copy of it that the function made and forgot ends here."""
        if os.getpid() != self._process:
            os._exit(0)

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True

    def fail(self, failure: str) -> None:
        self._tell({place: Grade(None, failure) for place in sorted(self._missing)})


class _Overdue(BaseException):
    """Raised in a thread from outside."""


class Given:
    """Work that a thread was given: a call without arguments, and what became of it."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work, self.done, self._raised = work, Event(), list[BaseException]()
        self.value: Any = None

    def carry_out(self) -> None:
        """Raises: what ends the thread, and nothing else."""
        try:
            self.value = self._work()
        except _Overdue:
            raise
        except BaseException as error:
            self._raised.append(error)
        self.done.set()

    def finished(self, seconds: float) -> bool:
        """Whether it is, within so many seconds. Raises: what it raised."""
        if not self.done.wait(seconds):
            return False
        if self._raised:
            raise self._raised[0]
        return True


class Caller:
    """A thread that makes one call after another; as a daemon it holds up nobody's end."""

    def __init__(self, name: str = "reward-function") -> None:
        self._calls: SimpleQueue[Given | None] = SimpleQueue()
        self._left = False
        self._thread = Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    @property
    def ident(self) -> int:
        assert self._thread.ident is not None, "it was started"
        return self._thread.ident

    def _serve(self) -> None:
        with suppress(_Overdue):
            while (asked := self._calls.get()) is not None:
                asked.carry_out()
        self._left = True

    def give(self, work: Callable[[], Any]) -> Given:
        """To be done behind what it was given before."""
        given = Given(work)
        self._calls.put(given)
        return given

    def finishes(self, call: Callable[[], None], seconds: float) -> bool:
        """Whether it does within so many seconds. Raises: what it raised."""
        given = self.give(call)
        try:
            done = given.done.wait(seconds)
        except BaseException:  # Ctrl-C of the user
            self.close()
            raise
        return done and given.finished(0)

    def where(self) -> str:
        """file:line of the user's code that it is at."""
        frame = sys._current_frames().get(self.ident)
        return place_of([(frame.f_code.co_filename, line) for frame, line in walk_stack(frame)][::-1])

    def end(self) -> bool:
        """Whether it could be ended: Python code can, C code that does not come back cannot."""
        self.close()
        for _ in range(TRIES):
            if not self._left:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(_Overdue))
            self._thread.join(PAUSE)
            if not self._thread.is_alive():
                return True
        return self._left

    def close(self) -> None:
        self._calls.put(None)


# what a function shares with the trainer


class SharedProcess(RuntimeError):
    """A function did what it may not do in a process that is not its own."""


_REFUSED = {"os": ("_exit", "abort"), "torch": ("set_default_device", "set_default_tensor_type")}
_DTYPE = ("torch", "set_default_dtype")
"""Loading a model sets it for a while. Where nothing is computed meanwhile it may, and the trainer's is put back."""
_BEFORE = "Or load models before training begins"
_guarded: Counter[int] = Counter()
"""Threads that run a user's function, and how many at once: a thread of coroutines runs several."""
_kept: list[tuple[ModuleType, str, Any]] = []
_home: list[Any] = []
"""Streams, working folder and torch's default dtype of the trainer."""
_lock = Lock()


@contextmanager
def undisturbed(thread: int) -> Iterator[None]:
    """In that thread, what would end or bend the process for everybody is refused; the rest is put back afterwards."""
    with _lock:
        if not _guarded:  # of several at once, the first finds what the last puts back
            _refuse(waited_for=current_thread() is main_thread())
            _home[:] = sys.stdout, sys.stderr, os.getcwd(), _default_dtype()
            sys.stdout, sys.stderr = (stream and _Lent(stream) for stream in _home[:2])
        _guarded[thread] += 1
    try:
        yield
    finally:
        with _lock:
            _guarded[thread] -= 1
            if not _guarded[thread]:
                del _guarded[thread]
            if not _guarded:
                sys.stdout, sys.stderr, folder, dtype = _home
                os.chdir(folder)
                for module, name, real in _kept:
                    setattr(module, name, real)
                _kept.clear()
                if dtype not in (None, _default_dtype()):
                    sys.modules["torch"].set_default_dtype(dtype)


def _refuse(waited_for: bool) -> None:
    """What the functions that run now may not do.

    Args:
        waited_for: the trainer does nothing meanwhile.
    """
    for module, names in _REFUSED.items():
        for name in names:
            _replace(module, name, lambda *_, **__: _FIX)
    if not waited_for:
        _replace(*_DTYPE, lambda d: "" if d is _default_dtype() else f"{_FIX}. {_BEFORE}")


def _replace(module: str, name: str, fix: Callable[..., str]) -> None:
    """Have a guarded thread's calls fail where there is a fix for their argument."""
    found, process = sys.modules.get(module), os.getpid()
    real = getattr(found, name, None)
    if found is None or real is None:
        return

    def called(*arguments: Any, **options: Any) -> Any:
        if os.getpid() == process and get_ident() in _guarded and (instead := fix(*arguments, **options)):
            raise SharedProcess(f"{module}.{name} would hold for the trainer too, whose process it is. {instead}")
        return real(*arguments, **options)

    _kept.append((found, name, real))
    setattr(found, name, called)


def _default_dtype() -> Any:
    torch = sys.modules.get("torch")
    return torch and torch.get_default_dtype()


class _Lent:
    """A stream that whoever borrows it cannot close."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> _Lent:
        return self

    def __exit__(self, *exception: object) -> None: ...

    def close(self) -> None: ...
