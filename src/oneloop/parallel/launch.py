"""How a process finds the others of its run: by the environment that torchrun sets. Without it, it is alone.

torch is loaded only where there are others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from oneloop.errors import ConfigError, OneloopError, Stopped

if TYPE_CHECKING:  # they would load torch
    import oneloop.parallel.peers
    import oneloop.ports


@dataclass
class Ranks:
    """The ranks of a run, as one of them sees them.

    Args:
        world: None where the process is alone.
    """

    world: oneloop.ports.World | None = None
    peers: oneloop.parallel.peers.Peers | None = None
    """What they know of each other beside collective calls; None where nobody watches."""

    @property
    def count(self) -> int:
        return 1 if self.world is None else self.world.ranks

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which alone has the run folder, the terminal and the loggers."""
        return self.world is None or self.world.rank == 0

    def phase(self, name: str) -> None:
        """What this rank is busy with, for the others should it fail there."""
        if self.peers is not None:
            self.peers.phase = name

    def last_words(self, said: Callable[[str], None]) -> None:
        """Whom to tell where another rank has failed and this one does not come back to see it."""
        if self.peers is not None:
            self.peers.last_words = said

    def explained(self, error: BaseException) -> BaseException:
        """The error, or the rank that it comes from."""
        return error if self.peers is None else self.peers.explained(error)


ALONE = Ranks()


class Place(NamedTuple):
    """Of a process in its run."""

    rank: int
    ranks: int
    local: int
    """Among the ranks of its machine."""
    here: int
    """Ranks of its machine."""


def place() -> Place | None:
    """As the environment has it; None where it names no other process.

    Raises: ConfigError where a part of it is missing or no number.
    """
    ranks = os.environ.get("WORLD_SIZE", "1")
    if ranks == "1":
        return None
    words = {name: os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    words["LOCAL_WORLD_SIZE"] = os.environ.get("LOCAL_WORLD_SIZE", ranks)
    for name, word in words.items():
        if not word.isdecimal():
            raise ConfigError(
                f"WORLD_SIZE={ranks}, but {name} is {word!r}; wanted a number. Fix: start the ranks with torchrun, "
                "which sets it; env -u WORLD_SIZE oneloop … for one process"
            )
    return Place(*(int(word) for word in words.values()))


@contextmanager
def joined(asked: int, device: str, timeout: float) -> Iterator[Ranks]:
    """The run's ranks, with this process as one of them, until the block ends on all.

    Args:
        asked: how many; 1: as many as there are.
        device: cpu, or cuda for the GPU with this rank's number on its machine.
        timeout: seconds that a rank is waited for.

    An error that another rank prints gets `told`, so that it is not printed once a rank.

    Raises: ConfigError for another number of ranks than was asked for, and for a device that they cannot share.
    """
    found = place()
    if asked not in (1, found.ranks if found else 1):
        raise ConfigError(
            f"ranks = {asked}, and there are {found.ranks} (WORLD_SIZE). Fix: leave it out under torchrun"
            if found
            else f"ranks = {asked}, and this is one process. Fix: torchrun --nproc-per-node {asked} this_script.py"
        )
    if found is None:
        yield ALONE
        return
    _tell(found, os.getpid())
    ranks, peers = _met(found, device, timeout)
    try:
        yield ranks
    except Stopped as stop:  # agreed on by all
        peers.close()
        stop.told = not ranks.first
        _tell(found, stop.exit_code)
        raise
    except BaseException as error:
        cause = peers.explained(error)
        tells = peers.leave(cause)
        if isinstance(cause, OneloopError):
            cause.told = not tells
        _tell(found, getattr(cause, "exit_code", 128 + getattr(cause, "signum", -127)))
        if cause is error:
            raise
        raise cause from error
    peers.close()
    _tell(found, 0)


def _met(found: Place, device: str, timeout: float) -> tuple[Ranks, oneloop.parallel.peers.Peers]:
    """The ranks in one process group, which is left to the end of the process."""
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"--device {device} with {found.ranks} ranks would put all on one. Fix: --device cuda")
    import torch.distributed as dist  # noqa: PLC0415

    from oneloop.parallel.peers import Peers  # noqa: PLC0415
    from oneloop.parallel.world import Distributed  # noqa: PLC0415

    if device == "cuda":
        _take_gpu(found)
    most = timedelta(seconds=timeout)
    if not dist.is_initialized():  # Ray has done it
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=most)
    world = Distributed(most)
    peers = Peers(world, timeout)
    return Ranks(world, peers), peers


def _take_gpu(found: Place) -> None:
    import torch  # noqa: PLC0415

    if found.local >= torch.cuda.device_count():
        raise ConfigError(
            f"--device cuda: rank {found.rank} is number {found.local} of its machine, which has "
            f"{torch.cuda.device_count()} GPUs. Fix: as many ranks a machine as it has GPUs, or --device cpu"
        )
    torch.cuda.set_device(found.local)


TOLD = "ONELOOP_RANK_0"
"""Environment variable with the file in which rank 0 tells who started it: its process, and at last its exit code."""


def _tell(found: Place, number: int) -> None:
    if found.rank == 0 and (file := os.environ.get(TOLD)):
        with Path(file).open("a", encoding="ascii") as lines:
            lines.write(f"{number}\n")
