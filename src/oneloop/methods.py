"""The algorithms by name, for what must answer before torch is loaded: `oneloop.algorithms` has their values."""

from difflib import get_close_matches
from typing import Literal

from oneloop.config import MARK
from oneloop.errors import ConfigError

LEARNS_FROM: dict[str, Literal["prompts", "demonstrations", "preferences", "unpaired"]] = {
    "ppo": "prompts",
    "grpo": "prompts",
    "dapo": "prompts",
    "dr_grpo": "prompts",
    "rloo": "prompts",
    "reinforce": "prompts",
    "reinforce_pp": "prompts",
    "gspo": "prompts",
    "cispo": "prompts",
    "sft": "demonstrations",
    "dpo": "preferences",
    "ipo": "preferences",
    "reward_model": "preferences",
    "simpo": "preferences",
    "orpo": "preferences",
    "kto": "unpaired",
    "distill": "prompts",
    "trpo": "prompts",
    "npg": "prompts",
    "a2c": "prompts",
    "vpg": "prompts",
}
"""What each algorithm learns from, in the order of `ALGORITHMS`; a test holds the two together."""


def check_name(name: str) -> None:
    """Raises: ConfigError with the nearest name."""
    if name.startswith(MARK):
        raise ConfigError(
            f"algorithm = {name!r} was handed over in Python, and these words cannot bring it back. "
            "Fix: oneloop.fit(the same value, ...)"
        )
    if name not in LEARNS_FROM:
        meant = name.replace("-", "_").lower()
        near = get_close_matches(meant, LEARNS_FROM, 3, 0.4)
        # of names that are equally near, the one with the same letters: gpro is grpo, not gspo
        near.sort(key=lambda one: sorted(one) != sorted(meant))
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"there is no algorithm {name!r}; known: {', '.join(LEARNS_FROM)}.{hint}")
