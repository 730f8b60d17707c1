"""The classical recipe: SFT, a reward model from preference pairs, PPO on what it says, judged by the real grader.

Two minutes on a laptop.
"""

import os

import oneloop

STEPS = int(os.environ.get("ONELOOP_STEPS", "150"))
task = {"data": "task:addition", "data_size": 1000, "eval_size": 64}

sft = oneloop.fit("sft", model="scratch:tiny", steps=STEPS, learning_rate=3e-3, out="runs/sft", **task)
scores = oneloop.fit(
    "reward_model", model=sft.path / "final", steps=STEPS // 2 + 1, learning_rate=5e-4, out="runs/reward_model", **task
)
ppo = oneloop.fit(
    "ppo",
    model=sft.path / "final",
    reward_model=str(scores.path / "final"),
    eval_reward="task:addition",  # the reward that is meant, beside the one that is trained on
    eval_every=5,
    steps=STEPS // 5 + 1,
    epochs=2,
    max_new_tokens=8,
    learning_rate=1e-4,
    critic_learning_rate=1e-3,
    out="runs/ppo",
    **task,
)
for run in (sft, scores, ppo):
    print(run)
