"""A scored trajectory as JSON: what the rank that drew it tells the others, who know the request themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from oneloop.experience.episodes import Request
from oneloop.types import Call, Completion, Prompt, Reward, Trajectory, Turn


def told(item: Trajectory) -> dict[str, Any]:
    """All of it but its request. Floats keep their bits in JSON."""
    prompt = {"text": item.prompt.text, "tokens": item.prompt.tokens, "messages": item.prompt.messages}
    return {
        "prompt": prompt if item.turns else None,  # an environment asks what it likes
        "text": item.text,
        "completion": asdict(item.completion),
        "reward": asdict(item.reward),
        "turns": [asdict(turn) for turn in item.turns],
    }


def heard(request: Request, words: Mapping[str, Any]) -> Trajectory:
    """The trajectory again."""
    prompt, reward = words["prompt"], words["reward"]
    return Trajectory(
        prompt=request.prompt if prompt is None else _asked(request.prompt, prompt),
        group=request.group,
        sample=request.sample,
        completion=Completion.of_words(words["completion"]),
        text=words["text"],
        reward=Reward(**{**reward, "placed": tuple((place, value) for place, value in reward["placed"])}),
        turns=tuple(_turn(turn) for turn in words["turns"]),
    )


def _turn(words: Mapping[str, Any]) -> Turn:
    span, calls = words["span"], tuple(Call(**call) for call in words["calls"])
    return Turn(**{**words, "span": None if span is None else tuple(span), "calls": calls})


def _asked(prompt: Prompt, words: Mapping[str, Any]) -> Prompt:
    messages = words["messages"]
    kept = None if messages is None else tuple(messages)
    return replace(prompt, text=words["text"], tokens=tuple(words["tokens"]), messages=kept)
