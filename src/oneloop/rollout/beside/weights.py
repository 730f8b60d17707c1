"""Weights from one process to another: safetensors in memory, read once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from oneloop.errors import EngineError

SHARED = Path("/dev/shm")
"""Memory that looks like a folder."""


def shared_folder() -> Path:
    """A new folder in memory where there is such a place, else on disk."""
    return Path(tempfile.mkdtemp(prefix="oneloop-", dir=SHARED if os.access(SHARED, os.W_OK) else None))


def once(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without second names of the same tensor: tied matrices."""
    named: dict[int, str] = {}
    for name, value in state.items():
        named.setdefault(value.data_ptr(), name)
    return {name: state[name] for name in named.values()}


def write(state: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: value.detach().contiguous() for name, value in once(state).items()}, path)


@torch.no_grad()
def read(path: Path, model: PreTrainedModel) -> None:
    """Into the model's own tensors; the file is gone afterwards.

    Raises: EngineError where they are not the model's.
    """
    sent, own = load_file(path), once(model.state_dict())
    path.unlink()
    if sent.keys() != own.keys():
        others = sorted(sent.keys() ^ own.keys())
        raise EngineError(f"the weights sent are not those of {type(model).__name__}: {others[0]} is on one side only")
    for name, value in own.items():
        value.copy_(sent[name])
