"""Demonstrations: a group of one with reward 1, so that SFT is a policy gradient with advantage 1."""

from collections.abc import Sequence

import torch

from oneloop.batch import Batch
from oneloop.experience.pack import Row, collate
from oneloop.experience.stream import FixedData, Stream
from oneloop.types import Tokens


def demonstration_batch(items: Sequence[Tokens], device: torch.device | str = "cpu") -> Batch:
    """Rows as far as their last trained token: nothing is learned from what stands after it."""
    return collate([_row(item, number) for number, item in enumerate(items)], device)


def _row(item: Tokens, group: int) -> Row:
    if True not in item.trained:
        return Row(prompt=item.ids, actions=(), group=group, reward=1.0)
    first, end = item.trained.index(True), len(item.trained) - item.trained[::-1].index(True)
    flags = item.trained[first:end]
    return Row(
        prompt=item.ids[:first],
        actions=item.ids[first:end],
        chosen=None if all(flags) else flags,
        group=group,
        reward=1.0,
    )


def Demonstrations(
    items: Sequence[Tokens], *, per_step: int, seed: int, device: torch.device | str = "cpu"
) -> FixedData:
    """Experience of a fixed set of demonstrations, `per_step` of them a step."""
    return FixedData(Stream(items, seed), lambda chosen: demonstration_batch(chosen, device), per_step)
