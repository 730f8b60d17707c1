"""What passes, savers and optimizers know of models that are cut over ranks: how to enter one, and its whole tensors.

How they are cut is `oneloop.parallel.fsdp`'s business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

T = TypeVar("T")


@runtime_checkable
class Root(Protocol):
    """Through it every pass over some modules runs, and every rank runs the same passes in the same order."""

    def __call__(self, run: Callable[[], T]) -> T:
        """`run()`, with the parts of the modules put together where they are used."""
        ...

    def cut_again(self) -> None:
        """Let go of whatever is whole. After a pass without gradient: else the next would not see new weights."""
        ...


@runtime_checkable
class Entered(Protocol):
    """Makes a `Root` of modules that are called together; their parameters are cut in place."""

    def __call__(self, *modules: nn.Module) -> Root: ...


class Unsharded:
    """The `Root` of modules that every rank holds whole."""

    def __init__(self, *modules: nn.Module) -> None: ...

    def __call__(self, run: Callable[[], T]) -> T:
        return run()

    def cut_again(self) -> None: ...


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that is cut over ranks; every rank asks for the same ones, in the same order."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own(tensor: Tensor) -> Tensor:
    """This rank's share of a tensor that is cut over ranks; nobody is asked."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def is_sharded(module: nn.Module) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())
