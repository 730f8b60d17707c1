"""Rewards: graders for answers that can be checked, and the contract that every reward function is held to."""

from oneloop.rewards.functions import FormatReward, exact_match, numeric_match
from oneloop.rewards.load import NamedReward, load_reward
from oneloop.rewards.score import RewardScorer
from oneloop.rewards.worker import Limits, Pool

__all__ = [
    "FormatReward",
    "Limits",
    "NamedReward",
    "Pool",
    "RewardScorer",
    "exact_match",
    "load_reward",
    "numeric_match",
]
