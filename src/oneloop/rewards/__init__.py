"""Rewards: graders for answers that can be checked, and the contract that every reward function is held to."""

from oneloop.rewards.functions import FormatReward, exact_match, numeric_match
from oneloop.rewards.load import NamedReward, load_reward
from oneloop.rewards.score import RewardScorer

__all__ = ["FormatReward", "NamedReward", "RewardScorer", "exact_match", "load_reward", "numeric_match"]
