"""Preference pairs: a group of two, the chosen answer with reward 1 and the rejected one with 0."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from oneloop.batch import Batch
from oneloop.experience.pack import Row, collate
from oneloop.experience.stream import FixedData, Stream


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt with a better and a worse answer, end tokens included."""

    prompt: Sequence[int]
    chosen: Sequence[int]
    rejected: Sequence[int]


def pair_batch(items: Sequence[Pair], device: torch.device | str = "cpu") -> Batch:
    rows = []
    for number, item in enumerate(items):
        rows.append(Row(prompt=item.prompt, actions=item.chosen, group=number, reward=1.0))
        rows.append(Row(prompt=item.prompt, actions=item.rejected, group=number, reward=0.0))
    return collate(rows, device)


def Pairs(items: Sequence[Pair], *, per_step: int, seed: int, device: torch.device | str = "cpu") -> FixedData:
    """Experience of a fixed set of preferences, `per_step` pairs a step."""
    return FixedData(Stream(items, seed), lambda chosen: pair_batch(chosen, device), per_step)
