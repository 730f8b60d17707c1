"""What the ranks of a run know of each other beside their collective calls: who lives, where it is, who failed first.

A rank that is killed or hangs leaves the others waiting in a call whose error, if there is one, names nobody. So each
rank says a few words a second in a store, which lies in rank 0's process, and looks at those of the next rank.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any

import torch.distributed as dist
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from oneloop.errors import OneloopError, RankError
from oneloop.parallel.world import Distributed

BEAT = 1.0
"""Seconds between two looks."""
STALE = 60.0
"""Seconds of silence after which a rank on another machine counts as gone."""
ASKED = 5.0
"""The same, once a collective call has failed."""
GRACE = 8.0
"""Seconds in which a rank may end by itself when another one has."""
SAVING = 600.0
"""Seconds for which rank 0 is waited for while it saves what a failure would lose."""
MISSES = 3
"""Looks in a row at rank 0's store that fail before it counts as gone."""


class Peers:
    """The other ranks, watched from a thread.

    Args:
        timeout: seconds that collective calls wait.
    """

    def __init__(self, world: Distributed, timeout: float) -> None:
        self.phase = "starting"
        self.last_words: Callable[[str], None] = lambda text: None
        """Told the failure where this process has to be ended from outside its main thread."""
        self._world, self._timeout = world, timeout
        self._count, self._asked, self._first_phase = 0, False, "starting"
        self._failure: dict[str, Any] | None = None
        self._found, self._ending, self._over = Event(), Event(), Event()
        self._explained: BaseException | None = None
        host, wait = os.environ.get("MASTER_ADDR", "localhost"), timedelta(seconds=10)
        if world.rank == 0:
            self._store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=wait)
            world.agree(self._store.port)
        else:
            self._store = TCPStore(host, world.agree(0), is_master=False, timeout=wait)
        self._beat()
        world.collect([0])
        self._thread = Thread(target=self._watch, name="peers", daemon=True)
        self._thread.start()

    def explained(self, error: BaseException) -> BaseException:
        """The error that this rank ends with: where it says no more than that a call failed, whose fault that is."""
        self._ending.set()
        if isinstance(error, RankError) or error is self._explained:
            return error
        self._explained = error
        if isinstance(error, Exception) and (self._world.waiting or _collective(error)):
            self._asked = True
            failure = self._failure = self._found_soon() or self._absent()
            if failure is not None:
                self._post(failure)
                found = self._error(failure)
                found.__cause__ = error
                return found
        self._post(self._mine(f"{type(error).__name__}: {error}"))
        with suppress(Exception):
            self._store.set(f"ending/{self._world.rank}", str(error))
        return error

    def close(self) -> None:
        """Leave with all others, who have come to the end as well."""
        self._ending.set()
        self._world.collect([0])
        self._over.set()
        self._thread.join()

    def leave(self, error: BaseException) -> bool:
        """Leave after a failure; says whether it is for this rank to tell of it: one does, and that is rank 0."""
        rank = self._world.rank
        self._ending.set()
        try:
            if rank == 0:
                self._store.set("ended/0", "")
                if self._failure is not None:  # the store ends with this process: let it be read who failed first
                    sleep(2 * BEAT)
                return True
            if isinstance(error, RankError):
                return rank == 1 and self._failure is not None and self._failure["rank"] == 0 and self._failure["gone"]
            alike = self._waited("ending/0", 2.0) and self._store.get("ending/0").decode() == str(error)
            if alike:
                self._waited("ended/0", SAVING)
            return not alike
        except Exception:  # rank 0's process has ended, and the store with it
            return not isinstance(error, OneloopError)
        finally:
            self._over.set()
            # the interpreter aborts where it ends while a thread is in the store's code
            self._thread.join(ASKED)

    def _found_soon(self) -> dict[str, Any] | None:
        """A failure that shows within seconds; None as soon as every rank has given signs of life."""
        with suppress(Exception):
            before = [self._words(rank)["beat"] for rank in range(self._world.ranks)]
            end = monotonic() + ASKED + 3 * BEAT
            while monotonic() < end and not self._found.wait(BEAT / 4):
                beats = (self._words(rank)["beat"] for rank in range(self._world.ranks))
                if all(beat > old + 1 for beat, old in zip(beats, before, strict=True)):
                    break
        return self._failure

    def _waited(self, key: str, seconds: float) -> bool:
        end = monotonic() + seconds
        while not self._store.check([key]):
            if monotonic() > end:
                return False
            sleep(0.1)
        return True

    def _watch(self) -> None:
        parent, heard, since, misses = os.getppid(), None, monotonic(), 0
        while not self._over.wait(BEAT):
            failure = None
            try:
                self._beat()
                self._first_phase = self._words(0)["phase"]
                failure = self._told()
                if failure is None:
                    words = self._words((self._world.rank + 1) % self._world.ranks)
                    heard, since = (words["beat"], monotonic()) if words["beat"] != heard else (heard, since)
                    if _dead(words) or monotonic() - since > (ASKED if self._asked else STALE):
                        failure = _gone(words)
                        self._post(failure)
                misses = 0
            except Exception:
                misses += 1
                failure = self._first_gone() if misses == MISSES else None
            if os.getppid() != parent:
                failure = {**self._mine("what started it is gone"), "gone": True}
            if failure is not None:
                self._failure = failure
                self._found.set()
                self._end_if_stuck(failure)
                return

    def _end_if_stuck(self, failure: dict[str, Any]) -> None:
        if self._ending.wait(GRACE):
            return
        if failure["rank"] == 0 and not failure["gone"]:
            with suppress(Exception):
                self._waited("ended/0", SAVING)
        text = str(self._error(failure))
        with suppress(Exception):
            self.last_words(text)
        if self._world.rank == 0 or (self._world.rank == 1 and failure["rank"] == 0 and failure["gone"]):
            print(f"oneloop: {text}", file=sys.stderr, flush=True)
        os._exit(1)

    def _beat(self) -> None:
        self._count += 1
        words = {"rank": self._world.rank, "beat": self._count, "phase": self.phase, "calls": self._world.calls}
        self._store.set(f"beat/{self._world.rank}", json.dumps(words | {"pid": os.getpid(), "place": _place()}))

    def _words(self, rank: int) -> dict[str, Any]:
        return json.loads(self._store.get(f"beat/{rank}"))

    def _told(self) -> dict[str, Any] | None:
        """A failure that some rank has told of."""
        return json.loads(self._store.get("failed")) if self._store.check(["failed"]) else None

    def _first_gone(self) -> dict[str, Any]:
        """Rank 0 and its store."""
        return _gone({"rank": 0, "phase": self._first_phase})

    def _post(self, failure: dict[str, Any]) -> None:
        """For all, unless there is one: the first is the cause of the others."""
        with suppress(Exception):
            self._store.compare_set("failed", "", json.dumps(failure))

    def _mine(self, how: str) -> dict[str, Any]:
        return {"rank": self._world.rank, "phase": self.phase, "how": f"failed ({how})", "gone": False}

    def _absent(self) -> dict[str, Any] | None:
        """Of ranks that all live, the one that has come to the fewest calls; None where nobody is behind this one."""
        try:
            every = [self._words(rank) for rank in range(self._world.ranks)]
        except Exception:
            return self._first_gone()
        last = min(every, key=lambda words: words["calls"])
        if last["calls"] >= self._world.calls:
            return None
        how = f"did not come to what all ranks do together within {self._timeout:g} s"
        return {"rank": last["rank"], "phase": last["phase"], "how": how, "gone": False}

    def _error(self, failure: dict[str, Any]) -> RankError:
        return RankError(
            f"rank {failure['rank']} of {self._world.ranks} {failure['how']} in phase {failure['phase']}, and no rank "
            "can go on without it. Fix: look at its messages and its memory; --resume goes on from the last checkpoint"
        )


def _collective(error: Exception) -> bool:
    """Whether torch says that processes could not talk to each other."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def _gone(words: dict[str, Any]) -> dict[str, Any]:
    return {"rank": words["rank"], "phase": words["phase"], "how": "is gone (killed, or out of memory)", "gone": True}


def _dead(words: dict[str, Any]) -> bool:
    """Whether a process of this machine has ended."""
    if words["place"] != _place():
        return False
    try:
        # pid (name) state ...; Z: ended, and nobody has asked for its exit code yet
        return Path(f"/proc/{words['pid']}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except OSError:
        return True


def _place() -> str:
    """Where a process number means the same process; of this process alone where there is no /proc."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return f"process {os.getpid()}"
