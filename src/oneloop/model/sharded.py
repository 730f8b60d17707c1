"""What passes, savers and optimizers know of models that are cut over ranks: how to enter one, and its whole tensors.

How they are cut is `oneloop.parallel.fsdp`'s business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

T = TypeVar("T")


class Root(Protocol):
    """Through it every pass over some modules runs, and every rank runs the same passes in the same order."""

    def __call__(self, run: Callable[[], T]) -> T:
        """`run()`, with the parts of the modules put together where they are used."""
        ...

    def reshard(self) -> None:
        """Let go of whatever is whole. After a pass without gradient: else the next would not see new weights."""
        ...


class Entered(Protocol):
    """Makes a `Root` of modules that are called together; their parameters are cut in place."""

    def __call__(self, *modules: nn.Module) -> Root: ...


class Unsharded:
    """The `Root` of modules that every rank holds whole."""

    def __init__(self, *modules: nn.Module) -> None: ...

    def __call__(self, run: Callable[[], T]) -> T:
        return run()

    def reshard(self) -> None: ...


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that is cut over ranks; every rank asks for the same ones, in the same order."""
    cut: Any = tensor
    return cut.full_tensor() if is_cut(tensor) else tensor


def is_cut(tensor: Tensor) -> bool:
    """Whether it is a DTensor. (To import its class would load torch.distributed for everybody.)"""
    return hasattr(tensor, "full_tensor")


def is_sharded(module: nn.Module) -> bool:
    return any(is_cut(parameter) for parameter in module.parameters())
