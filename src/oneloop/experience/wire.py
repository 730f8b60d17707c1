"""A scored trajectory as JSON: what the rank that drew it tells the others, who know the request themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from oneloop.experience.episodes import Request
from oneloop.types import Completion, Reward, Trajectory


def told(item: Trajectory) -> dict[str, Any]:
    """All of it but its request. Floats keep their bits in JSON."""
    return {"text": item.text, "completion": asdict(item.completion), "reward": asdict(item.reward)}


def heard(request: Request, words: Mapping[str, Any]) -> Trajectory:
    """The trajectory again."""
    return Trajectory(
        prompt=request.prompt,
        group=request.group,
        sample=request.sample,
        completion=Completion.of_words(words["completion"]),
        text=words["text"],
        reward=Reward(**words["reward"]),
    )
