"""Your own rows and your own reward: prompts in a JSONL file, a function that reads one of its columns.

The untrained model learns to write vowels or digits, as the row asks. Half a minute on a laptop.
"""

import json
import os
from pathlib import Path

import oneloop

STEPS = int(os.environ.get("ONELOOP_STEPS", "60"))


def share_wanted(completions, wanted, **columns):
    """`completions` and every column of the rows come as lists of one length; one number for each goes back."""
    return [
        sum(character in kind for character in text) / 8 if text else None  # None: this one cannot be scored
        for text, kind in zip(completions, wanted, strict=True)
    ]


rows = [{"prompt": "vowels:", "wanted": "aeiou"}, {"prompt": "digits:", "wanted": "0123456789"}] * 16
Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

run = oneloop.fit(
    "rloo",
    model="scratch:tiny",
    data="rows.jsonl",
    reward=share_wanted,
    steps=STEPS,
    prompts_per_step=8,
    group_size=8,
    max_new_tokens=8,
    learning_rate=3e-3,
    out="runs/own_reward",
)
print(run)
print(run.rollouts().head(4))
