"""Rated answers: a group of one, with reward 1 where the answer is good and 0 where it is bad."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from oneloop.batch import Batch
from oneloop.experience.pack import Row, collate
from oneloop.experience.stream import FixedData, Stream


@dataclass(frozen=True, slots=True)
class Rated:
    """A prompt with an answer, end token included, and whether it is a good one."""

    prompt: Sequence[int]
    completion: Sequence[int]
    good: bool


def rated_batch(items: Sequence[Rated], device: torch.device | str = "cpu") -> Batch:
    return collate(
        [
            Row(prompt=item.prompt, actions=item.completion, group=number, reward=float(item.good))
            for number, item in enumerate(items)
        ],
        device,
    )


def Ratings(items: Sequence[Rated], *, per_step: int, seed: int, device: torch.device | str = "cpu") -> FixedData:
    """Experience of a fixed set of rated answers, `per_step` of them a step."""
    return FixedData(Stream(items, seed), lambda chosen: rated_batch(chosen, device), per_step)
