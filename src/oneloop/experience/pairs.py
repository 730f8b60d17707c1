"""Preference pairs: a group of two, the chosen answer with reward 1 and the rejected one with 0."""

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import overload

import torch
from jaxtyping import Float
from torch import Tensor

from oneloop.batch import Batch
from oneloop.experience.pack import Row, collate
from oneloop.experience.stream import FixedData, Stream

Answers = tuple[Sequence[float], Sequence[float]]
"""A number for each token of the chosen and of the rejected answer."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt with a better and a worse answer, end tokens included."""

    prompt: Sequence[int]
    chosen: Sequence[int]
    rejected: Sequence[int]
    reference: Answers | None = None
    """log π_ref, nats; None: to be asked for at every step."""
    margin: float = 0.0
    """What a reward model's score of the chosen answer must lead by."""


def pair_batch(items: Sequence[Pair], device: torch.device | str = "cpu") -> Batch:
    rows = []
    for number, item in enumerate(items):
        chosen, rejected = item.reference or (None, None)
        rows.append(
            Row(
                prompt=item.prompt,
                actions=item.chosen,
                group=number,
                reward=1.0,
                ref_logprobs=chosen,
                offset=item.margin,
            )
        )
        rows.append(Row(prompt=item.prompt, actions=item.rejected, group=number, reward=0.0, ref_logprobs=rejected))
    return collate(rows, device)


def Pairs(items: Sequence[Pair], *, per_step: int, seed: int, device: torch.device | str = "cpu") -> FixedData:
    """Experience of a fixed set of preferences, `per_step` pairs a step."""
    return FixedData(Stream(items, seed), lambda chosen: pair_batch(chosen, device), per_step)


Reference = Callable[[Batch], Float[Tensor, "B T"]]
"""A batch to log π_ref of its tokens."""


def with_reference(
    items: Sequence[Pair],
    reference: Reference,
    *,
    per_step: int,
    seed: int,
    steps: int,
    device: torch.device | str = "cpu",
) -> Sequence[Pair]:
    """The pairs with π_ref's log-probs in those that `Pairs` will draw in so many steps: nobody asks for them again.

    Each is read in the batch of the step that draws it first, so that the numbers are those of a run that asks at every
    step, and do not depend on how long the run is.
    """
    known: dict[int, Answers] = {}
    places = Stream(range(len(items)), seed)
    for _ in range(steps):
        if len(known) == len(items):
            break
        drawn = places.take(per_step)
        if any(place not in known for place in drawn):
            batch = pair_batch([items[place] for place in drawn], device)
            rows = [array("f", row[acted].tolist()) for row, acted in zip(reference(batch), batch.mask, strict=True)]
            answers = zip(rows[0::2], rows[1::2], strict=True)
            known |= {place: both for place, both in zip(drawn, answers, strict=True) if place not in known}
    return _Referred(items, known)


@dataclass(frozen=True)
class _Referred(Sequence[Pair]):
    """Pairs with what is known of the reference, by their place."""

    items: Sequence[Pair]
    known: Mapping[int, Answers]

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, place: int) -> Pair: ...
    @overload
    def __getitem__(self, place: slice) -> list[Pair]: ...
    def __getitem__(self, place: int | slice) -> Pair | list[Pair]:
        if isinstance(place, slice):
            return [self[number] for number in range(len(self))[place]]
        number = range(len(self))[place]
        return replace(self.items[number], reference=self.known.get(number))
