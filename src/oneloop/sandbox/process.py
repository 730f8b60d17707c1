"""Start a confined process."""

from __future__ import annotations

from oneloop.errors import SandboxError
from oneloop.sandbox import tiers
from oneloop.sandbox.confined import Confined, Exit, begin
from oneloop.sandbox.limits import Limits

__all__ = ["Confined", "Exit", "start"]


def start(role: str, limits: Limits, *, stdin: bytes | None = None) -> Confined:
    """Run `role`, the full name of a module whose `main(channel)` is called in a new confined process.

    Those are the modules of `oneloop.sandbox.inside` and `oneloop.rewards.code.inside`. `stdin` is a file there; its
    default is /dev/null. Safe from several threads at once, and after a fork.

    Raises: ConfigError where this machine offers no isolation, SandboxError where it fails at the moment.
    """
    for _ in range(3):
        starter = tiers.starter()
        try:
            return begin(starter, role, limits, stdin)
        except ConnectionError:  # it has died: a new one is worth a try
            tiers.drop(starter)
        except OSError as error:
            if tiers.starter() is starter:  # else another thread has dropped it while we were asking
                raise SandboxError(f"a confined process could not be started: {error}") from error
    raise SandboxError("the starter of confined processes dies again and again")
