"""A new method in 15 lines: GRPO whose advantage is the rank of an answer in its group. Nothing is registered."""

import os
from dataclasses import dataclass, replace
from string import ascii_lowercase

import torch

import oneloop
from oneloop import GRPO
from oneloop.objective.advantage import Credit

STEPS = int(os.environ.get("ONELOOP_STEPS", "60"))


@dataclass(frozen=True)
class Rank:
    """Â = the share of the group that an answer beats, minus the share that beats it."""

    uses_values = False  # no critic
    compares = True  # several answers to one prompt

    def __call__(self, rewards, values, mask, group, *, bootstrap=None):
        total = (rewards * mask).sum(1)
        same = group[:, None] == group
        beats = torch.sign(total[:, None] - total) * same
        return Credit((beats.sum(1) / same.sum(1))[:, None] * mask, None)


def letters(completions, **columns):
    """How many different small letters an answer has."""
    return [float(len(set(text) & set(ascii_lowercase))) for text in completions]


run = oneloop.fit(
    replace(GRPO, name="rank", advantage=Rank(), kl=None),
    model="scratch:tiny",
    data=[{"prompt": f"{letter}:"} for letter in "abcdefgh"],
    reward=letters,
    steps=STEPS,
    prompts_per_step=8,
    max_new_tokens=12,
    learning_rate=3e-3,
    out="runs/rank",
)
print(run)
