"""What one of several ranks has of a model: its share at rest, and what is whole while a pass runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from oneloop.config import Run
from oneloop.forward.recompute import layers_of
from oneloop.plan.rehearsal import size_of

GATHERED = 2
"""Layers that are whole at one moment: the one that computes, and the next one, which arrives meanwhile."""


@dataclass(frozen=True)
class Spread:
    """How a run's models lie over its ranks.

    Args:
        on_host: shares rest in the machine's memory, not in the device's.
    """

    ranks: int = 1
    shard: Literal["none", "grad", "full"] = "none"
    on_host: bool = False

    @classmethod
    def of(cls, run: Run) -> Spread:
        return cls(run.ranks, run.shard, run.cpu_offload and run.device != "cpu")

    @property
    def shares(self) -> bool:
        return self.shard != "none"

    def share(self, size: int) -> int:
        """Of weights, gradients or moments, wherever they rest."""
        return -(-size // self.ranks) if self.shares else size

    def at_rest(self, size: int) -> int:
        """The same, on the device."""
        return 0 if self.shares and self.on_host else self.share(size)

    def passing(self, *models: nn.Module | None, gradients: bool = False) -> int:
        """Bytes that a pass through `models`, one after the other, has beside the shares.

        Args:
            gradients: not the weights but their gradients, before they are added up over the ranks and shared out: of
                one layer at a time, and of everything outside of layers, which is used first and last.
        """
        if not self.shares:
            return 0
        there = [model for model in models if model is not None]
        if self.shard == "grad" and not gradients:
            return sum(size_of(model) for model in there)
        layers = {id(model): [size_of(one, trained=gradients) for one in layers_of(model)] for model in there}
        roots = sum(size_of(model, trained=gradients) - sum(layers[id(model)]) for model in there)
        largest = max((size for sizes in layers.values() for size in sizes), default=0)
        return roots + (1 if gradients else GATHERED) * largest


def copy_of(model: nn.Module, dtype: torch.dtype) -> int:
    """Bytes of a copy to sample from: a model's numbers without its adapters, tied ones once."""
    return sum(p.numel() for name, p in model.named_parameters() if ".lora_" not in name) * dtype.itemsize
