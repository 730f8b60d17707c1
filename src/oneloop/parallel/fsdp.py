"""Models cut over ranks with PyTorch's FSDP2: one unit a layer, and one for all the rest of a model.

    a rank holds 1/N of every matrix, of its gradient and of its moments
    a pass:   root whole │ layer 1 whole │ layer 2 whole │ … │ head (of the root)
    backward: the same in reverse; each gradient is summed over ranks, and a rank keeps the sum of its share

Losses are weighted by the size of the whole step, so that gradients are added up, never averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from oneloop.forward.recompute import layers_of
from oneloop.model.frozen import hold_in
from oneloop.model.sharded import whole

T = TypeVar("T")
Mode = Literal["grad", "full"]


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """Implements `oneloop.model.sharded.Entered`.

    Args:
        mesh: the ranks, in one dimension.
        mode: "full": a layer is whole only while it runs. "grad": from its forward pass to its backward pass, which
            takes more memory and gathers once instead of twice.
        offload: shares of parameters, gradients and moments stay in the host's memory.
    """

    mesh: DeviceMesh
    mode: Mode = "full"
    offload: bool = False

    def __call__(self, *modules: nn.Module) -> Together:
        together = Together(*modules)
        how: dict[str, Any] = {
            "mesh": self.mesh,
            "offload_policy": self._offload_policy(),
        }
        for module in modules:
            for layer in layers_of(module):
                fully_shard(layer, reshard_after_forward=self.mode == "full", **how)
        fully_shard(together, **how)  # its head comes last and first: it stays whole in between
        for unit in together.units():
            unit.set_gradient_divide_factor(1.0)
            unit.set_force_sum_reduction_for_comms(True)  # gloo knows no sum with a factor, even of 1
        return together

    def _offload_policy(self) -> OffloadPolicy:
        return CPUOffloadPolicy(pin_memory=self.mesh.device_type != "cpu") if self.offload else OffloadPolicy()


class Together(nn.Module):
    """Modules that are called together, such as a policy and the value head on its backbone: the root of their units.

    It stands around the modules, which keep their classes and their names.
    """

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)

    def forward(self, run: Callable[[], T]) -> T:
        return _owned(run())

    def cut_again(self) -> None:
        for unit in self.units():
            unit.reshard()

    def units(self) -> Iterator[FSDPModule]:
        return (module for module in self.modules() if isinstance(module, FSDPModule))


def _owned(out: Any) -> Any:
    """FSDP hangs its hooks onto what comes out, and would lose them on a view."""
    if isinstance(out, Tensor):
        return out.clone() if out._is_view() else out
    if isinstance(out, tuple):
        parts = [_owned(part) for part in out]
        return type(out)(*parts) if hasattr(out, "_fields") else tuple(parts)
    return out


class Copied:
    """A whole copy of a policy, to sample from: each matrix is gathered once a rollout, not once a token.

    It lies where it lies: what was recorded on its addresses stays good. Matrices of products are held in the
    precision of the products: autocast would round them to it at every call; rounded once, they give the same numbers.
    Until `arrive` it is in the host's memory, so that the policy may pass through its device whole before it.

    Args:
        policy: not yet sharded.
    """

    def __init__(self, policy: PreTrainedModel, dtype: torch.dtype) -> None:
        self._policy = policy
        here = {id(p): nn.Parameter(p.detach().to("cpu", copy=True), False) for p in policy.parameters()}
        self.model: PreTrainedModel = deepcopy(policy, here).eval()  # pyright: ignore[reportArgumentType]
        hold_in(self.model, dtype, representable=lambda weight: False)  # what is looked up will be other numbers

    def arrive(self, device: torch.device) -> PreTrainedModel:
        """The copy, on the device where it samples."""
        return self.model.to(device)  # pyright: ignore[reportArgumentType]

    @torch.no_grad()
    def refresh(self) -> None:
        """Every rank calls it. What is not trained stays; what will be rounded is rounded before it travels."""
        for name, parameter in self._policy.named_parameters():
            if parameter.requires_grad:
                mine = self.model.get_parameter(name)
                mine.copy_(whole(parameter.to(mine.dtype)))


def cut_like(value: Tensor, like: DTensor) -> DTensor:
    """This rank's share of a whole tensor, as `like` is cut, in fresh memory beside it."""
    share: Any = torch.zeros_like(like, dtype=value.dtype)
    own = distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
    share.to_local().copy_(own.to_local())
    return share
