"""Gradient checkpointing: what a layer computed is forgotten after its forward pass, and computed again for backward.

Of each layer the states that enter it stay. The same operations on the same numbers give the same bits, so the
gradient is that of the pass without it. Dropout is off throughout, so no random numbers have to be put back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


def again(layer: Callable[..., Any], *inputs: Any) -> Any:
    """`layer(*inputs)`, computed a second time in backward instead of being kept."""
    if not torch.is_grad_enabled():
        return layer(*inputs)
    return checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False)


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The layers that transformers itself would checkpoint."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


@contextmanager
def recomputed(model: nn.Module, around: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """While it lasts, gradients of `model`'s layers are made by computing them again.

    Transformers' own switch asks for training mode, which would turn dropout on; this one looks at gradients alone.

    Args:
        around: what has to hold while a layer runs: backward comes when the caller has long left it.
    """
    with forwards(layers_of(model), lambda forward: partial(_forward, forward, around)):
        yield


@contextmanager
def forwards(
    layers: Sequence[nn.Module], instead: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """While it lasts, each layer's `forward` is what `instead` makes of it."""
    before = [layer.__dict__.get("forward") for layer in layers]
    for layer in layers:
        layer.forward = instead(layer.forward)
    try:
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward


def _forward(
    whole: Callable[..., Any], around: Callable[[], AbstractContextManager[None]], *inputs: Any, **named: Any
) -> Any:
    def run(*inputs: Any) -> Any:
        with around():
            return whole(*inputs, **named)

    return again(run, *inputs)
