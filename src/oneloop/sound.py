"""Finite or nothing: a step on numbers that are no numbers changes no weight, and says where they came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from oneloop.batch import Batch, Loss, PolicyOutput
from oneloop.errors import DivergedError
from oneloop.ports import Careful, Models, World


@dataclass(frozen=True)
class Unsound:
    """What kept an optimizer step from being taken."""

    step: int
    update: int
    """Minibatches of the step before it."""
    what: str
    """The first tensor that is not finite, in the order in which they are computed."""
    row: int | None
    """Of the step's batch; None for a gradient, which is of all rows."""
    rank: int

    def __str__(self) -> str:
        where = "" if self.row is None else f" of row {self.row}"
        return f"{self.what}{where} on rank {self.rank} is not finite"


Told = Callable[[Unsound, Batch], None]
"""Told of a step that is not taken, with the step's batch."""


def unheard(found: Unsound, batch: Batch) -> None:
    """Nobody asks."""


ORDER = ("rewards", "rollout_logprobs", "old_logprobs", "ref_logprobs", "values", "returns", "advantages", "offset")
"""Parts of a prepared batch, as they come to be."""


class Sound:
    """Watches the passes of one step, and takes no optimizer step of what is not finite, on any rank.

    Nothing is asked of the device before the passes of an optimizer step are through.

    Args:
        batch: prepared.
    """

    def __init__(self, step: int, batch: Batch, world: World, told: Told) -> None:
        self._step, self._batch, self._world, self._told = step, batch, world, told
        parts = {name: value for name in ORDER if (value := getattr(batch, name)) is not None}
        self._given = {name: _bad_rows(value, batch.mask) for name, value in parts.items()}
        # once for all of the step's updates
        self._given_odd = [rows.any() for rows in self._given.values()]
        self._passes: list[tuple[Tensor, dict[str, Tensor]]] = []
        self.broken = False
        """Whether an optimizer step was not taken: those that are left would be made of the same numbers."""

    def begin(self) -> None:
        """The passes of another optimizer step, or of the same once more."""
        self._passes.clear()

    def saw(self, micro: Batch, out: PolicyOutput, loss: Loss) -> None:
        parts = {name: value for name, value in out._asdict().items() if value is not None}
        bad = {name: _bad_rows(value.detach(), micro.mask) for name, value in parts.items()}
        if out.scores is not None and out.entropy is not None:  # a reward model has neither log-probs nor entropies
            undefined = ((out.logprobs.isnan() & out.entropy.isnan()) | ~micro.mask).all()
            bad |= {name: bad[name] & ~undefined for name in ("logprobs", "entropy")}
        lost = ~torch.isfinite(loss.value.detach())
        self._passes.append((micro.place, {**bad, "loss": lost.expand(len(micro))}))

    def step(self, update: int, models: Models, take: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
        """`take()`, the optimizer's step or the algorithm's own; where it is not taken, the reason is told.

        Raises: DivergedError, with the reason of this last one.
        """
        try:
            stats = models.skip() if self._odd() and isinstance(models, Careful) else take()
        except DivergedError as error:
            error.add_note(f"the last one: {self._tell(update)}")
            raise
        if stats.get("skipped_steps"):
            self.broken = True
            self._tell(update)
        return stats

    def _odd(self) -> bool:
        """Whether anything that was seen is not finite, on whichever rank."""
        flags = [*self._given_odd, *(rows.any() for _, bad in self._passes for rows in bad.values())]
        here = bool(flags) and bool(torch.stack(flags).any())
        return self._world.sum({"odd/max": float(here)})["odd/max"] > 0

    def _tell(self, update: int) -> Unsound:
        mine = self._found()
        every: list[Any] = self._world.collect([None if mine is None else [*mine, self._world.rank]])
        what, row, rank = next((one for one in every if one is not None), ("the gradient", None, 0))
        found = Unsound(self._step, update, what, row, rank)
        self._told(found, self._batch)
        return found

    def _found(self) -> tuple[str, int] | None:
        """The first tensor and row that are not finite here."""
        every = torch.arange(len(self._batch), device=self._batch.mask.device)
        for place, bad in [(every, self._given), *self._passes]:
            for name, rows in bad.items():
                if bool(rows.any()):
                    return name, int(place[rows.nonzero()[0, 0]])
        return None


def _bad_rows(value: Tensor, mask: Tensor) -> Tensor:
    """Rows with a number at an action, or of a whole row, that is not finite."""
    bad = ~torch.isfinite(value)
    return (bad & mask).any(1) if bad.dim() == 2 else bad
