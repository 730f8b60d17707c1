"""How well runs are isolated here, found once per process by trying to escape; and the starter that does it."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from contextlib import suppress
from enum import StrEnum
from threading import RLock

from oneloop.errors import ConfigError, SandboxError
from oneloop.sandbox.inside.kernel import MACHINES
from oneloop.sandbox.launch import Starter
from oneloop.sandbox.probe import escapes

UNSAFE_VARIABLE = "ONELOOP_UNSAFE_CODE_REWARD"


class Tier(StrEnum):
    """What holds a confined process."""

    NAMESPACES = "namespaces"
    """A network, processes, mounts, IPC and a root folder of its own; Landlock where there is one; seccomp; limits."""
    LANDLOCK = "landlock"
    """Landlock, seccomp, limits: a process of this machine that may use nothing of it."""
    UNSAFE = "unsafe"
    """Limits alone."""


_log = logging.getLogger(__name__)
_lock = RLock()
_tier: Tier | None = None
_starter: Starter | None = None


def tier() -> Tier:
    """The best that works here. The first call tries, and takes a few tenths of a second.

    Raises: ConfigError where none does, with what is missing.
    """
    with _lock:
        if _tier is None:
            _choose()
        assert _tier is not None
        return _tier


def starter() -> Starter:
    """The starter of this process.

    Raises: ConfigError as `tier` does; SandboxError where no new one comes up.
    """
    global _starter
    with _lock:
        chosen = tier()
        if _starter is None:
            _starter = _launched(chosen)
        return _starter


def drop(which: Starter) -> None:
    """This one has died."""
    global _starter
    with _lock:
        if _starter is which:
            close()


def close() -> None:
    """End the starter of this process, and all that it runs. The next run starts another one."""
    global _starter
    with _lock:
        if _starter is not None:
            _starter.close()
            _starter = None


def _choose() -> None:
    global _tier, _starter
    machine = os.uname().machine
    if sys.platform != "linux" or machine not in MACHINES:
        wanted = " or ".join(MACHINES)
        raise ConfigError(f"code rewards run programs on Linux on {wanted} only; this is {sys.platform} on {machine}")
    reasons = []
    for candidate in (Tier.NAMESPACES, Tier.LANDLOCK):
        tried = None
        try:
            tried = Starter(candidate)
            found = escapes(tried)
        except (SandboxError, OSError) as error:
            found = [str(error)]
        if not found and tried is not None:
            _tier, _starter = candidate, tried
            _log.info("code rewards: programs are isolated by %s", candidate)
            return
        if tried is not None:
            tried.close()
        reasons.append(f"  {candidate}: {'; '.join(found)}")
    if os.environ.get(UNSAFE_VARIABLE) != "1":
        raise ConfigError(_advice(reasons))
    _tier, _starter = Tier.UNSAFE, _launched(Tier.UNSAFE)


def _launched(chosen: Tier) -> Starter:
    if chosen is Tier.UNSAFE:
        print(f"unsafe: {UNSAFE_VARIABLE}=1, programs run with limits but without isolation", file=sys.stderr)
    return Starter(chosen)


def _advice(reasons: list[str]) -> str:
    return "\n".join(
        [
            "code rewards run programs that nobody trusts, and nothing here can isolate them:",
            *reasons,
            "Either is enough. Namespaces need Linux 5.14 and leave to make them: for users the settings",
            "kernel.unprivileged_userns_clone=1 and, on Ubuntu, kernel.apparmor_restrict_unprivileged_userns=0; in a",
            "container a seccomp profile that allows unshare and mount. Landlock needs Linux 5.13 that was booted with",
            "`landlock` in lsm=; default containers allow it.",
            f"{UNSAFE_VARIABLE}=1 runs them without isolation: they can then read and delete what you can.",
        ]
    )


def _forked() -> None:
    """A child has no starter: the parent's is the parent's."""
    global _lock, _starter
    _lock = RLock()
    if _starter is not None:
        with suppress(OSError):
            _starter.forget()
        _starter = None


atexit.register(close)
os.register_at_fork(after_in_child=_forked)
