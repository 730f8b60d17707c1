"""Demonstrations: a group of one with reward 1, so that SFT is a policy gradient with advantage 1."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from oneloop.batch import Batch
from oneloop.experience.pack import Row, collate
from oneloop.experience.stream import FixedData, Stream


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt and the answer to imitate, end token included."""

    prompt: Sequence[int]
    completion: Sequence[int]


def demonstration_batch(items: Sequence[Demonstration], device: torch.device | str = "cpu") -> Batch:
    return collate(
        [
            Row(prompt=item.prompt, actions=item.completion, group=number, reward=1.0)
            for number, item in enumerate(items)
        ],
        device,
    )


def Demonstrations(
    items: Sequence[Demonstration], *, per_step: int, seed: int, device: torch.device | str = "cpu"
) -> FixedData:
    """Experience of a fixed set of demonstrations, `per_step` of them a step."""
    return FixedData(Stream(items, seed), lambda chosen: demonstration_batch(chosen, device), per_step)
