"""Seconds of a forward and backward pass with --compile and without, in turn, and of compiling.

    OMP_NUM_THREADS=1 python benchmarks/single/compiled.py

Each shape of model runs in each precision on the same ragged rows, four answers to a prompt, A B A B …; a ratio is that
of one round's two times, and the printed one the median. Compiling is the trial before step 0, with nothing cached.
"""

from __future__ import annotations

import os
import tempfile
from random import Random
from statistics import median
from time import perf_counter

os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp()

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from oneloop.batch import Batch
from oneloop.experience.pack import Row, collate
from oneloop.forward.compiled import INDUCTOR, check_compiler
from oneloop.model.learner import Learner, Optimization
from oneloop.model.load import load_policy

TOKENS, ROUNDS = 1000, 6
PLAN = Optimization(learning_rate=1e-3, critic_learning_rate=1e-3, total_updates=1)


def models():
    yield "scratch:small, 5 M", load_policy("scratch:small")
    torch.manual_seed(0)
    shape = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 6, "num_attention_heads": 12}
    yield "Llama, 50 M", LlamaForCausalLM(LlamaConfig(vocab_size=8192, num_key_value_heads=4, **shape))


def batch(rng: Random) -> Batch:
    rows: list[Row] = []
    while sum(len(row.prompt) / 4 + len(row.actions) for row in rows) < TOKENS:
        prompt = [rng.randrange(4, 90) for _ in range(rng.randrange(20, 60))]
        answers = ([rng.randrange(4, 90) for _ in range(rng.randrange(20, 100))] for _ in range(4))
        group = len(rows)
        rows += [Row(prompt=prompt, actions=answer, group=group, reward=1.0) for answer in answers]
    return collate(rows)


def seconds(learner: Learner, rows: Batch) -> float:
    start = perf_counter()
    learner.policy(rows).logprobs.sum().backward()
    taken = perf_counter() - start
    learner.optimizer.zero_grad()
    return taken


def main() -> None:
    torch.set_num_threads(1)
    check_compiler("cpu")
    rng = Random(0)
    batches = [batch(rng) for _ in range(ROUNDS)]
    for name, model in models():
        for dtype in (torch.float32, torch.bfloat16):
            plain = Learner(model, optimization=PLAN, dtype=dtype, entropy="none")
            start = perf_counter()
            compiled = Learner(model, optimization=PLAN, dtype=dtype, entropy="none", compiler=INDUCTOR)
            compiling = perf_counter() - start
            for learner in (plain, compiled):
                seconds(learner, batches[0])
            rounds = [(seconds(plain, rows), seconds(compiled, rows)) for rows in batches]
            without, with_it = (median(times) for times in zip(*rounds, strict=True))
            ratios = sorted(b / a for a, b in rounds)
            print(
                f"{name}, {str(dtype).removeprefix('torch.')}: {without:.3f} s without, {with_it:.3f} s with, "
                f"ratio {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); compiled in {compiling:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
