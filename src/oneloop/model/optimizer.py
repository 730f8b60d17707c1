"""How gradients become updates: AdamW, AdamW with moments of eight bits, or Adafactor, its plan and its state.

References: AdamW arXiv:1711.05101; 8-bit moments arXiv:2110.02861; Adafactor arXiv:1804.04235.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import cos, pi, prod
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from oneloop.errors import ConfigError

Kind = Literal["adamw", "adamw-8bit", "adafactor"]
BLOCK, LEAST = 256, 4096
"""Numbers that share a scale in bitsandbytes' moments; a parameter with fewer than `LEAST` keeps them in float32."""
LEVELS = "qmap"
"""What the 256 bytes of a moment stand for: one tensor for all parameters."""
MOST_SKIPS = 3
"""Optimizer steps in a row with a gradient that is not finite, after which a run stops."""
INSTALL = "pip install 'oneloop[8bit]'"

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
"""Whoever imports it, peft too, would be told of a package for products of four bits."""


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """How gradients become updates."""

    learning_rate: float
    critic_learning_rate: float
    total_updates: int
    """Planned optimizer steps: where a decaying schedule ends."""
    warmup_updates: int = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    optimizer: Kind = "adamw"

    def factor(self, update: int) -> float:
        """Share of the learning rate at optimizer step `update` (from 0)."""
        if update < self.warmup_updates:
            return (update + 1) / (self.warmup_updates + 1)
        if self.schedule == "constant":
            return 1.0
        span = max(self.total_updates - self.warmup_updates, 1)
        left = max(1 - (update - self.warmup_updates) / span, 0.0)
        return left if self.schedule == "linear" else (1 - cos(pi * left)) / 2


class Piece(NamedTuple):
    """A tensor of an optimizer's state."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def available() -> bool:
    """Whether bitsandbytes is there, which has the moments of eight bits."""
    return find_spec("bitsandbytes") is not None


def check_optimizer(kind: Kind, device: str) -> None:
    """Raises: ConfigError where `kind` cannot run: its library is missing, or a step of it fails on `device`."""
    if kind != "adamw-8bit":
        return
    if not available():
        raise ConfigError(f"--optimizer {kind} needs bitsandbytes, which is not installed. Fix: {INSTALL}")
    try:
        tried = nn.Parameter(torch.ones(LEAST, device=device))
        tried.grad = torch.ones_like(tried)
        optimizer_of(kind, [{"params": [tried], "lr": 1e-3}], tried.device).step()
    except Exception as error:  # of the library, of the kernels that it looks for, or of the device
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"--optimizer {kind}: bitsandbytes cannot be used on {device} here: {reason}. Fix: --optimizer adamw"
        ) from error


def optimizer_of(kind: Kind, groups: Sequence[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
    if kind == "adamw":
        return torch.optim.AdamW(groups, fused=device.type in ("cpu", "cuda"))
    if kind == "adafactor":
        return torch.optim.Adafactor(groups)
    from bitsandbytes.optim.adamw import AdamW8bit  # noqa: PLC0415  # heavy, and an extra

    return AdamW8bit(groups, min_8bit_size=LEAST)  # pyright: ignore[reportArgumentType]


def decayed(named: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[tuple[float, list[nn.Parameter]]]:
    """Matrices with weight decay; norms and biases without."""
    members = [parameter for _, parameter in named]
    return [(weight_decay, [p for p in members if p.dim() > 1]), (0.0, [p for p in members if p.dim() <= 1])]


def layout(kind: Kind, shape: Sequence[int]) -> dict[str, Piece]:
    """The state of a parameter, its count of steps aside."""
    shape = tuple(shape)
    if kind == "adamw":
        return {"exp_avg": Piece(shape), "exp_avg_sq": Piece(shape)}
    if kind == "adafactor":
        if len(shape) < 2:
            return {"variance": Piece(shape)}
        *outer, rows, columns = shape
        return {"row_var": Piece((*outer, rows, 1)), "col_var": Piece((*outer, 1, columns))}
    if (count := prod(shape)) < LEAST:
        return {"state1": Piece(shape), "state2": Piece(shape)}
    # a byte for each number, what the 256 bytes stand for, and a scale for each block
    codes, levels, scales = Piece(shape, torch.uint8), Piece((256,)), Piece((-(-count // BLOCK),))
    return {
        f"{part}{moment}": piece
        for moment in (1, 2)
        for part, piece in (("state", codes), (LEVELS, levels), ("absmax", scales))
    }


def state_bytes(kind: Kind, *modules: nn.Module | None) -> int:
    """Bytes of the state of everything that is trained."""
    trained = [p for module in modules if module is not None for p in module.parameters() if p.requires_grad]
    return sum(piece.nbytes for parameter in trained for piece in layout(kind, parameter.shape).values())


def as_tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """A parameter's state for a file of tensors, which refuses those that several parameters share."""
    found = {key: torch.as_tensor(value) for key, value in state.items()}
    return found | {key: value.clone() for key, value in found.items() if key.startswith(LEVELS)}


def from_tensors(kind: Kind, pieces: Mapping[str, Tensor], device: torch.device) -> dict[str, Any]:
    """The state that `as_tensors` was given, on the device of the parameter.

    The count of steps is where the optimizer keeps it: fused AdamW beside the parameter, Adafactor on the CPU,
    bitsandbytes as a number of Python's.
    """
    count = pieces["step"]
    steps = {"adamw": count.to(device), "adafactor": count.cpu(), "adamw-8bit": int(count)}
    return {key: value.to(device) for key, value in pieces.items()} | {"step": steps[kind]}
