"""The forward passes of a step's updates, put back in the order of the batch's rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from oneloop.batch import Batch, PolicyOutput
from oneloop.ports import World


class Saw(NamedTuple):
    """One microbatch, on its own device and without a graph."""

    update: int
    place: Int[Tensor, " R"]
    out: PolicyOutput

    @classmethod
    def of(cls, update: int, micro: Batch, out: PolicyOutput) -> Saw:
        kept = PolicyOutput(
            out.logprobs.detach(),
            None if out.entropy is None else out.entropy.detach(),
            scores=None if out.scores is None else out.scores.detach(),
        )
        return cls(update, micro.place, kept)


def everyones(saws: Sequence[Saw], dtype: torch.dtype, world: World) -> Sequence[Saw]:
    """What all ranks saw, in the order of updates: shapes are told, and numbers are one sum to which each adds its own.

    Args:
        dtype: one that holds the numbers exactly.
    """
    if world.ranks == 1:
        return saws
    told = [[saw.update, saw.place.tolist(), _shapes(saw.out)] for saw in saws]
    every = [(rank, *words) for rank, own in enumerate(world.collect([told])) for words in own]
    numbers = torch.zeros(sum(prod(shape) for *_, shapes in every for shape in shapes.values()), dtype=dtype)
    found: list[Saw] = []
    own, end = iter(saws), 0
    for rank, update, place, shapes in every:
        views: dict[str, Tensor] = {}
        for name, shape in shapes.items():
            views[name] = numbers[end : end + prod(shape)].view(shape)
            end += prod(shape)
        if rank == world.rank:
            for name, value in next(own).out._asdict().items():
                if name in views:
                    views[name].copy_(value)
        found.append(Saw(update, torch.tensor(place, dtype=torch.int64), PolicyOutput(**views)))
    world.add(numbers)  # and with it the views
    return sorted(found, key=lambda saw: saw.update)


def _shapes(out: PolicyOutput) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in out._asdict().items() if value is not None}


@dataclass(frozen=True)
class Passes:
    """K passes over B rows at most: with several epochs a row is seen once in each of them.

    Args:
        update: number of the optimizer step, within its step of the run, at whose gradient a row was seen; −1: never.
        logprobs: log π_θ just before that gradient was applied; NaN where a row was not seen.
        entropy, scores: of each row's first pass.
    """

    update: Int[Tensor, "K B"]
    logprobs: Float[Tensor, "K B T"]
    entropy: Float[Tensor, "B T"] | None
    scores: Float[Tensor, " B"] | None

    @classmethod
    def gathered(cls, saws: Sequence[Saw], batch: Batch) -> Passes:
        rows, width = batch.mask.shape
        visits = torch.zeros(rows, dtype=torch.int64)
        updates: list[Tensor] = []
        logprobs: list[Tensor] = []
        entropy = scores = None
        for update, place, out in saws:
            place, out = place.cpu(), _on_cpu(out)
            for visit in torch.unique(visits[place]).tolist():  # one number, but where an epoch skipped some rows
                if visit == len(updates):
                    updates.append(torch.full((rows,), -1, dtype=torch.int32))
                    logprobs.append(torch.full((rows, width), torch.nan, dtype=out.logprobs.dtype))
                those = visits[place] == visit
                updates[visit][place[those]] = update
                logprobs[visit][place[those], : out.logprobs.shape[1]] = out.logprobs[those]
            first = visits[place] == 0
            if out.entropy is not None:
                entropy = torch.full((rows, width), torch.nan, dtype=out.entropy.dtype) if entropy is None else entropy
                entropy[place[first], : out.entropy.shape[1]] = out.entropy[first]
            if out.scores is not None:
                scores = torch.full((rows,), torch.nan, dtype=out.scores.dtype) if scores is None else scores
                scores[place[first]] = out.scores[first]
            visits[place] += 1
        if not updates:
            empty = batch.rewards.new_zeros((0, rows, width), device="cpu")
            return cls(torch.zeros((0, rows), dtype=torch.int32), empty, None, None)
        return cls(torch.stack(updates), torch.stack(logprobs), entropy, scores)

    @property
    def seen(self) -> Bool[Tensor, "K B"]:
        return self.update >= 0

    @property
    def count(self) -> int:
        """Optimizer steps of the step."""
        return int(self.update.max()) + 1 if self.update.numel() else 0

    def rows(self, index: Int[Tensor, " R"]) -> Passes:
        return Passes(
            self.update[:, index],
            self.logprobs[:, index],
            None if self.entropy is None else self.entropy[index],
            None if self.scores is None else self.scores[index],
        )

    def old_logprobs(self, batch: Batch) -> Float[Tensor, "B T"] | None:
        """log π_old: with a single update a batch, that of the update's own pass, whose ratio is therefore 1.

        None where nothing was seen and nothing is known.
        """
        if batch.old_logprobs is not None:
            return batch.old_logprobs
        return self.logprobs[0] if len(self.logprobs) else None


def _on_cpu(out: PolicyOutput) -> PolicyOutput:
    return out._replace(**{name: value.cpu() for name, value in out._asdict().items() if value is not None})
