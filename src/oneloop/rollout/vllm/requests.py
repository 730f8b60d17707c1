"""Many completions in flight at once, and a look at the server while they are."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import Event
from time import monotonic
from typing import Any, NamedTuple

from oneloop.rollout.vllm.client import Client
from oneloop.rollout.vllm.current import Current
from oneloop.rollout.vllm.faults import Fault, Patience, tried
from oneloop.rollout.vllm.wire import ROUTE, Wanted, completion_of
from oneloop.types import Completion

MOST = 256
"""Requests in flight; the server batches as many as it can."""
LONGEST = 3600.0
"""Seconds of one request, where a server does not say whether it moves."""
COUNTERS = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total")


class Link(NamedTuple):
    """A server as it is now.

    Args:
        client: for these requests alone: they are broken off together.
        life: of the server's, as `Current` counts them: with it, what was asked for is void.
    """

    client: Client
    life: int


def completions(
    link: Link,
    questions: Mapping[int, dict[str, Any]],
    wanted: Wanted,
    current: Current,
    patience: Patience,
    check_alive: Callable[[], None],
) -> Generator[tuple[int, Completion], None, None]:
    """Each question's place and its completion, as they end. Closing the iterator breaks off the others.

    Args:
        current: says which weights an answer may be drawn from, and whether it counts.
        check_alive: raises Fault where the server is gone.

    Raises: Fault of a request that failed at all its tries, or of a server that died or stalls.
    """
    over = Event()

    def check() -> None:
        current.check(link.life)
        check_alive()

    def going_on() -> None:
        if over.is_set():
            raise Fault("broken off", lasting=True)
        check()

    def answer(question: dict[str, Any]) -> Completion:
        def once() -> Completion:
            asked = current.asked(link.life)
            answer = link.client.json("POST", ROUTE, LONGEST, question)
            return completion_of(answer, wanted, current.answered(asked))

        return tried(once, patience, going_on)

    with ThreadPoolExecutor(min(MOST, max(len(questions), 1)), thread_name_prefix="vllm") as pool:
        left: dict[Future[Completion], int] = {pool.submit(answer, asked): n for n, asked in questions.items()}
        watch = _Watch(link.client, patience, check)
        try:
            while left:
                done, _ = wait(left, timeout=patience.look, return_when=FIRST_COMPLETED)
                for future in done:
                    yield left.pop(future), future.result()
                watch.look(moved=bool(done), paused=current.updating)
        finally:
            over.set()
            pending = {future for future in left if not future.cancel()}
            while pending:  # one may just be about to connect
                link.client.drop()
                pending = wait(pending, timeout=0.05).not_done


class _Watch:
    """Notices a server that neither ends a completion nor draws a token."""

    def __init__(self, client: Client, patience: Patience, check_alive: Callable[[], None]) -> None:
        self._client, self._patience, self._check_alive = client, patience, check_alive
        self._moved = self._asked = monotonic()
        self._drawn: float | None = None

    def look(self, *, moved: bool, paused: bool) -> None:
        """Raises: Fault."""
        now = monotonic()
        if not moved:
            self._check_alive()
        if moved or paused:
            self._moved = self._asked = now
            return
        if now - self._asked >= self._patience.silence / 4:
            self._ask()
        if monotonic() - self._moved > self._patience.silence:
            raise Fault(f"it stalls: no completion and no token for {self._patience.silence:g} s", lasting=True)

    def _ask(self) -> None:
        try:
            drawn = _drawn(self._client.bytes("GET", "/metrics", self._patience.silence / 4))
        except Fault as fault:
            if fault.status != 404:
                return
            drawn = None
        self._asked = monotonic()
        if drawn is None or drawn != self._drawn:  # None: it lives, and does not count
            self._moved, self._drawn = self._asked, drawn


def _drawn(metrics: bytes) -> float | None:
    """Tokens that a server has read and drawn so far, from its counters in Prometheus' format."""
    lines = [line for line in metrics.decode("utf-8", "replace").splitlines() if line.startswith(COUNTERS)]
    try:
        return sum(float(line.rpartition(" ")[2]) for line in lines) if lines else None
    except ValueError:
        return None
