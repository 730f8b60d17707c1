"""The device of a run."""

import torch

from oneloop.config import Run
from oneloop.errors import ConfigError


def device_of(run: Run) -> torch.device:
    try:
        device = torch.device(run.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"--device {run.device} cannot be used here: {reason}. Fix: --device cpu") from error
    return device
