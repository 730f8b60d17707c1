"""Sampling and scoring dealt to ranks by whole groups; afterwards every rank has all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import TypeVar

from oneloop.experience.episodes import Request
from oneloop.experience.scoring import Scored
from oneloop.experience.wire import heard, told
from oneloop.ports import World
from oneloop.together import together
from oneloop.types import Trajectory

T = TypeVar("T", Request, Trajectory)


def own(world: World, requests: Sequence[Request]) -> list[Request]:
    """Those that this rank draws: of whole groups."""
    return [request for group in world.share(_groups(requests)) if group is not None for request in group]


def _groups(items: Sequence[T]) -> list[list[T]]:
    return [list(members) for _, members in groupby(items, key=lambda item: item.group)]


def dealt(world: World, requests: Sequence[Request], draw: Callable[[Sequence[Request]], Scored]) -> Scored:
    """What `draw` makes of all the requests, of which each rank draws its own groups.

    A request names its own seed, so that it does not matter who draws it. The seconds are those of the slowest rank.

    Raises: what `draw` raises on any rank, on all of them.
    """
    if world.ranks == 1:
        return draw(requests)
    scored = together(world, lambda: draw(own(world, requests)))
    everyone = world.collect([[told(item) for item in group] for group in _groups(scored.trajectories)])
    return Scored(
        [
            heard(request, words)
            for group, rows in zip(_groups(requests), everyone, strict=True)
            for request, words in zip(group, rows, strict=True)
        ],
        world.sum({"seconds/max": scored.seconds})["seconds/max"],
        _summed(world, scored.counts),
    )


def _summed(world: World, counts: Mapping[str, float]) -> dict[str, float]:
    """Over the ranks; seconds are those of the slowest."""
    names = {name: f"{name}/max" if name.startswith("time/") else name for name in counts}
    every = world.sum({names[name]: value for name, value in counts.items()})
    return {name.removesuffix("/max"): value for name, value in every.items()}
