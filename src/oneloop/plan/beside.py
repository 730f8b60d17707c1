"""What a second process holds that draws beside the trainer, and what waits for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from oneloop.config import Run
from oneloop.plan.rehearsal import Cast
from oneloop.plan.shapes import kind_of_device
from oneloop.plan.spread import Spread, copy_of
from oneloop.plan.standing import SAMPLING_RUNTIME


@dataclass(frozen=True)
class Beside:
    """Bytes beside those of the trainer's process; none where there is no second one.

    Args:
        process: of the second one, on the device.
        on_the_way: weights in the machine's memory that it has not read yet.
    """

    process: Mapping[str, int] = field(default_factory=dict)
    on_the_way: int = 0


def beside(run: Run, cast: Cast, sampled: Callable[[int], Mapping[str, int]]) -> Beside:
    """What `--staleness` adds with the built-in engine, of one rank.

    With `finish` weights wait for the end of what was begun before them: those of K updates, and of one that is being
    read. With `continue` they are read at the next token, and rows of K + 1 steps are drawn together.

    Args:
        sampled: what drawing the groups of so many steps at once holds.
    """
    continues = run.in_flight == "continue"
    # what is sent of a model that is cut over ranks is the copy that samples here
    sent = copy_of(cast.policy, cast.dtype if Spread.of(run).shares else torch.float32)
    process = {
        "weights": copy_of(cast.policy, torch.float32),
        **sampled(run.staleness + 1 if continues else 1),
        "runtime": SAMPLING_RUNTIME[kind_of_device(run)],
    }
    return Beside(process, sent * (1 if continues else run.staleness + 1))
