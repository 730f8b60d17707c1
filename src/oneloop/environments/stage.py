"""Where environments play: each in a thread of its own, many at once, and none can hang the run.

A thread is not a process: what an environment does to the interpreter it does to the trainer. What would end or bend it
is refused or put back, as for reward functions that Python hands over.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from threading import BoundedSemaphore, Lock, Thread
from typing import Any

from oneloop.environments.closing import Closings
from oneloop.environments.load import METHODS, NamedEnvironment
from oneloop.environments.timed import TimedCall
from oneloop.errors import EnvironmentFailed
from oneloop.rewards.blame import described
from oneloop.rewards.guarded import Caller, Given
from oneloop.rewards.values import real, short
from oneloop.types import Call, Step

AT_ONCE = 64
"""Calls that are carried out at the same time; the others wait, which does not count as theirs."""
MOST_ABANDONED = 16
"""Threads that hang where Python cannot end them, as in a socket without a limit, before the run ends."""
_ENDING = 1.0
"""Seconds until the thread of a loop ends that is told to."""


class Stage:
    """Makes a `Scene` for each rollout.

    Args:
        timeout: seconds for one `reset` or `step`.
    """

    def __init__(self, environment: NamedEnvironment, timeout: float) -> None:
        self.name, self.make, self.timeout = environment.name, environment.make, timeout
        self._ends = environment.close
        self.free = BoundedSemaphore(AT_ONCE)
        self._abandoned = 0
        self.closings = Closings(timeout, self._stuck)
        self._lock = Lock()
        self._loop: tuple[asyncio.AbstractEventLoop, Thread] | None = None

    def scene(self) -> Scene:
        return Scene(self)

    def loop(self) -> tuple[asyncio.AbstractEventLoop, int]:
        """Of all that is async, with its own thread: a connection that `reset` opens is there for `step`."""
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                self._loop = loop, Thread(target=loop.run_forever, name="environments", daemon=True)
                self._loop[1].start()
            loop, thread = self._loop
            assert thread.ident is not None, "it was started"
            return loop, thread.ident

    def call(self, work: Callable[[], Any]) -> TimedCall:
        return TimedCall(self.free, self.loop, work)

    def _stuck(self) -> None:
        """In closing, which raises nothing: whoever waits next does."""
        self._abandoned += 1

    def tidy(self) -> None:
        """Ends what is over its time in closing: a call that waits for a slot may wait for one of those.

        Raises: EnvironmentFailed, hopeless, where too many threads hang.
        """
        self.closings.end_overdue()
        self.check(f"close was not done after {self.timeout:g} s")

    def abandon(self, failure: str) -> None:
        """A thread that cannot be ended stays. Raises: EnvironmentFailed, hopeless, where there are too many."""
        self._abandoned += 1
        self.check(failure)

    def check(self, failure: str) -> None:
        """Raises: as `abandon`."""
        if self._abandoned > MOST_ABANDONED:
            error = EnvironmentFailed(
                f"{failure}; {self._abandoned} threads hang in it now and cannot be ended. Fix: limits of its own for "
                "whatever it waits for"
            )
            error.hopeless = True
            raise error

    def close(self) -> None:
        """Waits for environments that are closing, then for what they have in common, as long as a call may take."""
        self.closings.finish()
        if self._ends is not None:
            self.closings.add(Caller("environment"), self.call(self._ends))
            self.closings.finish()
        if self._loop is not None:
            (loop, thread), self._loop = self._loop, None
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_ENDING)
            if not thread.is_alive():  # nobody's code holds it up
                loop.close()


class Scene:
    """One rollout's environment, made at its `reset`, and so is its thread: a scene that waits its turn has none."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._caller: Caller | None = None
        self._environment: Any = None

    def reset(self, row: Mapping[str, Any], seed: int) -> Callable[[], Step]:
        """Begins at once; what is returned waits for the first messages.

        Raises: EnvironmentFailed, when it is waited for.
        """

        def begun() -> Any:
            self._environment = made = self._stage.make()
            if not all(callable(getattr(made, method, None)) for method in METHODS):
                raise TypeError(f"{self._stage.name} made {short(made)}; wanted an object with reset and step")
            seeded = "seed" in inspect.signature(self._environment.reset).parameters
            # episodes of a group are of one row, whose lists and dicts each may use up
            return self._environment.reset(deepcopy(dict(row)), **({"seed": seed} if seeded else {}))

        answer = self._asked("reset", begun)
        return lambda: Step(messages=_opening(answer()))

    def step(self, completion: str) -> Callable[[], Step]:
        """As `reset`: the answer to a completion."""
        answer = self._asked("step", lambda: self._environment.step(completion))
        return lambda: _step(answer())

    def _asked(self, what: str, work: Callable[[], Any]) -> Callable[[], Any]:
        caller, call = self._thread(), self._stage.call(work)
        given = caller.give(call)
        return lambda: self._answer(what, call, given, caller)

    def _thread(self) -> Caller:
        """Of its own, from the first call on: what is made in it, such as a database's connection, may want to stay."""
        self._caller = self._caller or Caller("environment")
        return self._caller

    @property
    def tools(self) -> Sequence[Any] | None:
        """Schemas of functions, for the chat template."""
        return list(getattr(self._environment, "tools", None) or ()) or None

    def leave(self) -> None:
        """The episode is over. What closing it raises concerns nobody."""
        environment, self._environment = self._environment, None
        if callable(close := getattr(environment, "close", None)):
            self._stage.closings.add(self._thread(), self._stage.call(close))
        elif self._caller is not None:
            self._caller.close()
        self._caller = None

    def _answer(self, what: str, call: TimedCall, given: Given, caller: Caller) -> Any:
        timeout = self._stage.timeout
        try:
            self._stage.tidy()
            while not given.finished(call.left(timeout)):
                self._stage.tidy()
                if call.over(timeout):
                    self._overdue(f"{what} was not done after {timeout:g} s", call, caller)
        except EnvironmentFailed:  # over its time
            raise
        except BaseException as error:
            if not call.raised:  # Ctrl-C of the user
                raise
            raise EnvironmentFailed(f"{what} raised {described(error)}") from error
        return given.value

    def _overdue(self, failure: str, call: TimedCall, caller: Caller) -> None:
        where = caller.where()
        failure += f", at {where}" if where else ""
        self._caller = None  # whoever closes it does so in another thread: this one ends, or hangs
        call.cancel()
        ended = caller.end()
        call.give_up()
        if not ended:
            self._stage.abandon(failure)
        raise EnvironmentFailed(f"{failure}. Fix: --reward-timeout for more seconds a call")


def _opening(value: Any) -> tuple[Mapping[str, Any], ...]:
    if (messages := _messages(value)) is None:
        raise EnvironmentFailed(f"reset returned {short(value)}; {_WANTED}")
    if not messages:
        raise EnvironmentFailed("reset returned no messages; the policy has to be asked something")
    return messages


def _step(value: Any) -> Step:
    """Raises: EnvironmentFailed for what is no step."""
    if not isinstance(value, Step):
        raise EnvironmentFailed(f"step returned {short(value)} of type {type(value).__name__}; wanted a Step")
    messages, reward = _messages(value.messages), real(value.reward)
    if messages is None:
        raise EnvironmentFailed(f"step returned the messages {short(value.messages)}; {_WANTED}")
    if reward is None:
        raise EnvironmentFailed(f"step returned the reward {short(value.reward)}; wanted a finite number")
    terminated, truncated = bool(value.terminated), bool(value.truncated)
    if not (messages or terminated or truncated):
        raise EnvironmentFailed("step neither said anything nor ended the episode")
    return Step(messages=messages, reward=reward, terminated=terminated, truncated=truncated, calls=_calls(value.calls))


def _calls(value: Any) -> tuple[Call, ...]:
    calls = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    for call in calls:
        words = (call.name, call.arguments, call.answer) if isinstance(call, Call) else ()
        if not words or not all(isinstance(word, str) for word in words):
            raise EnvironmentFailed(
                f"step returned the call {short(call)}; wanted oneloop.environments.Call(name=..., arguments=..., "
                "answer=...), each a text"
            )
    return calls


_WANTED = 'wanted a list of messages such as {"role": "user", "content": "..."}'


def _messages(value: Any) -> tuple[Mapping[str, Any], ...] | None:
    if isinstance(value, (str, bytes, Mapping)):
        return None
    try:
        messages = tuple(value)
    except TypeError:
        return None
    fine = all(
        isinstance(message, Mapping) and all(isinstance(message.get(name), str) for name in ("role", "content"))
        for message in messages
    )
    return tuple(dict(message) for message in messages) if fine else None
