"""Rewards: graders for answers that can be checked, and the contract that every reward function is held to.

Names are loaded on first use, so that a worker process starts with little more than the user's function.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oneloop.rewards.functions import FormatReward, exact_match, numeric_match
    from oneloop.rewards.load import NamedReward, load_reward
    from oneloop.rewards.score import RewardScorer
    from oneloop.rewards.worker import Limits, Pool

__all__ = [
    "FormatReward", "Limits", "NamedReward", "Pool", "RewardScorer", "exact_match", "load_reward", "numeric_match",
]  # fmt: skip

_HOME = {
    "functions": ("FormatReward", "exact_match", "numeric_match"),
    "load": ("NamedReward", "load_reward"),
    "score": ("RewardScorer",),
    "worker": ("Limits", "Pool"),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'oneloop.rewards' has no attribute {name!r}")
    return getattr(import_module(f"oneloop.rewards.{_WHERE[name]}"), name)
