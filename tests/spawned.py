"""Real processes over gloo that each do the same work, and what they found, for tests of what ranks do together."""

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def on_processes(count, work, folder: Path, *given) -> list:
    """`work(world, folder, *given)` on that many ranks; what each returns, in rank order."""
    mp.spawn(_work, (count, work, str(folder), given), nprocs=count)
    return [torch.load(folder / f"{rank}-of-{count}.pt", weights_only=False) for rank in range(count)]


def _work(rank, count, work, folder, given):
    from oneloop.parallel.world import Distributed

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{count}", rank=rank, world_size=count)
    found = work(Distributed(), Path(folder), *given)
    torch.save(found, Path(folder) / f"{rank}-of-{count}.pt")
    dist.destroy_process_group()
