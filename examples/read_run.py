"""What a run says about itself: `python read_run.py runs/x`, or without a path of a small run made for it."""

import os
import sys
from pathlib import Path

import oneloop

STEPS = int(os.environ.get("ONELOOP_STEPS", "20"))
SMALL = {"model": "scratch:tiny", "data": "task:addition", "max_new_tokens": 4, "out": "runs/small", "overwrite": True}

run = oneloop.open_run(sys.argv[1]) if len(sys.argv) > 1 else oneloop.fit("grpo", steps=STEPS, **SMALL)
print(run)
print(run.record.info["status"], run.record.config["learning_rate"])

metrics = run.metrics()  # a pandas DataFrame, or without pandas a dict of lists
print(metrics[["step", "reward", "entropy", "completions/mean_length"]])

answers = run.rollouts()  # of the last step that was kept; run.rollouts(3) of another
print(answers.sort_values("reward", ascending=False)[["prompt", "completion", "reward", "advantage"]].head())

for event in run.record.events[:3]:
    print(f"step {event['step'] + 1}: {event['code']} {event['text']}. Fix: {event['fix']}")

run.plot("reward", "entropy").savefig(Path(run.path) / "curves.png")
model, tokenizer = run.policy()
print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens")
