"""Data parallelism over torch.distributed: every rank holds the models and its own groups.

Losses are weighted by the size of the whole step, so gradients are added up over ranks, never averaged.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from oneloop.batch import Size


class Distributed:
    """Implements `oneloop.ports.World` on an initialised process group."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.rank, self.ranks, self._device = dist.get_rank(), dist.get_world_size(), device

    def total(self, size: Size) -> Size:
        counts = torch.tensor(size, device=self._device)
        dist.all_reduce(counts)
        return Size(*(int(count) for count in counts))

    def gather(self, rows: Tensor) -> Tensor:
        shapes = self._shapes(rows)
        widest = [max(sizes) for sizes in zip(*shapes, strict=True)]
        sent = _grown(rows.contiguous(), widest)
        received = [torch.empty_like(sent) for _ in range(self.ranks)]
        dist.all_gather(received, sent)
        return torch.cat([piece[: shape[0]] for piece, shape in zip(received, shapes, strict=True)])

    def mine(self, rows: Tensor, like: Tensor) -> Tensor:
        counts = [shape[0] for shape in self._shapes(like)]
        start = sum(counts[: self.rank])
        own = rows[start : start + counts[self.rank]]
        return own[:, : like.shape[1]] if own.dim() > 1 else own

    def sum(self, stats: Mapping[str, float]) -> dict[str, float]:
        out = {}
        for name in sorted(stats):
            value = torch.tensor(stats[name], dtype=torch.float64, device=self._device)
            dist.all_reduce(value, dist.ReduceOp.MAX if name.endswith("/max") else dist.ReduceOp.SUM)
            out[name] = float(value)
        return out

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add up the gradients of every rank, in place; a rank that had no rows adds zeros."""
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)

    def _shapes(self, rows: Tensor) -> list[list[int]]:
        own = torch.tensor(rows.shape, device=self._device)
        every = [torch.empty_like(own) for _ in range(self.ranks)]
        dist.all_gather(every, own)
        return [shape.tolist() for shape in every]


def _grown(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """Padded at the end of each dimension with zeros."""
    missing = [wanted - size for wanted, size in zip(shape, rows.shape, strict=True)]
    padding = [amount for size in reversed(missing) for amount in (0, size)]
    return F.pad(rows, padding)
