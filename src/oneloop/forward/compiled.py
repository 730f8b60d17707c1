"""Layers through torch.compile: the kernels of one layer serve all of its kind, and packed rows of any length.

The modules stay as they are, so that names in checkpoints do, and so that the sampler runs them as ever: while a pass
runs, its layers' `forward` is a compiled one. Attention over packed rows is left out of the kernels
(`oneloop.forward.attention`): it goes over as many buckets as the rows of a batch happen to make.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from types import MethodType
from typing import Any

import torch
import torch._dynamo.config
from torch import nn

from oneloop.errors import ConfigError
from oneloop.forward.recompute import forwards, layers_of

INDUCTOR = "inductor"
"""The backend that makes kernels. Others of torch.compile's serve tests: they need no compiler of C++."""
MOST_KINDS = 64
"""Of compiled passes that one function may have in a process: with and without gradient, adapters on and off, for each
shape of model that it trains. Beyond it, torch runs the function as it is, and warns."""


@cache
def for_any_length(function: Callable[..., Any], backend: str = INDUCTOR) -> Callable[..., Any]:
    """`function` compiled once, for tensors of any length."""
    return torch.compile(function, dynamic=True, backend=backend)


@contextmanager
def compiled(model: nn.Module, backend: str) -> Iterator[None]:
    """While it lasts, `model`'s layers run compiled."""
    limit = torch._dynamo.config.patch(recompile_limit=MOST_KINDS)
    with limit, forwards(layers_of(model), partial(_compiled, backend=backend)):
        yield


def _compiled(forward: Callable[..., Any], backend: str) -> Callable[..., Any]:
    """Of a layer: the function of its class, which all layers share, before one that somebody put in its place."""
    if isinstance(forward, MethodType):
        return partial(for_any_length(forward.__func__, backend), forward.__self__)
    return torch.compile(forward, dynamic=True, backend=backend)


def check_compiler(device: str) -> None:
    """Compile something small.

    Raises: ConfigError where that fails, for want of a compiler or for whatever reason torch gives.
    """
    try:
        torch.compile(torch.sin, dynamic=True, backend=INDUCTOR)(torch.ones(8, device=device))
    except Exception as error:
        raise ConfigError(cannot_compile(error)) from error


def cannot_compile(error: Exception) -> str:
    """What to do about a failure of torch.compile."""
    reason = next((line for line in str(error).splitlines() if line and not line.startswith("backend=")), "")
    fix = "Fix: leave --compile out; nothing but time depends on it"
    if "compiler" in reason.lower():
        fix = "Fix: install g++ (apt install g++), or name another C++ compiler in CXX; or leave --compile out"
    return f"--compile: torch.compile cannot be used here: {reason or type(error).__name__}. {fix}"
