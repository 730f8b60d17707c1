"""Ranks over torch.distributed: what is dealt, added up and told between processes that train together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from math import isnan, nan
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from oneloop.errors import OneloopError
from oneloop.ports import World

T = TypeVar("T")


class Distributed:
    """Implements `oneloop.ports.World` on an initialised process group.

    Values travel as JSON in tensors of bytes over gloo, whatever carries tensors: nothing that arrives is unpickled.

    Args:
        timeout: how long a rank is waited for where values are told; None: torch's own.
    """

    def __init__(self, timeout: timedelta | None = None) -> None:
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self._values = dist.new_group(backend="gloo", timeout=timeout)
        self.calls = 0
        """Collective calls that this rank has come to."""
        self.waiting = False
        """Whether it is in one, or one failed."""

    def share(self, items: Sequence[T]) -> list[T | None]:
        mine: list[T | None] = list(items[self.rank :: self.ranks])
        return mine + [None] * (-(-len(items) // self.ranks) - len(mine))

    def collect(self, mine: Sequence[T]) -> list[T]:
        everyone = self._everyone(list(mine))
        rounds = range(max(map(len, everyone)))
        return [own[place] for place in rounds for own in everyone if place < len(own)]

    def add(self, rows: Tensor) -> Tensor:
        with self._call():
            dist.all_reduce(rows)
        return rows

    def sum(self, stats: Mapping[str, float]) -> dict[str, float]:
        everyone = self._everyone(dict(stats))
        return {
            name: (_largest if name.endswith("/max") else sum)([own[name] for own in everyone if name in own])
            for name in dict.fromkeys(name for own in everyone for name in own)
        }

    def agree(self, value: T) -> T:
        return self._everyone(value if self.rank == 0 else None)[0]

    def _everyone(self, value: Any) -> list[Any]:
        """Each rank's value, in rank order."""
        told = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.ranks)]
        with self._call():
            dist.all_gather(lengths, torch.tensor([len(told)]), group=self._values)
            longest = max(int(length) for length in lengths)
            received = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.ranks)]
            dist.all_gather(received, torch.cat([told, told.new_zeros(longest - len(told))]), group=self._values)
        return [
            json.loads(piece[: int(length)].numpy().tobytes()) for piece, length in zip(received, lengths, strict=True)
        ]

    @contextmanager
    def _call(self) -> Iterator[None]:
        self.calls += 1
        self.waiting = True
        yield
        self.waiting = False


def check_replicas(world: World, parameters: Iterable[Tensor]) -> None:
    """Raises: OneloopError, on every rank, where one of them begins with other weights than rank 0."""
    if world.ranks == 1:
        return
    own = [_bytes(parameter) for parameter in parameters]
    every = world.collect([own])
    odd = [rank for rank, sums in enumerate(every) if sums != every[0]]
    if odd:
        raise OneloopError(
            f"rank {odd[0]} begins with other weights than rank 0: --model, or the checkpoint, is another file there. "
            "Fix: the same files on every machine"
        )


def _bytes(weights: Tensor) -> int:
    """Their sum: the same in whatever order it is taken, and other for other weights, unless changes cancel out."""
    return int(weights.detach().reshape(-1).view(torch.uint8).sum(dtype=torch.int64))


def _largest(values: Sequence[float]) -> float:
    return nan if any(map(isnan, values)) else max(values)
