"""Loaded numbers in memory of their own, where the allocator would have put fresh ones.

A tensor that is read from safetensors lies where its file happens to be mapped; a fresh one begins at a multiple of 64
bytes. Matrix libraries (MKL's matrix × vector) add in another order when that differs, so a resumed run would differ in
its last bits from one that never stopped. A copy also leaves the file alone: nobody trains on pages of a file that
somebody else may write.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

ALIGNMENT = 64
"""Bytes. torch's CPU allocator begins every block at a multiple of it."""


def aligned(x: Tensor) -> Tensor:
    """A copy in fresh memory."""
    return x.detach().clone(memory_format=torch.contiguous_format)


def align(module: nn.Module) -> None:
    """Give every parameter and buffer of a model that was just loaded memory of its own, in place.

    A tensor under several names (tied weights) stays one tensor.
    """
    for parameter in module.parameters():
        parameter.data = aligned(parameter)
    for owner in module.modules():
        for name, buffer in owner.named_buffers(recurse=False):
            owner._buffers[name] = aligned(buffer)
