"""What a run's settings mean for its models, and how those are held."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedModel

from oneloop.config import Run
from oneloop.errors import ConfigError
from oneloop.forward.compiled import INDUCTOR
from oneloop.forward.recompute import layers_of
from oneloop.model.frozen import hold_in
from oneloop.model.lora import Lora, add_adapters, keep_frozen_in
from oneloop.recipes.device import device_of, offloads


def dtype_of(run: Run) -> torch.dtype:
    if run.dtype not in ("float32", "bfloat16"):
        raise ConfigError(f"--dtype {run.dtype}: wanted float32 or bfloat16")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[run.dtype]


def recompute_of(run: Run, policy: PreTrainedModel) -> bool:
    if run.gradient_checkpointing and not layers_of(policy):
        raise ConfigError(
            f"--gradient-checkpointing: transformers marks no layer of {type(policy).__name__} as one that can be "
            "computed again. Fix: leave it out; a smaller --max-tokens saves memory too"
        )
    return run.gradient_checkpointing


def compiler_of(run: Run, policy: PreTrainedModel) -> str | None:
    if run.compile and not layers_of(policy):
        raise ConfigError(
            f"--compile: transformers marks no layers in {type(policy).__name__} that could be compiled one by one. "
            "Fix: leave it out"
        )
    return INDUCTOR if run.compile else None


def lora_of(run: Run) -> Lora | None:
    return Lora(rank=run.lora, alpha=run.lora_alpha, targets=run.lora_targets) if run.lora else None


def trained(
    run: Run, load: Callable[[str | Path], PreTrainedModel], checkpoint: Path | None, device: torch.device
) -> PreTrainedModel:
    """A model to train, as `checkpoint` has it where one is given; with LoRA, beside the run's own matrices."""
    lora = lora_of(run)
    model = load(run.model if lora or checkpoint is None else checkpoint)
    if lora is not None:
        add_adapters(model, lora, run.model, seed=run.seed, saved=checkpoint)
        keep_frozen_in(model, dtype_of(run))
    return model.to(device)  # pyright: ignore[reportArgumentType]


def frozen(run: Run, model: PreTrainedModel) -> PreTrainedModel:
    """A model that nothing trains, where it begins: on the device, unless it is there only while it is needed."""
    model = hold_in(model, dtype_of(run))
    return model if offloads(run) else model.to(device_of(run))  # pyright: ignore[reportArgumentType]
