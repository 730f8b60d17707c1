"""A linear layer as its numbers, with what a LoRA adapter adds to it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Adapter(NamedTuple):
    """What a projection has beside its frozen matrix."""

    down: Float[Tensor, "r in"]
    up: Float[Tensor, "out r"]
    scale: float


class Projection(NamedTuple):
    """A linear layer as its numbers."""

    weight: Float[Tensor, "out in"]
    bias: Float[Tensor, " out"] | None
    adapter: Adapter | None = None

    @property
    def merged(self) -> Float[Tensor, "out in"]:
        """W + (α/r) B A, in a tensor of its own where there is an adapter."""
        if self.adapter is None:
            return self.weight
        down, up, scale = self.adapter
        return torch.addmm(self.weight, up.to(self.weight.dtype), down.to(self.weight.dtype), alpha=scale)


def projection_of(module: nn.Module) -> Projection | None:
    """A plain linear layer, or one with one plain adapter, as it counts now; None for anything else."""
    if type(module) is nn.Linear:
        return Projection(module.weight, module.bias)
    layer: Any = module
    if not hasattr(layer, "lora_A") or type(base := layer.base_layer) is not nn.Linear:
        return None
    if layer.disable_adapters:
        return Projection(base.weight, base.bias)
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.merged or len(names) != 1 or layer.lora_variant or layer.lora_bias[names[0]]:
        return None
    down, up = layer.lora_A[names[0]].weight, layer.lora_B[names[0]].weight
    return Projection(base.weight, base.bias, Adapter(down, up, layer.scaling[names[0]]))
