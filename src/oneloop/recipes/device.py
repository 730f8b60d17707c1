"""The device of a run, and how its models are cut over those of all ranks."""

import torch
from torch.distributed.device_mesh import init_device_mesh

from oneloop.config import Run
from oneloop.errors import ConfigError
from oneloop.parallel.fsdp import Sharding
from oneloop.ports import World


def device_of(run: Run) -> torch.device:
    try:
        device = torch.device(run.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"--device {run.device} cannot be used here: {reason}. Fix: --device cpu") from error
    return device


def sharding_of(run: Run, device: torch.device, world: World) -> Sharding | None:
    if run.shard == "none":
        return None
    return Sharding(mesh=init_device_mesh(device.type, (world.ranks,)), mode=run.shard, offload=run.cpu_offload)
