"""Which weights a server had while an answer was drawn: an update may come between two of its tokens."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from threading import Condition
from typing import NamedTuple

from oneloop.rollout.vllm.faults import Fault


class Asked(NamedTuple):
    """When a request was sent.

    Args:
        life: of the server's, as `Current.life` counts them.
        place: of the version that was current then.
    """

    life: int
    place: int


class Current:
    """What the thread that updates tells the threads that wait for answers.

    An answer that comes while an update is under way counts when the weights are known to be the right ones, and not
    before. Where they were not, or the server was started again, whatever was on its way is void: nobody knows what it
    was drawn from.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._versions = [0]
        self.updating = False
        self.life = 0
        """How often what was on its way became void."""

    def asked(self, life: int) -> Asked:
        """Of a request that is sent now, by who began in that life.

        Raises: Fault where that is over.
        """
        with self._changed:
            self.check(life)
            return Asked(life, len(self._versions) - 1)

    def answered(self, asked: Asked) -> Sequence[int]:
        """Versions that were current while a request was under way, in their order.

        Raises: Fault where its answer is void.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self.updating or asked.life != self.life)
            self.check(asked.life)
            return self._versions[asked.place :]

    def check(self, life: int) -> None:
        """Raises: Fault where what was asked for in that life is void."""
        if life != self.life:
            raise Fault("broken off: the server's weights are not what they were", lasting=True)

    @contextmanager
    def update(self, version: int) -> Generator[None]:
        """Until it ends no answer counts; after it, `version` is current."""
        self._set_updating(True)
        try:
            yield
            self._versions.append(version)
        finally:
            self._set_updating(False)

    def void(self) -> None:
        with self._changed:
            self.life += 1
            self._changed.notify_all()

    def _set_updating(self, updating: bool) -> None:
        with self._changed:
            self.updating = updating
            self._changed.notify_all()
