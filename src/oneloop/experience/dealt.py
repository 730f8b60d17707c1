"""Sampling and scoring dealt to ranks by whole groups; afterwards every rank has all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from oneloop.experience.episodes import Request
from oneloop.experience.scoring import Scored
from oneloop.experience.wire import heard, told
from oneloop.ports import World
from oneloop.together import together


def dealt(world: World, requests: Sequence[Request], draw: Callable[[Sequence[Request]], Scored]) -> Scored:
    """What `draw` makes of all the requests, of which each rank draws its own groups.

    A request names its own seed, so that it does not matter who draws it. The seconds are those of the slowest rank.

    Raises: what `draw` raises on any rank, on all of them.
    """
    if world.ranks == 1:
        return draw(requests)
    groups = [list(members) for _, members in groupby(requests, key=lambda request: request.group)]
    mine = [group for group in world.share(groups) if group is not None]
    scored = together(world, lambda: draw([request for group in mine for request in group]))
    drawn = iter(scored.trajectories)
    everyone = world.collect([[told(next(drawn)) for _ in group] for group in mine])
    return Scored(
        [
            heard(request, words)
            for group, rows in zip(groups, everyone, strict=True)
            for request, words in zip(group, rows, strict=True)
        ],
        world.sum({"seconds/max": scored.seconds})["seconds/max"],
    )
