"""Real processes over gloo that each do the same work, and what they found, for tests of what ranks do together."""

from collections.abc import Callable
from datetime import timedelta
from fcntl import LOCK_EX, flock
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from forked import FORKS

LONGEST = 180
"""Seconds that a rank waits for another one: they do the same work, and one that waits longer waits for ever."""


def once(tmp_path_factory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` has filled, for all workers of a pytest together."""
    base = tmp_path_factory.getbasetemp()
    # every worker of xdist has a folder of its own in one that they share
    shared = base.parent if base.name.startswith("popen-") else base
    folder, done = shared / name, shared / f"{name}-done"
    with (shared / f"{name}-lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not done.exists():
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


def together(count: int, work: Callable[..., None], *arguments: object) -> None:
    """`work(rank, *arguments)` in that many processes, forked from one that has imported what runs need."""
    mp.start_processes(work, arguments, nprocs=count, start_method=FORKS.get_start_method())


def on_processes(count: int, work, folder: Path, tmp_path_factory) -> list:
    """`work(world, folder)` on that many ranks; what each returns, in rank order."""
    found = once(
        tmp_path_factory,
        f"on-{count}-{folder.name}",
        lambda out: together(count, _work, count, work, str(folder), str(out)),
    )
    return [torch.load(found / f"{rank}.pt", weights_only=False) for rank in range(count)]


def _work(rank, count, work, folder, out):
    from oneloop.parallel.world import Distributed

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{out}/meet", rank=rank, world_size=count, timeout=timedelta(seconds=LONGEST)
    )
    torch.save(work(Distributed(), Path(folder)), Path(out) / f"{rank}.pt")
    dist.destroy_process_group()
