"""The device of a run, what is away from it, and how models are cut over those of all ranks."""

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


def check_vllm_devices(run: Run) -> None:
    """Raises: ConfigError for GPUs that are not there."""
    count = torch.cuda.device_count()
    for number in run.vllm_devices:
        if number >= count:
            raise ConfigError(
                f"--vllm-devices {number}: this machine has {count} GPUs, counted from 0. Fix: some of these"
            )


def vllm_apart(run: Run) -> bool:
    """Whether vLLM has GPUs to itself."""
    trains = range(run.ranks) if run.ranks > 1 else [int(run.device.partition(":")[2] or 0)]
    return bool(run.vllm_devices) and not set(run.vllm_devices) & set(trains)


def sharding_of(run: Run, device: torch.device, world: World) -> Sharding | None:
    if run.shard == "none":
        return None
    return Sharding(mesh=init_device_mesh(device.type, (world.ranks,)), mode=run.shard, offload=run.cpu_offload)


def offloads(run: Run) -> bool:
    """Whether there is another memory than the device's to move idle models to."""
    return run.offload_idle and run.device != "cpu"


def device_notes(run: Run) -> list[str]:
    """What the user should know of settings that depend on the device, or change what others mean."""
    notes = []
    if run.offload_idle and not offloads(run):
        notes.append(f"--offload-idle changes nothing with --device {run.device}: models are in its memory already")
    if run.optimizer == "adafactor":
        notes.append(
            "--optimizer adafactor: a matrix moves by the learning rate times the root mean square of its own numbers, "
            "so rates are some 10 to 100 times AdamW's"
        )
    return notes
