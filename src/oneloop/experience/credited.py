"""What each turn of an episode was learned with: the mean advantage of its own tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from oneloop.batch import Batch
from oneloop.types import Trajectory, Turn


def credited(items: Sequence[Trajectory], batch: Batch) -> list[tuple[Turn, ...]]:
    """The turns of the batch's rows. Without an advantage stay the environment's, which have none, and those that
    nothing is trained on."""
    if batch.advantages is None or not any(item.turns for item in items):
        return [item.turns for item in items]
    rows = zip(items, batch.advantages.tolist(), batch.mask.tolist(), strict=True)
    return [tuple(_credited(turn, len(item.prompt.tokens), *row) for turn in item.turns) for item, *row in rows]


def _credited(turn: Turn, prompt: int, advantages: Sequence[float], mask: Sequence[bool]) -> Turn:
    if not turn.chosen or turn.span is None:
        return turn
    places = range(prompt + turn.span[0], prompt + turn.span[1])
    trained = [advantages[place] for place in places if mask[place]]
    return replace(turn, advantage=fmean(trained)) if trained else turn
