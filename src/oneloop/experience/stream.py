"""An endless stream over a data set: each epoch in its own order, nothing dropped, resumed from one number."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import Any, Generic, TypeVar

from oneloop.batch import Batch
from oneloop.errors import DataError
from oneloop.ports import Models, Report
from oneloop.seeds import named_seed

T = TypeVar("T")


class Stream(Generic[T]):
    """Takes items one after another; an epoch that ends inside a batch goes on with the next one's order.

    Args:
        seed: names the order of every epoch.
        drawn: items already taken, the whole state of the stream.
    """

    def __init__(self, items: Sequence[T], seed: int) -> None:
        if not items:
            raise DataError("the data set has no rows left to train on")
        self._items, self._seed = items, seed
        self.drawn = 0
        self._order = lru_cache(maxsize=2)(self._make_order)

    def take(self, count: int) -> list[T]:
        self.drawn += count
        return self.at(self.drawn - count, count)

    def at(self, first: int, count: int) -> list[T]:
        """So many from a place on, which are not taken."""
        size = len(self._items)
        return [self._items[self._order(place // size)[place % size]] for place in range(first, first + count)]

    @property
    def epoch(self) -> float:
        """Passes over the data so far."""
        return self.drawn / len(self._items)

    def _make_order(self, epoch: int) -> array[int]:
        order = array("q", range(len(self._items)))
        Random(named_seed(self._seed, "order", epoch)).shuffle(order)
        return order


class FixedData(Generic[T]):
    """Implements `oneloop.ports.Experience` for data that does not change with the policy.

    Args:
        collate: how items become a batch.
        per_step: items per step.
    """

    def __init__(self, stream: Stream[T], collate: Callable[[Sequence[T]], Batch], per_step: int) -> None:
        self._stream, self._collate, self._per_step = stream, collate, per_step

    def batch(self, step: int) -> Batch:
        return self._collate(self._stream.take(self._per_step))

    def update(self, models: Models, step: int) -> None:
        """Nothing to do."""

    def report(self, batch: Batch) -> Report:
        return Report({"epoch": self._stream.epoch, "num_tokens": float(batch.mask.sum())}, [])

    def state(self) -> dict[str, Any]:
        return {"drawn": self._stream.drawn}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._stream.drawn = int(state["drawn"])
